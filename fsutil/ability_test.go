package fsutil_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/bilbycast/edge-agent/fsutil"
	"github.com/bilbycast/edge-agent/internal/box"
	"github.com/bilbycast/edge-agent/internal/oddfs"
	"golang.org/x/sys/unix"
)

var all = []fsutil.Ability{fsutil.CanCreate, fsutil.CanChmod, fsutil.CanSymlink, fsutil.CanRename, fsutil.CanExchange, fsutil.CanLock, fsutil.CanSync, fsutil.CanSyncDir}

// tryAll tries everything in dir, and fails the test if anything is left there.
func tryAll(t *testing.T, d fsutil.Disk, dir string) error {
	t.Helper()
	err := d.Try(t.Context(), dir, all...)
	if err == nil {
		err = d.TryExec(t.Context(), filepath.Join(dir, ".partial-x"), "bin/edge")
	}
	entries, e := os.ReadDir(dir)
	if e != nil || len(entries) > 0 {
		t.Errorf("left in %s: %v, %v", dir, entries, e)
	}
	return err
}

// mounted mounts a file system, which the test unmounts at its end.
func mounted(t *testing.T, kind string, flags uintptr, options string) string {
	t.Helper()
	dir := t.TempDir()
	box.NeedRoot(t)
	if err := unix.Mount(kind, dir, kind, flags, options); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// An ordinary directory can do everything, for root and for another user.
func TestTryAnOrdinaryDirectory(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if err := tryAll(t, fsutil.Disk{}, dir); err != nil {
		t.Error(err)
	}
	if err := (fsutil.Disk{}).Try(t.Context(), filepath.Join(dir, "none"), all...); !errors.Is(err, fs.ErrNotExist) || errors.As(err, new(*fsutil.Inability)) {
		t.Errorf("a directory that is not there: %v", err)
	}
}

// A file system that refuses something is named, with the operation and the remedy, and
// nothing is left behind. What it does not refuse is no fault of it.
func TestTryFileSystemsThatRefuse(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		refuse oddfs.Refusals
		want   fsutil.Ability
		text   string
	}{
		"nothing":             {oddfs.Refusals{}, "", ""},
		"NFS":                 {oddfs.Refusals{oddfs.LockReadOnly: unix.EBADF}, "", ""},
		"create":              {oddfs.Refusals{oddfs.Create: unix.EROFS}, fsutil.CanCreate, "mount -o remount,rw"},
		"create, not allowed": {oddfs.Refusals{oddfs.Create: unix.EACCES}, fsutil.CanCreate, "namei -l"},
		"chmod":               {oddfs.Refusals{oddfs.Chmod: unix.EPERM}, fsutil.CanChmod, "ext4"},
		"chmod, no effect":    {oddfs.Refusals{oddfs.Chmod: oddfs.IgnoresChmod}, fsutil.CanChmod, "ext4"},
		"vfat":                {oddfs.VFAT, fsutil.CanSymlink, "operation not permitted: use a local file system such as ext4"},
		"rename":              {oddfs.Refusals{oddfs.Rename: unix.EXDEV}, fsutil.CanRename, "ext4"},
		"exchange":            {oddfs.NFS, fsutil.CanExchange, "ext4"},
		"sync":                {oddfs.Refusals{oddfs.Sync: unix.EINVAL}, fsutil.CanSync, "ext4"},
		"lock":                {oddfs.Refusals{oddfs.Lock: unix.ENOLCK}, fsutil.CanLock, "rpc.statd"},
		"lock, no call":       {oddfs.Refusals{oddfs.Lock: unix.EOPNOTSUPP}, fsutil.CanLock, "rpc.statd"},
		"lock, bad":           {oddfs.Refusals{oddfs.Lock: unix.EBADF}, fsutil.CanLock, "rpc.statd"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := oddfs.Mount(t, tt.refuse)
			err := tryAll(t, fsutil.Disk{}, f.Dir)
			if tt.want == "" {
				if err != nil {
					t.Error(err)
				}
				return
			}
			var cannot *fsutil.Inability
			if !errors.As(err, &cannot) || cannot.Ability != tt.want || cannot.FileSystem != "fuse.odd" || !strings.Contains(err.Error(), tt.text) || strings.Contains(err.Error(), fsutil.TempPrefix) {
				t.Errorf("%v", err)
			}
			t.Log(err)
		})
	}
}

// What may pass is no verdict on a file system: a full disk, too few descriptors, an
// error of the disk.
func TestTryWhatMayPass(t *testing.T) {
	t.Parallel()
	for _, errno := range []unix.Errno{unix.ENOSPC, unix.EDQUOT, unix.EMFILE, unix.ENFILE, unix.EINTR, unix.EIO, unix.ENOMEM, unix.ESTALE} {
		for _, kind := range []fsutil.OpKind{fsutil.OpMkdir, fsutil.OpCreate, fsutil.OpWrite, fsutil.OpChmod, fsutil.OpSymlink, fsutil.OpRename, fsutil.OpExchange, fsutil.OpSync, fsutil.OpSyncDir} {
			d := fsutil.Disk{Seam: refusing{kind, errno}}
			if err := tryAll(t, d, t.TempDir()); !errors.Is(err, errno) || errors.As(err, new(*fsutil.Inability)) {
				t.Errorf("%s: %v: %v", kind, errno, err)
			}
		}
	}
	for _, inodes := range []string{"1", "2", "3"} {
		if err := tryAll(t, fsutil.Disk{}, mounted(t, "tmpfs", 0, "size=64k,nr_inodes="+inodes)); !fsutil.IsNoSpace(err) || errors.As(err, new(*fsutil.Inability)) {
			t.Errorf("a full tmpfs: %v", err)
		}
	}
	// What can be tried is tried all the same.
	d := fsutil.Disk{Seam: both{refusing{fsutil.OpSyncDir, unix.EINVAL}, refusing{fsutil.OpSync, unix.EIO}}}
	var cannot *fsutil.Inability
	if err := tryAll(t, d, t.TempDir()); !errors.As(err, &cannot) || cannot.Ability != fsutil.CanSyncDir {
		t.Errorf("after an error that may pass: %v", err)
	}
}

type refusing struct {
	kind fsutil.OpKind
	err  error
}

func (r refusing) Change(op fsutil.Op, make func() error) error {
	if op.Kind == r.kind {
		return r.err
	}
	return make()
}

type both struct{ a, b fsutil.Seam }

func (x both) Change(op fsutil.Op, make func() error) error {
	return x.a.Change(op, func() error { return x.b.Change(op, make) })
}

// Real mount options that prevent upgrades.
func TestTryMountOptions(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		flags uintptr
		want  fsutil.Ability
		text  string
	}{
		"noexec":      {unix.MS_NOEXEC, fsutil.CanExec, "mount -o remount,exec %s (and remove noexec"},
		"nosymfollow": {256, fsutil.CanSymlink, "mount -o remount,symfollow %s"}, // MS_NOSYMFOLLOW
		"read-only":   {unix.MS_RDONLY, fsutil.CanCreate, "mount -o remount,rw %s"},
		"none":        {0, "", ""},
	} {
		dir := mounted(t, "tmpfs", tt.flags, "size=1M")
		err := tryAll(t, fsutil.Disk{}, dir)
		var cannot *fsutil.Inability
		switch {
		case tt.want == "":
			if err != nil {
				t.Errorf("%s: %v", name, err)
			}
		case !errors.As(err, &cannot) || cannot.Ability != tt.want || cannot.FileSystem != "tmpfs" || !strings.Contains(err.Error(), fmt.Sprintf(tt.text, dir)):
			t.Errorf("%s: %v", name, err)
		}
	}
}

// A crash at any moment leaves only what Layout.Sweep removes.
func TestTryLeavesOnlyTemporaryNames(t *testing.T) {
	t.Parallel()
	for cut := 0; ; cut++ {
		dir, n := t.TempDir(), cut
		err := (fsutil.Disk{Seam: crash{&n}}).Try(t.Context(), dir, all...)
		entries, e := os.ReadDir(dir)
		if e != nil {
			t.Fatal(e)
		}
		for _, e := range entries {
			if !strings.HasPrefix(e.Name(), fsutil.TempPrefix) {
				t.Errorf("cut %d: %s is left", cut, e.Name())
			}
		}
		if err == nil {
			if cut < 20 {
				t.Errorf("only %d changes", cut)
			}
			return
		}
	}
}

// crash makes the first n changes, and none after them.
type crash struct{ n *int }

func (c crash) Change(_ fsutil.Op, make func() error) error {
	if *c.n--; *c.n < 0 {
		return errors.New("crash")
	}
	return make()
}

// A process that removes leftovers does not make a directory unable.
func TestTryWhileLeftoversAreRemoved(t *testing.T) {
	t.Parallel()
	dir, swept := t.TempDir(), false
	d := fsutil.Disk{Seam: seam(func(op fsutil.Op, make func() error) error {
		if op.Kind == fsutil.OpSymlink && !swept {
			swept = true
			os.RemoveAll(filepath.Dir(op.Path))
		}
		return make()
	})}
	if err := tryAll(t, d, dir); err != nil || !swept {
		t.Errorf("%v, %v", swept, err)
	}
}

type seam func(op fsutil.Op, make func() error) error

func (s seam) Change(op fsutil.Op, make func() error) error { return s(op, make) }

// The lock is taken through a descriptor that may be written to, because NFS locks no
// other. Where that is forbidden, it is taken as before.
func TestTheLockFileIsOpenedForWriting(t *testing.T) {
	t.Parallel()
	f := oddfs.Mount(t, oddfs.NFS)
	path := filepath.Join(f.Dir, ".lock")
	for name, take := range map[string]func(context.Context, string, time.Duration) (*fsutil.Lock, error){"LockFile": fsutil.LockFile, "HoldFile": fsutil.HoldFile} {
		lock, err := take(t.Context(), path, 10*time.Second) // a child of another test inherits it until it executes its program
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if _, err := take(t.Context(), path, 0); !errors.Is(err, fsutil.ErrLocked) {
			t.Errorf("%s: a second lock: %v", name, err)
		}
		lock.Unlock()
	}
	for _, errno := range []unix.Errno{unix.ENOLCK, unix.EOPNOTSUPP, unix.ENOSYS, unix.EBADF} {
		f.Refuse(t, oddfs.Refusals{oddfs.Lock: errno})
		if _, err := fsutil.LockFile(t.Context(), path, 0); !errors.Is(err, fsutil.ErrNoLock) || !errors.Is(err, errno) || !strings.Contains(err.Error(), "fuse.odd") {
			t.Errorf("%v: %v", errno, err)
		}
	}
	// A file system on which no mode can be narrowed.
	f.Refuse(t, oddfs.Refusals{oddfs.Chmod: oddfs.IgnoresChmod})
	if err := os.Chmod(filepath.Join(f.Behind, ".lock"), 0o666); err != nil {
		t.Fatal(err)
	}
	if lock, err := fsutil.LockFile(t.Context(), path, 10*time.Second); err != nil {
		t.Error(err)
	} else {
		lock.Unlock()
	}
}

// Processes of earlier versions open the lock file for reading only. They and this one
// exclude each other, whoever is first.
func TestLocksOfEarlierVersionsExclude(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), ".lock")
	earlier := func() *os.File {
		f, err := os.OpenFile(path, os.O_RDONLY|os.O_CREATE|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0o600)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { f.Close() })
		return f
	}
	old := earlier()
	if err := unix.Flock(int(old.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		t.Fatal(err)
	}
	if _, err := fsutil.LockFile(t.Context(), path, 0); !errors.Is(err, fsutil.ErrLocked) {
		t.Errorf("while an earlier version holds it: %v", err)
	}
	old.Close()
	lock, err := fsutil.LockFile(t.Context(), path, 10*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	defer lock.Unlock()
	if err := unix.Flock(int(earlier().Fd()), unix.LOCK_EX|unix.LOCK_NB); !errors.Is(err, unix.EWOULDBLOCK) {
		t.Errorf("an earlier version: %v", err)
	}
}

// A lock file that cannot be opened for writing is locked through another descriptor.
func TestALockFileOnAReadOnlyDisk(t *testing.T) {
	t.Parallel()
	dir := mounted(t, "tmpfs", 0, "size=1M")
	path := filepath.Join(dir, ".lock")
	if err := errors.Join(os.WriteFile(path, nil, 0o600), unix.Mount("", dir, "", unix.MS_REMOUNT|unix.MS_RDONLY, "")); err != nil {
		t.Fatal(err)
	}
	lock, err := fsutil.LockFile(t.Context(), path, 10*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := fsutil.LockFile(t.Context(), path, 0); !errors.Is(err, fsutil.ErrLocked) {
		t.Errorf("a second lock: %v", err)
	}
	lock.Unlock()
	if _, err := fsutil.LockFile(t.Context(), filepath.Join(dir, "none"), 0); !errors.Is(err, syscall.EROFS) {
		t.Errorf("a lock file that is not there: %v", err)
	}
}

func TestFileSystem(t *testing.T) {
	t.Parallel()
	for path, want := range map[string]string{"/proc/self": "proc", mounted(t, "tmpfs", 0, "size=1M"): "tmpfs"} {
		if kind, at := fsutil.FileSystem(path); kind != want || !strings.HasPrefix(path, at) {
			t.Errorf("%s: %s at %s", path, kind, at)
		}
	}
	dir := mounted(t, "tmpfs", 0, "size=1M")
	if err := unix.Mount("ramfs", dir, "ramfs", 0, ""); err != nil { // over the other
		t.Fatal(err)
	}
	kind, at := fsutil.FileSystem(filepath.Join(dir, "none"))
	if err := unix.Unmount(dir, 0); err != nil {
		t.Fatal(err)
	}
	if kind != "ramfs" || at != dir {
		t.Errorf("%s at %s", kind, at)
	}
}
