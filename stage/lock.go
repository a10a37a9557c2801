package stage

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"syscall"
	"time"

	"github.com/bilbycast/edge-agent/fsutil"
	"github.com/bilbycast/edge-agent/internal/state"
)

// lockStaging takes the lock of staging, and waits for at most wait.
//
// Earlier versions of the agent lock the directory downloads/ itself, so that is
// locked, too. They left it open to other users, and a user who opened it can hold
// that lock until their process ends. So the directory becomes the owner's alone, and
// a holder who is neither the owner, root, nor this user is ignored.
func lockStaging(ctx context.Context, l state.Layout, wait time.Duration) (unlock func(), err error) {
	dir := l.Downloads()
	st, err := os.Stat(dir)
	if err != nil {
		return nil, err
	}
	if st.Mode().Perm()&0o077 != 0 {
		l.Disk().Chmod(dir, 0o700) // a directory of somebody else stays as it is
	}
	path := l.StagingLock()
	setAside(l, path)
	lock, err := fsutil.LockFile(ctx, path, wait)
	full := fsutil.IsNoSpace(err)
	if err != nil && !full {
		return nil, err
	}
	unlockFile := func() {
		if lock != nil {
			l.Disk().Discard(path) // a process that waits for it makes another
			lock.Unlock()
		}
	}
	old, err := fsutil.LockDir(ctx, dir, wait)
	if errors.Is(err, fsutil.ErrNoLock) && lock != nil { // as on NFS, where no earlier version could lock
		err = nil
	}
	// On a full disk, where versions are to be removed, the old lock must do.
	if err != nil && (full || !errors.Is(err, fsutil.ErrLocked) || ours(dir, st)) {
		unlockFile()
		return nil, err
	}
	return func() {
		if old != nil {
			old.Unlock()
		}
		unlockFile()
	}, nil
}

// ours reports whether the lock of dir may be held by a process of the agent.
func ours(dir string, st fs.FileInfo) bool {
	uid, ok := fsutil.LockHolder(dir)
	if !ok {
		return false
	}
	owner, ok := st.Sys().(*syscall.Stat_t)
	return uid == 0 || uid == uint32(os.Geteuid()) || ok && uid == owner.Uid
}

// setAside removes anything but a regular file at path. Everything in downloads/ belongs to
// the agent and can be made again.
func setAside(l state.Layout, path string) {
	if st, err := os.Lstat(path); err == nil && !st.Mode().IsRegular() {
		l.Disk().Discard(path)
	}
}
