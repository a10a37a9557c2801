package fsutil

import (
	"fmt"
	"os"
	"os/user"
	"strconv"
	"syscall"
)

// BecomeOwner turns a process of root, for good, into one of the user who owns path, or
// what path is a link to. What the process then writes belongs to that user, and a
// link that the user made gives access to nothing else. It does nothing without root,
// or if root owns path. The process joins the groups with these names that exist.
func BecomeOwner(path string, groups ...string) error {
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
	gids := []int{int(sys.Gid)}
	for _, name := range groups {
		if g, err := user.LookupGroup(name); err == nil {
			if gid, err := strconv.Atoi(g.Gid); err == nil {
				gids = append(gids, gid)
			}
		}
	}
	if err := syscall.Setgroups(gids); err != nil {
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
