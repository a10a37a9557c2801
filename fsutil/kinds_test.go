package fsutil

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// within fails the test if f does not return in time, as when it blocks on a FIFO.
func within(t *testing.T, what string, f func() error) error {
	t.Helper()
	done := make(chan error, 1)
	go func() { done <- f() }()
	select {
	case err := <-done:
		return err
	case <-time.After(20 * time.Second):
		t.Fatalf("%s waits", what)
		return nil
	}
}

// notFiles creates everything that can be in the place of a file.
func notFiles(t *testing.T, dir string) map[string]string {
	t.Helper()
	at := map[string]string{}
	for _, kind := range []string{"fifo", "directory", "link", "dangling link", "socket", "device"} {
		path := filepath.Join(dir, strings.ReplaceAll(kind, " ", "-"))
		var err error
		switch kind {
		case "fifo":
			err = unix.Mkfifo(path, 0o600)
		case "directory":
			err = os.Mkdir(path, 0o700)
		case "link":
			err = errors.Join(os.WriteFile(filepath.Join(dir, "target"), nil, 0o600), os.Symlink("target", path))
		case "dangling link":
			err = os.Symlink("none", path)
		case "socket":
			var l *net.UnixListener
			if l, err = net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"}); err == nil {
				t.Cleanup(func() { l.Close() })
			}
		case "device":
			if os.Getuid() != 0 {
				continue
			}
			err = unix.Mknod(path, unix.S_IFCHR|0o600, int(unix.Mkdev(1, 5))) // /dev/zero
		}
		if err != nil {
			t.Fatal(err)
		}
		at[kind] = path
	}
	return at
}

// Whatever is in the place of a file, no function blocks on it or follows it, and the
// error has its path.
func TestOnlyRegularFilesAreOpened(t *testing.T) {
	t.Parallel()
	dir, err := os.MkdirTemp("", "kinds") // a socket's path is short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	for kind, path := range notFiles(t, dir) {
		for what, open := range map[string]func() error{
			"ReadFile": func() error { _, err := ReadFile(path, 100); return err },
			"OpenRegular": func() error {
				if kind == "link" { // it is followed
					return fmt.Errorf("open %s", path)
				}
				_, err := OpenRegular(path)
				return err
			},
			"LockFile": func() error { _, err := LockFile(context.Background(), path, 0); return err },
			"Create":   func() error { _, err := Disk{}.Create(path, os.O_RDWR, 0o600); return err },
		} {
			if err := within(t, what, open); err == nil || !strings.Contains(err.Error(), path) {
				t.Errorf("%s of a %s: %v", what, kind, err)
			}
		}
	}
	for _, kind := range []string{"fifo", "target", "socket"} {
		if _, err := LockDir(t.Context(), filepath.Join(dir, kind), 0); err == nil {
			t.Errorf("a %s is locked as a directory", kind)
		}
	}
}

// A lock file of an earlier version, which every user can open, is narrowed. A file that
// was removed while a process waited for it does not lock anything.
func TestOnlyTheOwnerCanOpenTheLockFile(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), ".lock")
	if err := os.WriteFile(path, nil, 0o666); err != nil {
		t.Fatal(err)
	}
	l, err := LockFile(t.Context(), path, 0)
	if err != nil {
		t.Fatal(err)
	}
	if st, err := os.Stat(path); err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("mode %v: %v", st.Mode(), err)
	}
	if uid, ok := LockHolder(path); !ok || uid != uint32(os.Geteuid()) {
		t.Errorf("the holder is %d, %v", uid, ok)
	}
	got := make(chan *Lock)
	go func() {
		l, err := LockFile(context.Background(), path, time.Hour)
		if err != nil {
			t.Error(err)
		}
		got <- l
	}()
	for !hasOpen(t, path, 2) {
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	l.Unlock()
	(<-got).Unlock()
	if _, err := os.Stat(path); err != nil {
		t.Errorf("the lock is on a removed file: %v", err)
	}
	if uid, ok := LockHolder(path); ok {
		t.Errorf("no process holds it, but got %d", uid)
	}
}

// hasOpen reports whether this process has path open at least n times.
func hasOpen(t *testing.T, path string, n int) bool {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if to, err := os.Readlink("/proc/self/fd/" + e.Name()); err == nil && to == path {
			n--
		}
	}
	return n <= 0
}

// Root gives the lock that it creates in a user's directory to that user.
func TestLockFileOfRootBelongsToTheDirectorysOwner(t *testing.T) {
	t.Parallel()
	if os.Getuid() != 0 {
		t.Skip("needs root")
	}
	for _, before := range []bool{false, true} {
		dir := t.TempDir()
		path := filepath.Join(dir, ".lock")
		if before {
			if err := os.WriteFile(path, nil, 0o644); err != nil {
				t.Fatal(err)
			}
		}
		if err := os.Chown(dir, 1234, 1235); err != nil {
			t.Fatal(err)
		}
		l, err := LockFile(t.Context(), path, 0)
		if err != nil {
			t.Fatal(err)
		}
		l.Unlock()
		st, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		if sys := st.Sys().(*syscall.Stat_t); sys.Uid != 1234 || sys.Gid != 1235 || st.Mode().Perm() != 0o600 {
			t.Errorf("owner %d:%d, mode %v", sys.Uid, sys.Gid, st.Mode())
		}
	}
}

const umaskEnv = "EDGE_AGENT_TEST_UMASK"

// Modes do not depend on the umask. The umask belongs to the whole process, so the test
// runs a child.
func TestModesWhateverTheUmask(t *testing.T) {
	if u := os.Getenv(umaskEnv); u != "" {
		mask, err := strconv.ParseInt(u, 8, 32)
		if err != nil {
			t.Fatal(err)
		}
		dir := t.TempDir()
		syscall.Umask(int(mask))
		for _, mode := range []fs.FileMode{0o600, 0o644, 0o755, 0o777} {
			path := func(kind string) string { return filepath.Join(dir, fmt.Sprintf("%s-%o", kind, mode)) }
			f, err := Disk{}.Create(path("create"), os.O_RDWR, mode)
			if err := errors.Join(err, (Disk{}).WriteFile(path("write"), nil, mode), (Disk{}).Mkdir(path("mkdir"), mode)); err != nil {
				t.Fatal(err)
			}
			f.Close()
			if err := errors.Join((Disk{}).WriteFile(path("chmod"), nil, 0o600), (Disk{}).Chmod(path("chmod"), mode)); err != nil {
				t.Fatal(err)
			}
			for _, kind := range []string{"create", "write", "mkdir", "chmod"} {
				if st, err := os.Stat(path(kind)); err != nil || st.Mode().Perm() != mode {
					t.Errorf("umask %s: %s with %v gives %v: %v", u, kind, mode, st.Mode(), err)
				}
			}
		}
		return
	}
	t.Parallel()
	for _, u := range []string{"000", "022", "027", "077", "777"} {
		cmd := exec.Command(os.Args[0], "-test.run=^TestModesWhateverTheUmask$")
		cmd.Env = append(os.Environ(), umaskEnv+"="+u)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("%v: %s", err, out)
		}
	}
}

func TestMountPoint(t *testing.T) {
	t.Parallel()
	for _, path := range []string{"/proc", "/"} {
		if got := MountPoint(path); got == "" {
			t.Errorf("%s has no mount point", path)
		}
	}
	if got := MountPoint(t.TempDir()); got != "" {
		t.Errorf("a new directory has %s", got)
	}
	if got := unescape(`/a\040b\134c\0`); got != `/a b\c\0` {
		t.Errorf("got %q", got)
	}
}

// MountOf returns the mount point that a path is below.
func TestMountOf(t *testing.T) {
	t.Parallel()
	for path, want := range map[string]string{"/proc": "/proc", "/proc/self": "/proc", "/": "/"} {
		if got := MountOf(path); got != want {
			t.Errorf("%s: %s, want %s", path, got, want)
		}
	}
}
