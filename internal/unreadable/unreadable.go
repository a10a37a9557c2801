// Package unreadable makes a file unreadable for a test, as a restored backup with another
// owner does: the kernel refuses to open it (EACCES), also where the tests run as root.
//
// It changes no content, and restores modes and owners afterwards.
package unreadable

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// nobody is the user that f runs as; it owns nothing else.
const nobody = 65534

// While runs f while path, below the test's temporary directory root, has mode 0. As
// root it gives all of root to another user, and f's file system calls are that
// user's. f must call Errorf, not Fatal.
func While(t *testing.T, root, path string, f func()) {
	t.Helper()
	st, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, 0); err != nil {
		t.Fatal(err)
	}
	defer os.Chmod(path, st.Mode().Perm())
	if os.Geteuid() != 0 {
		f()
		return
	}
	if err := errors.Join(chown(root, nobody), enterable(root)); err != nil {
		t.Fatal(err)
	}
	defer chown(root, 0)
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // and never unlocked: the thread ends with this goroutine
		if err := errors.Join(unix.Setfsgid(nobody), unix.Setfsuid(nobody)); err != nil {
			t.Error(err)
			return
		}
		f()
	}()
	<-done
}

// chown gives everything below root to a user.
func chown(root string, uid int) error {
	return filepath.WalkDir(root, func(path string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		return os.Lchown(path, uid, uid)
	})
}

// enterable lets every user pass the directories above root.
func enterable(root string) error {
	for dir := filepath.Dir(root); dir != "/" && dir != os.TempDir(); dir = filepath.Dir(dir) {
		st, err := os.Stat(dir)
		if err != nil {
			return err
		}
		if st.Sys().(*syscall.Stat_t).Uid == uint32(os.Geteuid()) {
			if err := os.Chmod(dir, st.Mode().Perm()|0o011); err != nil {
				return err
			}
		}
	}
	return nil
}
