package fsutil

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// Space is the free space of a file system for an unprivileged user.
type Space struct {
	Bytes  uint64 // f_bavail x f_frsize
	Inodes uint64 // f_favail, or all ones where inodes are not counted (btrfs)
	Device uint64 // st_dev: paths with the same number share the space
}

// Free returns the free space of the file system that holds path.
func Free(path string) (Space, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(path, &st); err != nil {
		return Space{}, fmt.Errorf("statfs %s: %w", path, err)
	}
	var file unix.Stat_t
	if err := unix.Stat(path, &file); err != nil {
		return Space{}, fmt.Errorf("stat %s: %w", path, err)
	}
	s := Space{Device: uint64(file.Dev), Bytes: st.Bavail * uint64(st.Frsize), Inodes: st.Ffree}
	if st.Files == 0 {
		s.Inodes = ^uint64(0)
	}
	return s, nil
}

// ReadOnly reports whether path is on a file system that is mounted read-only.
func ReadOnly(path string) bool {
	var st unix.Statfs_t
	return unix.Statfs(path, &st) == nil && st.Flags&unix.ST_RDONLY != 0
}

// Reserve allocates the blocks for a file of size bytes without changing its size, so
// that later writes cannot run out of space. A file system that cannot do that is no
// error.
//
//	fallocate(FALLOC_FL_KEEP_SIZE)
func Reserve(f *os.File, size int64) error {
	if size <= 0 {
		return nil
	}
	for {
		err := unix.Fallocate(int(f.Fd()), unix.FALLOC_FL_KEEP_SIZE, 0, size)
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case IsNoSpace(err), errors.Is(err, unix.EFBIG), errors.Is(err, unix.EIO):
			return fmt.Errorf("reserve %d bytes: %w", size, err)
		}
		return nil // the writes will fail where space is missing
	}
}

// IsNoSpace reports whether err means that the file system, or the user's quota, is full.
func IsNoSpace(err error) bool {
	return errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT)
}

// NoExec reports whether path is on a file system that is mounted noexec.
func NoExec(path string) bool {
	var st unix.Statfs_t
	return unix.Statfs(path, &st) == nil && st.Flags&unix.ST_NOEXEC != 0
}

// Overlay reports whether path is on an overlay file system, where a directory
// of a lower layer can be neither renamed nor exchanged.
func Overlay(path string) bool {
	var st unix.Statfs_t
	return unix.Statfs(path, &st) == nil && st.Type == unix.OVERLAYFS_SUPER_MAGIC
}
