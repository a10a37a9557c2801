package fsutil

import (
	"context"
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// probe asks each file of the directory whether a process has opened it.
func (u *usedDir) probe(ctx context.Context) (by string, err error) {
	for _, path := range u.files {
		if ctx.Err() != nil {
			return "", ctx.Err()
		}
		if probeOpen(path) {
			return "a process that this user cannot see has opened " + path, nil
		}
	}
	return "", nil
}

// probeOpen reports whether the regular file at path is open, mapped or executed
// anywhere, by whomever. The kernel grants a write lease only on a file that nobody else
// has opened. Where it grants none to this user (another owner) or at all (NFS), opening
// the file for writing still fails while it is executed. probeOpen returns false where
// neither can be tried.
//
// It holds the lease, or the open file, for an instant only: a process that opens the
// file at that time waits for it.
//
//	open(O_RDONLY), fcntl(F_SETLEASE, F_WRLCK), fcntl(F_SETLEASE, F_UNLCK)
//	open(O_WRONLY)                          or, without leases
func probeOpen(path string) bool {
	if open, known := probeLease(path); known {
		return open
	}
	f, err := os.OpenFile(path, os.O_WRONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return errors.Is(err, unix.ETXTBSY)
	}
	f.Close()
	return false
}

// probeLease is the first half of probeOpen. known is false if leases tell nothing here.
func probeLease(path string) (open, known bool) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return false, false
	}
	defer f.Close()
	if !leasesAreLocal(int(f.Fd())) {
		return false, false
	}
	_, err = unix.FcntlInt(f.Fd(), unix.F_SETLEASE, unix.F_WRLCK)
	if errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EBUSY) {
		return true, true
	}
	if err != nil {
		return false, false
	}
	unix.FcntlInt(f.Fd(), unix.F_SETLEASE, unix.F_UNLCK)
	return false, true
}

// leasesAreLocal reports whether the kernel grants leases itself. A network file system
// asks its server, and answers EAGAIN also for a file that nobody uses.
func leasesAreLocal(fd int) bool {
	var st unix.Statfs_t
	if unix.Fstatfs(fd, &st) != nil {
		return false
	}
	switch uint32(st.Type) {
	case unix.NFS_SUPER_MAGIC, unix.SMB_SUPER_MAGIC, unix.CIFS_SUPER_MAGIC, unix.SMB2_SUPER_MAGIC:
		return false
	}
	return true
}
