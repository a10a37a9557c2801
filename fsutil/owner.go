package fsutil

import (
	"fmt"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"
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

// Give changes the owner of the directory path, which must be no link, and of everything
// below it. The content of a directory comes before the directory, and path comes
// last. So the new owner cannot change a directory while root still works below it,
// and path belongs to the user only if everything does.
//
// It works on open files, never on names, and changes links themselves. It refuses
// devices, and files that have a further name outside the tree, as those may belong to
// another user.
//
//	openat(O_NOFOLLOW), getdents, openat(O_PATH|O_NOFOLLOW), fchownat(AT_EMPTY_PATH)
func Give(path string, uid, gid int) error {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("hand over %s: %w", path, err)
	}
	defer unix.Close(fd)
	g := giver{uid: uid, gid: gid, links: map[inode]*shared{}}
	if err := g.directory(fd, path, 0); err != nil {
		return fmt.Errorf("hand over %w", err)
	}
	for _, s := range g.links {
		if s.seen < s.all {
			return fmt.Errorf("hand over %s: the file has %d names, and only %d of them are here; copy it, and remove the original", s.path, s.all, s.seen)
		}
	}
	if err := unix.Fchown(fd, uid, gid); err != nil {
		return fmt.Errorf("hand over %s: %w", path, err)
	}
	return nil
}

// maxDepth limits how many directories Give opens at a time.
const maxDepth = 200

type giver struct {
	uid, gid int
	links    map[inode]*shared
}

type inode struct{ dev, ino uint64 }

// shared is a file with several names.
type shared struct {
	path      string
	seen, all uint64
}

// directory changes the owner of what is in an open directory, but not of the directory.
// It lists the directory through a descriptor of its own.
func (g *giver) directory(fd int, path string, depth int) error {
	if depth > maxDepth {
		return fmt.Errorf("%s: more than %d directories deep", path, maxDepth)
	}
	list, err := unix.Openat(fd, ".", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	f := os.NewFile(uintptr(list), path)
	names, err := f.Readdirnames(-1)
	f.Close()
	if err != nil {
		return err
	}
	for _, name := range names {
		if err := g.entry(fd, name, filepath.Join(path, name), depth); err != nil {
			return err
		}
	}
	return nil
}

// entry changes the owner of one entry of an open directory, and of what is below it.
func (g *giver) entry(dir int, name, path string, depth int) error {
	fd, err := unix.Openat(dir, name, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFDIR:
		// This opens what Fstat described, since nobody can replace an open file.
		sub, err := unix.Openat(fd, ".", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		if err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
		err = g.directory(sub, path, depth+1)
		unix.Close(sub)
		if err != nil {
			return err
		}
	case unix.S_IFCHR, unix.S_IFBLK:
		return fmt.Errorf("%s is a device; remove it", path)
	default:
		if st.Nlink > 1 {
			key := inode{uint64(st.Dev), st.Ino}
			if g.links[key] == nil {
				g.links[key] = &shared{path: path, all: uint64(st.Nlink)}
			}
			if g.links[key].seen++; g.links[key].seen < uint64(st.Nlink) {
				return nil // changed with its last name
			}
		}
	}
	if int(st.Uid) == g.uid && int(st.Gid) == g.gid {
		return nil
	}
	if err := unix.Fchownat(fd, "", g.uid, g.gid, unix.AT_EMPTY_PATH); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	return nil
}
