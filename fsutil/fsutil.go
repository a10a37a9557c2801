// Package fsutil writes files and links that survive a power cut, and reads
// files that may be hostile.
//
// When a function of this package that changes the file system returns nil,
// the change is on disk: the data was fsynced, then the directory that names
// it. When it returns an error, or the power goes, the old content or the new
// one is there, never a mixture and never nothing. Names that start with
// ".tmp-" are left over from a crash and may be removed by anyone who holds
// the lock of the tree.
//
// Every such change goes through a Disk, one system call after the other, so
// that a test can see each, fail it, or die before or after it.
//
// It does not retry, log or decide. It is Linux only.
package fsutil

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// TempPrefix starts the name of every temporary file and link.
const TempPrefix = ".tmp-"

func temp(path string) string {
	return filepath.Join(filepath.Dir(path), TempPrefix+rand.Text()[:10]+"-"+filepath.Base(path))
}

// WriteFile replaces the file path by data. The file has exactly the mode,
// whatever the umask.
//
//	open(temporary, O_CREAT|O_EXCL), fchmod, write, fsync, rename, fsync(directory)
func (d Disk) WriteFile(path string, data []byte, mode fs.FileMode) (err error) {
	tmp := temp(path)
	defer func() {
		if err != nil {
			err = fmt.Errorf("write %s: %w", path, err)
		}
	}()
	f, err := d.Create(tmp, os.O_WRONLY|os.O_EXCL, mode)
	if err == nil {
		_, err = f.Write(data)
		if err == nil {
			err = f.Sync()
		}
		if e := f.Close(); err == nil {
			err = e
		}
	}
	if err == nil {
		err = d.rename(tmp, path)
	}
	if err != nil {
		d.remove(tmp)
		return err
	}
	return d.SyncDir(filepath.Dir(path))
}

// Symlink makes path a symbolic link to target, replacing what link is there.
// At no instant is path missing.
//
//	symlinkat(temporary), renameat, fsync(directory)
func (d Disk) Symlink(target, path string) (err error) {
	tmp := temp(path)
	defer func() {
		if err != nil {
			err = fmt.Errorf("link %s -> %s: %w", path, target, err)
		}
	}()
	err = d.Do(Op{Kind: OpSymlink, Path: tmp, To: target}, func() error { return os.Symlink(target, tmp) })
	if err == nil {
		err = d.rename(tmp, path)
	}
	if err != nil {
		d.remove(tmp)
		return err
	}
	return d.SyncDir(filepath.Dir(path))
}

// Rename moves oldpath to newpath, in one file system.
//
//	rename, fsync(directory of newpath), fsync(directory of oldpath)
func (d Disk) Rename(oldpath, newpath string) error {
	if err := d.rename(oldpath, newpath); err != nil {
		return err
	}
	if err := d.SyncDir(filepath.Dir(newpath)); err != nil {
		return err
	}
	if filepath.Dir(oldpath) == filepath.Dir(newpath) {
		return nil
	}
	return d.SyncDir(filepath.Dir(oldpath))
}

func (d Disk) rename(oldpath, newpath string) error {
	return d.Do(Op{Kind: OpRename, Path: oldpath, To: newpath}, func() error { return os.Rename(oldpath, newpath) })
}

// Exchange swaps what two names in one directory stand for; both must exist.
//
//	renameat2(RENAME_EXCHANGE), fsync(directory)
func (d Disk) Exchange(a, b string) error {
	if err := d.Do(Op{Kind: OpExchange, Path: a, To: b}, func() error {
		return unix.Renameat2(unix.AT_FDCWD, a, unix.AT_FDCWD, b, unix.RENAME_EXCHANGE)
	}); err != nil {
		return fmt.Errorf("exchange %s and %s: %w", a, b, err)
	}
	return d.SyncDir(filepath.Dir(a))
}

// Remove removes the file or link path; that it is not there is no error.
//
//	unlink, fsync(directory)
func (d Disk) Remove(path string) error {
	if err := d.remove(path); err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		return err
	}
	return d.SyncDir(filepath.Dir(path))
}

func (d Disk) remove(path string) error {
	return d.Do(Op{Kind: OpRemove, Path: path}, func() error { return os.Remove(path) })
}

// Discard removes path and all below it. It promises nothing: what it takes
// away may be half removed, or be there again after a power cut. It is for
// what is in nobody's way.
//
//	unlink, rmdir, for each
func (d Disk) Discard(path string) error {
	return d.Do(Op{Kind: OpRemoveAll, Path: path}, func() error { return os.RemoveAll(path) })
}

// SyncDir makes the names in dir durable.
//
//	open(O_DIRECTORY), fsync
func (d Disk) SyncDir(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := d.Do(Op{Kind: OpSyncDir, Path: dir}, f.Sync); err != nil {
		return fmt.Errorf("sync %s: %w", dir, err)
	}
	return nil
}

// Mkdir makes dir, unless it is there, durably. A new one has exactly the mode,
// whatever the umask.
//
//	mkdir, fchmod, fsync(parent)
func (d Disk) Mkdir(dir string, mode fs.FileMode) error {
	if err := d.Do(Op{Kind: OpMkdir, Path: dir}, func() error { return mkdir(dir, mode) }); err != nil {
		if errors.Is(err, fs.ErrExist) {
			return nil
		}
		return err
	}
	return d.SyncDir(filepath.Dir(dir))
}

// ErrTooLarge says that a file is larger than its reader allows.
var ErrTooLarge = errors.New("file is too large")

// ReadFile reads the regular file path, of at most limit bytes. It follows no
// link in the last element and never waits for a writer of a FIFO.
func ReadFile(path string, limit int64) ([]byte, error) {
	f, err := openRegular(path, unix.O_NOFOLLOW)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err != nil {
		return nil, err
	}
	if int64(len(b)) > limit {
		return nil, fmt.Errorf("read %s: %w (limit %d bytes)", path, ErrTooLarge, limit)
	}
	return b, nil
}
