package fsutil

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"syscall"

	"golang.org/x/sys/unix"
)

// Access is what a process wants of a file, as access(2) has it.
type Access uint32

// What a process can want. A directory is entered with Execute.
const (
	Execute Access = unix.X_OK
	Write   Access = unix.W_OK
	Read    Access = unix.R_OK
)

// Denied returns which of the mode, noexec and mandatory access control keeps the user of this
// process from path, which the kernel denied, and what to do about it.
func Denied(path string, want Access) string {
	if want&Execute != 0 && NoExec(path) {
		return fmt.Sprintf("%s is on a file system mounted noexec: mount it with exec, or set service.install_root elsewhere", path)
	}
	closed := "" // the topmost directory that this user may not enter
	for dir := filepath.Dir(path); ; dir = filepath.Dir(dir) {
		if !modeAllows(dir, Execute) {
			closed = dir
		}
		if dir == filepath.Dir(dir) {
			break
		}
	}
	if closed != "" {
		return fmt.Sprintf("the mode refuses it: the user of this process (uid %d) may not enter %s: give it the x bit there", os.Geteuid(), closed)
	}
	for _, x := range []struct {
		want Access
		bit  string
	}{{Execute, "x"}, {Read, "r"}, {Write, "w"}} {
		if want&x.want != 0 && !modeAllows(path, x.want) {
			return fmt.Sprintf("the mode refuses it: the user of this process (uid %d) has no %s bit on %s: look at its owner, its mode and its ACL", os.Geteuid(), x.bit, path)
		}
	}
	return mandatory()
}

// mandatory returns that mandatory access control denied something.
func mandatory() string {
	b, _ := os.ReadFile("/proc/self/attr/current")
	confined := ""
	if label := bytes.Trim(b, "\x00\n"); len(label) > 0 && string(label) != "unconfined" {
		confined = fmt.Sprintf("; this process runs as %.200q", label)
	}
	return "the modes and the mount allow it, so mandatory access control refuses it: look for SELinux, AppArmor, fapolicyd or IMA in the journal (journalctl -k)" + confined
}

// modeAllows reports whether owner, mode and ACL of a file allow want. It returns true for
// what cannot be read. access(2) alone would also ask SELinux.
func modeAllows(path string, want Access) bool {
	st, err := os.Stat(path)
	if err != nil {
		return true
	}
	if _, err := unix.Getxattr(path, "system.posix_acl_access", nil); err != nil {
		bits := st.Mode().Perm()
		owner, ok := st.Sys().(*syscall.Stat_t)
		groups, _ := os.Getgroups()
		switch {
		case ok && int(owner.Uid) == os.Geteuid():
			bits >>= 6
		case ok && (int(owner.Gid) == os.Getegid() || slices.Contains(groups, int(owner.Gid))):
			bits >>= 3
		}
		if Access(bits)&want == want {
			return true
		}
	}
	return unix.Access(path, uint32(want)) == nil // by the ACL, or by a capability of root
}

// NameDenial returns err with what Denied says, if the kernel denied something about a file
// (EACCES, or EPERM of a program) and err does not say why yet.
func NameDenial(err error) error {
	if why := denial(err); why != "" {
		return &denied{err, why}
	}
	return err
}

type denied struct {
	err error
	why string
}

func (e *denied) Error() string { return e.err.Error() + ": " + e.why }
func (e *denied) Unwrap() error { return e.err }

func denial(err error) string {
	if err == nil || errors.As(err, new(*denied)) || errors.As(err, new(*Inability)) {
		return ""
	}
	var path *fs.PathError
	var link *os.LinkError
	switch {
	case errors.As(err, &path) && path.Op == "fork/exec" && errors.Is(path, fs.ErrPermission):
		return Denied(path.Path, Execute)
	case !errors.Is(err, unix.EACCES):
		return ""
	case errors.As(err, &link):
		return Denied(filepath.Dir(link.New), Write|Execute)
	case !errors.As(err, &path):
		return ""
	}
	switch path.Op {
	case "open", "openat":
		// The error does not say what the file was opened for.
		f, err := os.OpenFile(path.Path, os.O_RDONLY|unix.O_NONBLOCK|unix.O_NOCTTY, 0)
		switch {
		case err == nil:
			f.Close()
			return Denied(path.Path, Write)
		case errors.Is(err, fs.ErrNotExist):
			return Denied(filepath.Dir(path.Path), Write|Execute)
		}
		return Denied(path.Path, Read)
	case "mkdir", "mkdirat", "remove", "unlinkat", "symlink", "symlinkat":
		return Denied(filepath.Dir(path.Path), Write|Execute)
	}
	return Denied(path.Path, 0) // stat and others need only the way there
}
