package fsutil

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// ErrLocked means that another process holds the lock.
var ErrLocked = errors.New("held by another process")

// ErrNoLock means that the file system has no locks, for no process: not for a
// descriptor that may be written to either.
var ErrNoLock = errors.New("its file system has no locks")

const lockRemedy = "mount it with locks (NFS: version 4, or version 3 with rpc.statd), or " + localFileSystem

// Lock is an exclusive flock(2). The kernel releases it when the process ends.
type Lock struct{ f *os.File }

// LockFile locks the regular file at path, which it creates with mode 0600 if it is
// missing. It waits for another process for at most wait; then the error wraps
// ErrLocked.
//
// A user who can open the file can hold its lock. So a file with a wider mode, as
// earlier versions made it, is replaced, or its mode is narrowed if that fails. A file
// that root created in another user's directory is given to that user.
//
// The file is opened for writing, since NFS locks no other descriptor (EBADF). Where that
// is forbidden it is opened for reading, which other file systems lock as well: all
// descriptors of a file exclude each other.
func LockFile(ctx context.Context, path string, wait time.Duration) (*Lock, error) {
	return lockFile(ctx, path, wait, func(st os.FileInfo) bool { return st.Mode().Perm()&0o077 != 0 })
}

// HoldFile is LockFile for a lock that this process holds for its whole life. A file with
// a wider mode is not replaced, because another process may hold it just as long. It is
// replaced if a user holds it who is neither root, nor this user, nor the owner of the
// directory.
func HoldFile(ctx context.Context, path string, wait time.Duration) (*Lock, error) {
	keep := func(os.FileInfo) bool { return false }
	lock, err := lockFile(ctx, path, wait, keep)
	if !errors.Is(err, ErrLocked) {
		return lock, err
	}
	pid, ok := lockHolder(path)
	var holder, dir unix.Stat_t
	if !ok || unix.Stat("/proc/"+pid, &holder) != nil || unix.Stat(filepath.Dir(path), &dir) != nil ||
		holder.Uid == 0 || holder.Uid == uint32(os.Geteuid()) || holder.Uid == dir.Uid || os.Remove(path) != nil {
		return nil, err
	}
	return lockFile(ctx, path, 0, keep)
}

// lockFile is LockFile. It removes a file that replace returns true for.
func lockFile(ctx context.Context, path string, wait time.Duration, replace func(os.FileInfo) bool) (*Lock, error) {
	deadline := time.Now().Add(wait)
	for replaced := false; ; {
		f, err := openLock(path, os.O_RDWR)
		writable := err == nil
		if err != nil { // another user's file, or a read-only file system
			f, err = openLock(path, os.O_RDONLY)
		}
		if err != nil {
			return nil, fmt.Errorf("lock: %w", err)
		}
		st, err := f.Stat()
		if err == nil && !st.Mode().IsRegular() {
			err = errors.New("not a regular file; remove it")
		}
		if err != nil {
			f.Close()
			return nil, fmt.Errorf("lock %s: %w", path, err)
		}
		// Once only: some file systems give every file the same mode.
		if !replaced && replace(st) && os.Remove(path) == nil {
			f.Close()
			replaced = true
			continue
		}
		keepOut(f, st)
		if err := flock(ctx, f, writable, deadline); err != nil {
			return nil, err
		}
		// The lock of a file that was removed meanwhile is worth nothing.
		if now, err := os.Lstat(path); err == nil && os.SameFile(st, now) {
			return &Lock{f}, nil
		}
		f.Close()
	}
}

func openLock(path string, flag int) (*os.File, error) {
	return os.OpenFile(path, flag|os.O_CREATE|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0o600)
}

// keepOut makes f accessible to the owner of its directory alone. Errors are ignored:
// only the owner and root may do that, and the lock works without it.
func keepOut(f *os.File, st os.FileInfo) {
	if st.Mode().Perm()&^0o600 != 0 {
		f.Chmod(0o600)
	}
	dir, err := os.Stat(filepath.Dir(f.Name()))
	if err != nil || os.Geteuid() != 0 {
		return
	}
	file, ok1 := st.Sys().(*syscall.Stat_t)
	owner, ok2 := dir.Sys().(*syscall.Stat_t)
	if ok1 && ok2 && file.Uid == 0 && owner.Uid != 0 {
		f.Chown(int(owner.Uid), int(owner.Gid))
	}
}

// LockDir locks the directory at path. It waits as LockFile does. A directory cannot be
// opened for writing, so a file system that locks files may return ErrNoLock here.
func LockDir(ctx context.Context, path string, wait time.Duration) (*Lock, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_DIRECTORY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("lock: %w", err)
	}
	if err := flock(ctx, f, true, time.Now().Add(wait)); err != nil {
		return nil, err
	}
	return &Lock{f}, nil
}

// flock locks f. If it fails, it closes f. best is whether no other descriptor of the
// file could be locked where f cannot.
func flock(ctx context.Context, f *os.File, best bool, deadline time.Time) (err error) {
	defer func() {
		if err != nil {
			f.Close()
			err = fmt.Errorf("lock %s: %w", f.Name(), err)
		}
	}()
	// flock(2) has no time limit, and a thread that blocks in it cannot be woken.
	// Polling is cheap, since the lock is held for milliseconds, and slows down where it is not.
	for pause := 5 * time.Millisecond; ; pause = min(2*pause, 100*time.Millisecond) {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		switch {
		case err == nil:
			return nil
		case errors.Is(err, unix.EINTR):
			continue
		case errors.Is(err, unix.EBADF) && !best:
			return fmt.Errorf("%w: this file system locks only files that the user of this process (uid %d) may write to; see ls -l %s", err, os.Geteuid(), f.Name())
		case errors.Is(err, unix.EBADF), errors.Is(err, unix.ENOLCK), errors.Is(err, unix.EOPNOTSUPP), errors.Is(err, unix.ENOSYS), errors.Is(err, unix.EINVAL):
			kind, _ := FileSystem(f.Name())
			return fmt.Errorf("%w (%s): %w: %s", ErrNoLock, kind, err, lockRemedy)
		case !errors.Is(err, unix.EWOULDBLOCK):
			return err
		case !time.Now().Before(deadline):
			return ErrLocked
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(pause):
		}
	}
}

// LockHolder returns the uid of a process that holds a flock(2) of path. ok is false if
// this process sees none.
func LockHolder(path string) (uid uint32, ok bool) {
	pid, ok := lockHolder(path)
	if !ok {
		return 0, false
	}
	var holder unix.Stat_t
	err := unix.Stat("/proc/"+pid, &holder)
	return holder.Uid, err == nil
}

// LockedBy describes a process that holds a flock(2) of path, with its command line if
// this user sees it.
func LockedBy(path string) string {
	pid, ok := lockHolder(path)
	if !ok {
		return "a process that this one cannot see"
	}
	command, err := os.Open("/proc/" + pid + "/cmdline")
	if err != nil {
		return Process(pid)
	}
	defer command.Close()
	b := make([]byte, 300) // enough to recognise it
	n, _ := io.ReadFull(command, b)
	words := strings.Fields(strings.ReplaceAll(string(b[:n]), "\x00", " "))
	if len(words) == 0 {
		return Process(pid)
	}
	return fmt.Sprintf("process %s (%s)", pid, strings.Join(words, " "))
}

// lockHolder returns the number of a live process that holds a flock(2) of path.
func lockHolder(path string) (pid string, ok bool) {
	var st unix.Stat_t
	if unix.Stat(path, &st) != nil {
		return "", false
	}
	f, err := os.Open("/proc/locks")
	if err != nil {
		return "", false
	}
	defer f.Close()
	// 1: FLOCK  ADVISORY  WRITE 1234 08:01:131 0 EOF
	// Another file system may have the same inode number. Where the kernel shows another
	// device than stat, as on btrfs, nobody is found.
	file := fmt.Sprintf("%02x:%02x:%d", unix.Major(st.Dev), unix.Minor(st.Dev), st.Ino)
	for lines := bufio.NewScanner(f); lines.Scan(); {
		fields := strings.Fields(lines.Text())
		if len(fields) < 6 || fields[1] != "FLOCK" || fields[5] != file {
			continue
		}
		if _, err := os.Stat("/proc/" + fields[4]); err == nil {
			return fields[4], true
		}
	}
	return "", false
}

// Unlock releases the lock.
func (l *Lock) Unlock() error { return l.f.Close() }
