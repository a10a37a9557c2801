package fsutil

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
)

// BecomeOwner makes a process of root one of the owner of path, for good: what
// it then writes there belongs to that owner, and a link that the owner put
// there leads it nowhere that the owner could not go. Without root, or where
// root owns path, it does nothing.
func BecomeOwner(path string) error {
	if os.Geteuid() != 0 {
		return nil
	}
	st, err := os.Stat(path)
	if err != nil {
		return err
	}
	sys, ok := st.Sys().(*syscall.Stat_t)
	if !ok || sys.Uid == 0 {
		return nil
	}
	// setgroups, setgid, setuid: in this order, since the last gives up the right to the others.
	if err := syscall.Setgroups([]int{int(sys.Gid)}); err != nil {
		return fmt.Errorf("become the owner of %s: %w", path, err)
	}
	if err := syscall.Setgid(int(sys.Gid)); err != nil {
		return fmt.Errorf("become the owner of %s: %w", path, err)
	}
	if err := syscall.Setuid(int(sys.Uid)); err != nil {
		return fmt.Errorf("become the owner of %s: %w", path, err)
	}
	return nil
}

// Give makes the tree at path the user's: what is in it first, and path itself
// last, so that whoever finds path the user's knows that all of it is. Links are
// given, not followed. Nobody else may write there meanwhile.
func Give(path string, uid, gid int) error {
	err := filepath.WalkDir(path, func(p string, _ fs.DirEntry, err error) error {
		if err != nil || p == path {
			return err
		}
		return os.Lchown(p, uid, gid)
	})
	if err != nil {
		return err
	}
	return os.Lchown(path, uid, gid)
}
