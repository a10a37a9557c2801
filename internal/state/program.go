package state

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"github.com/bilbycast/edge-agent/fsutil"
	"github.com/bilbycast/edge-agent/release"
	"golang.org/x/sys/unix"
)

// maxRelease bounds ReleaseFile, in bytes.
const maxRelease = 4 << 10

// WithProgram returns the layout for a service whose program is at name in a version's
// directory. Versions whose ReleaseFile names a program do not need it.
func (l Layout) WithProgram(name string) Layout { l.program = name; return l }

// WithProgramAt is WithProgram for the program at path, as systemd starts it: through a link
// of the root, or below versions/. Links within a version are not followed, since
// another version may have another target. For any other path it changes nothing.
func (l Layout) WithProgramAt(path string) Layout {
	for _, dir := range []string{l.Current(), l.LastGood(), l.Previous()} {
		if name, err := filepath.Rel(dir, path); err == nil && name != "." && filepath.IsLocal(name) {
			return l.WithProgram(name)
		}
	}
	rel, err := filepath.Rel(l.Versions(), path)
	if err != nil || !filepath.IsLocal(rel) {
		return l
	}
	dir, name, found := strings.Cut(rel, string(filepath.Separator))
	if _, err := release.ParseVersion(dir); err != nil || !found {
		return l
	}
	return l.WithProgram(name)
}

// Damage returns why version v cannot be started, or "": its program is missing, empty, no
// file, or not for the root's owner to execute. What cannot be read now says nothing, and
// a version whose program nobody names counts as sound.
func (l Layout) Damage(v release.Version) string {
	name := l.programOf(v)
	if name == "" {
		return ""
	}
	if why := l.closed(l.Version(v), name); why != "" {
		return why
	}
	path := filepath.Join(l.Version(v), name)
	st, err := os.Stat(path)
	switch {
	case errors.Is(err, syscall.ELOOP):
		return "its program " + name + " is a link that leads to itself"
	case err != nil && absent(err):
		return "its program " + name + " is missing"
	case err != nil:
		return ""
	case !st.Mode().IsRegular():
		return "its program " + name + " is not a regular file"
	case st.Size() == 0:
		return "its program " + name + " is empty"
	case st.Mode()&0o111 == 0:
		return "its program " + name + " is not executable"
	case l.barred(path, st):
		return fmt.Sprintf("its program %s is not executable for the owner of the install root (%s)", name, access(st))
	}
	return ""
}

// closed returns which directory on the way to the program another user closed to the
// root's owner, or "". One that the owner closed counts as unreadable now.
func (l Layout) closed(dir, program string) string {
	parts := strings.Split(filepath.Dir(program), string(filepath.Separator))
	for i, part := range append([]string{"."}, parts...) {
		if i > 0 && part == "." {
			continue
		}
		dir = filepath.Join(dir, part)
		st, err := os.Stat(dir)
		if err != nil || !st.IsDir() {
			return "" // the program is missing, or cannot be looked at
		}
		owner, err := l.Owner()
		if uid, known := ownerOf(st); err == nil && known && uid != owner && l.barred(dir, st) {
			return fmt.Sprintf("its directory %s cannot be entered by the owner of the install root (%s)", dir, access(st))
		}
	}
	return ""
}

// access describes who may use a file.
func access(st fs.FileInfo) string {
	uid, _ := ownerOf(st)
	return fmt.Sprintf("it has the mode %04o and belongs to %s", st.Mode().Perm(), userName(uid))
}

// barred reports whether the root's owner may not execute a file, or enter a directory, as
// far as that is known. An access control list, or a capability, may permit what the
// mode does not.
func (l Layout) barred(path string, st fs.FileInfo) bool {
	owner, err := l.Owner()
	sys, ok := st.Sys().(*syscall.Stat_t)
	if err != nil || !ok || owner == 0 {
		return false
	}
	mode := st.Mode().Perm()
	switch {
	case sys.Uid == owner:
		if mode&0o100 != 0 {
			return false
		}
	case mode&0o011 == 0o011:
		return false
	case mode&0o011 != 0:
		// The answer depends on the groups of the owner.
		member, known := l.inGroup(owner, sys.Gid)
		if !known || member && mode&0o010 != 0 || !member && mode&0o001 != 0 {
			return false
		}
	}
	if uint32(os.Geteuid()) == owner {
		return errors.Is(unix.Faccessat(unix.AT_FDCWD, path, unix.X_OK, unix.AT_EACCESS), unix.EACCES)
	}
	n, err := unix.Getxattr(path, "system.posix_acl_access", nil)
	return err != nil || n <= 0
}

// inGroup reports whether the root's owner has a group, as far as that is known: the
// process of that user knows its groups, others ask the user database.
func (l Layout) inGroup(owner, gid uint32) (member, known bool) {
	if uint32(os.Geteuid()) == owner {
		gids, err := os.Getgroups()
		return uint32(os.Getegid()) == gid || slices.Contains(gids, int(gid)), err == nil
	}
	if st, err := os.Stat(l.root); err == nil {
		if sys, ok := st.Sys().(*syscall.Stat_t); ok && sys.Gid == gid {
			return true, true
		}
	}
	u, err := user.LookupId(strconv.FormatUint(uint64(owner), 10))
	if err != nil {
		return false, false
	}
	gids, err := u.GroupIds()
	return slices.Contains(gids, strconv.FormatUint(uint64(gid), 10)), err == nil
}

// programOf returns the program of v, as staging recorded it, or else as the caller of
// WithProgram names it; "": it is not known.
func (l Layout) programOf(v release.Version) string {
	var made struct {
		Program string `json:"program"`
	}
	b, err := fsutil.ReadFile(filepath.Join(l.Version(v), ReleaseFile), maxRelease)
	if err == nil && json.Unmarshal(b, &made) == nil && filepath.IsLocal(made.Program) {
		return made.Program
	}
	return l.program
}
