package fsutil

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"golang.org/x/sys/unix"
)

// Tree is a directory tree that Take took from its owners. Close it.
type Tree struct {
	fd   int
	path string
	from []int
}

// Take makes root the owner of the directory path, which must be no link, and of every
// directory below it, and removes the right of groups and others to write there.
// Then no other user can add, rename or remove a file in the tree, whoever owned it.
//
// It works from the top down and on open files, never on names: each directory is
// listed after it was taken. path must belong to owner, and what is in it to owner or
// to one of the users in from; a file of anybody else, and a device, is refused. After
// an error, and until Give, path belongs to root.
//
//	openat(O_NOFOLLOW), fchown, fchmod, getdents, openat(O_PATH|O_NOFOLLOW)
func Take(path string, owner int, from ...int) (*Tree, error) {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("take over %s: %w", path, err)
	}
	t := &Tree{fd: fd, path: path, from: append([]int{owner}, from...)}
	var st unix.Stat_t
	if err = unix.Fstat(fd, &st); err == nil && int(st.Uid) != owner {
		err = fmt.Errorf("it belongs to uid %d, not %d", st.Uid, owner)
	}
	if err != nil {
		err = fmt.Errorf("%s: %w", path, err)
	} else {
		err = t.lock(fd, st, path, 0)
	}
	if err != nil {
		t.Close()
		return nil, fmt.Errorf("take over %w", err)
	}
	return t, nil
}

// Close releases the tree. It changes no owner.
func (t *Tree) Close() { unix.Close(t.fd) }

// maxDepth limits how many directories Take and Give open at a time.
const maxDepth = 200

// lock takes the open directory fd, and those below it.
func (t *Tree) lock(fd int, st unix.Stat_t, path string, depth int) error {
	if depth > maxDepth {
		return fmt.Errorf("%s: more than %d directories deep", path, maxDepth)
	}
	if st.Uid != 0 {
		if err := unix.Fchown(fd, 0, -1); err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
	}
	if mode := st.Mode & 0o7777; mode&0o022 != 0 { // also lowers the mask of an ACL
		if err := unix.Fchmod(fd, mode&^0o022); err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
	}
	return eachEntry(fd, path, func(fd int, path string, st unix.Stat_t) error {
		if !slices.Contains(t.from, int(st.Uid)) {
			return fmt.Errorf("%s belongs to uid %d: remove it, or change its owner", path, st.Uid)
		}
		switch st.Mode & unix.S_IFMT {
		case unix.S_IFCHR, unix.S_IFBLK:
			return fmt.Errorf("%s is a device; remove it", path)
		case unix.S_IFDIR:
			return inDirectory(fd, path, func(sub int) error { return t.lock(sub, st, path, depth+1) })
		}
		return nil
	})
}

// eachEntry calls do for each entry of the open directory fd, with a descriptor of the
// entry (O_PATH). It lists the directory through a descriptor of its own.
func eachEntry(fd int, path string, do func(fd int, path string, st unix.Stat_t) error) error {
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
	one := func(name string) error {
		path := filepath.Join(path, name)
		entry, err := unix.Openat(fd, name, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
		if err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
		defer unix.Close(entry)
		var st unix.Stat_t
		if err := unix.Fstat(entry, &st); err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
		return do(entry, path, st)
	}
	for _, name := range names {
		if err := one(name); err != nil {
			return err
		}
	}
	return nil
}

// inDirectory opens the directory that an O_PATH descriptor describes, which nobody can
// replace, and calls do with it.
func inDirectory(fd int, path string, do func(int) error) error {
	sub, err := unix.Openat(fd, ".", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	defer unix.Close(sub)
	return do(sub)
}

// Give takes the directory path, which belongs to root with everything below it, and
// gives it to a user: see Take, and Give of Tree.
func Give(path string, uid, gid int) error {
	t, err := Take(path, 0, uid)
	if err != nil {
		return err
	}
	defer t.Close()
	return t.Give(uid, gid)
}

// Give changes the owner of everything in the tree. The content of a directory comes
// before the directory, and the top of the tree comes last. So the new owner cannot
// change a directory while root still works below it, and the top belongs to the user
// only if everything does. Groups and others lose the right to write to its files.
//
// It works on open files, never on names, and changes links themselves. It refuses
// devices, and files that have a further name outside the tree, as those may belong to
// another user.
//
//	openat(O_NOFOLLOW), getdents, openat(O_PATH|O_NOFOLLOW), fchownat(AT_EMPTY_PATH), chmod
func (t *Tree) Give(uid, gid int) error {
	g := giver{uid: uid, gid: gid, from: append(t.from, 0), links: map[inode]*shared{}}
	if err := g.directory(t.fd, t.path, 0); err != nil {
		return fmt.Errorf("hand over %w", err)
	}
	for _, s := range g.links {
		if s.seen < s.all {
			return fmt.Errorf("hand over %s: the file has %d names, and only %d of them are here; copy it, and remove the original", s.path, s.all, s.seen)
		}
	}
	if err := unix.Fchown(t.fd, uid, gid); err != nil {
		return fmt.Errorf("hand over %s: %w", t.path, err)
	}
	return nil
}

type giver struct {
	uid, gid int
	from     []int // the present owners, besides uid
	links    map[inode]*shared
}

type inode struct{ dev, ino uint64 }

// shared is a file with several names.
type shared struct {
	path      string
	seen, all uint64
}

// directory changes the owner of what is in an open directory, but not of the directory.
func (g *giver) directory(fd int, path string, depth int) error {
	if depth > maxDepth {
		return fmt.Errorf("%s: more than %d directories deep", path, maxDepth)
	}
	return eachEntry(fd, path, func(fd int, path string, st unix.Stat_t) error {
		switch st.Mode & unix.S_IFMT {
		case unix.S_IFDIR:
			if err := inDirectory(fd, path, func(sub int) error { return g.directory(sub, path, depth+1) }); err != nil {
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
		return g.change(fd, path, st)
	})
}

// change changes the owner of one file.
func (g *giver) change(fd int, path string, st unix.Stat_t) error {
	if int(st.Uid) == g.uid && int(st.Gid) == g.gid {
		return nil
	}
	if int(st.Uid) != g.uid && !slices.Contains(g.from, int(st.Uid)) {
		return fmt.Errorf("%s belongs to uid %d: remove it, or change its owner", path, st.Uid)
	}
	if err := unix.Fchownat(fd, "", g.uid, g.gid, unix.AT_EMPTY_PATH); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG || st.Mode&0o022 == 0 {
		return nil
	}
	// The old owner may have left the file writable for everyone. fchmod(2) refuses O_PATH.
	if err := unix.Chmod(fmt.Sprintf("/proc/self/fd/%d", fd), st.Mode&0o755); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	return nil
}

// GiveFile changes the owner of a regular file, which must belong to owner and have no
// other name.
func GiveFile(path string, owner, uid, gid int) error {
	fd, err := unix.Open(path, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("hand over %s: %w", path, err)
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if err = unix.Fstat(fd, &st); err == nil && (st.Mode&unix.S_IFMT != unix.S_IFREG || st.Nlink != 1) {
		err = errors.New("not a regular file, or one with several names; copy it, and remove the original")
	}
	if err != nil {
		return fmt.Errorf("hand over %s: %w", path, err)
	}
	if err := (&giver{uid: uid, gid: gid, from: []int{owner}}).change(fd, path, st); err != nil {
		return fmt.Errorf("hand over %w", err)
	}
	return nil
}

// TakeLink gives the link at path itself, in a directory that Take took, to root.
func TakeLink(path string) error { return os.Lchown(path, 0, -1) }

// Owners returns the uid of each owner of path and of everything below it, with the path
// of one file of each. It follows no links.
func Owners(path string) (map[uint32]string, error) {
	owners := map[uint32]string{}
	err := filepath.WalkDir(path, func(at string, _ os.DirEntry, err error) error {
		var st unix.Stat_t
		if err == nil {
			err = unix.Lstat(at, &st)
		}
		switch {
		case errors.Is(err, os.ErrNotExist) && at != path: // removed meanwhile
			return nil
		case err != nil:
			return fmt.Errorf("%s: %w", at, err)
		}
		if _, ok := owners[st.Uid]; !ok {
			owners[st.Uid] = at
		}
		return nil
	})
	return owners, err
}
