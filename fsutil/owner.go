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

// BecomeOwner makes a process of root one of the owner of path, for good: of the
// directory that path stands for, if it is a link. What the process then writes
// there belongs to that owner, and a link that the owner put there gives access
// to nothing that the owner could not open. Without root, or where root owns
// path, it does nothing. It keeps the groups of these names, if there are such.
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

// Give makes the tree at path, which no link may stand for, the user's: the
// content of each directory before the directory, and path itself last. So the
// new owner can change nothing in a directory while root still works below it,
// and path belongs to the user only if all of it does.
//
// It works on open files, never on names, and follows no link: links are given
// themselves. It refuses devices, and files that have more names than the tree
// holds: those may be another's.
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

// maxDepth bounds the open directories of Give.
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

// directory gives what is in an open directory, and not the directory itself. It
// reads from a descriptor of its own.
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
		// What is opened here is what was looked at: an O_PATH descriptor cannot be swapped.
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
		return fmt.Errorf("%s: it is a device; remove it", path)
	default:
		if st.Nlink > 1 {
			key := inode{uint64(st.Dev), st.Ino}
			if g.links[key] == nil {
				g.links[key] = &shared{path: path, all: uint64(st.Nlink)}
			}
			if g.links[key].seen++; g.links[key].seen < uint64(st.Nlink) {
				return nil // given with its last name
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
