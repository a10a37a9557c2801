// Package fsutil changes files and links so that they survive a power cut, and reads
// files that may be hostile.
//
// When WriteFile, Symlink, Rename, Exchange, Remove or Mkdir returns nil, the change is
// durable: the data was fsynced, and then the directory. After an error, or a power
// cut, the old content is there or the new content, never a mixture and never
// nothing. Chmod and Discard make no such promise. A crash may leave files whose names
// start with TempPrefix; a process that holds the lock of the tree may remove them.
//
// Every change goes through a Disk, one system call at a time. A test can observe each
// of them, fail it, or stop before or after it.
//
// The package never logs, and runs on Linux only. It retries only where a process that
// removes leftovers removed a temporary file.
package fsutil

import (
	"bytes"
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

// temp returns a temporary name in the directory of path.
func temp(path string) string {
	return filepath.Join(filepath.Dir(path), TempPrefix+rand.Text()[:10]+"-"+filepath.Base(path))
}

// WriteFile replaces the content of the file at path by data. It sets the mode
// regardless of the umask.
//
//	open(temporary, O_CREAT|O_EXCL), fchmod, write, fsync, rename, fsync(directory)
func (d Disk) WriteFile(path string, data []byte, mode fs.FileMode) error {
	err := d.replace(path, func(tmp string) error {
		f, err := d.Create(tmp, os.O_WRONLY|os.O_EXCL, mode)
		if err != nil {
			return err
		}
		_, err = f.Write(data)
		if err == nil {
			err = f.Sync()
		}
		if e := f.Close(); err == nil {
			err = e
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return nil
}

// Symlink makes path a symbolic link to target. It replaces a link or file in one step,
// so path is never missing.
//
//	symlinkat(temporary), renameat, fsync(directory)
func (d Disk) Symlink(target, path string) error {
	err := d.replace(path, func(tmp string) error {
		return d.Do(Op{Kind: OpSymlink, Path: tmp, To: target}, func() error { return os.Symlink(target, tmp) })
	})
	if err != nil {
		return fmt.Errorf("link %s -> %s: %w", path, target, err)
	}
	return nil
}

// replace gives what make makes under a temporary name the name path. A process that removes
// leftovers may remove it in between: a writer without the lock of the tree cannot prevent
// that. Then it is made again.
func (d Disk) replace(path string, make func(tmp string) error) error {
	const tries = 5
	for try := 1; ; try++ {
		tmp := temp(path)
		err := make(tmp)
		if err == nil {
			err = d.rename(tmp, path)
			if errors.Is(err, fs.ErrNotExist) && try < tries {
				continue
			}
		}
		if err != nil {
			d.remove(tmp)
			return err
		}
		return d.SyncDir(filepath.Dir(path))
	}
}

// Rename moves oldpath to newpath, within one file system.
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

// Exchange swaps two names in one directory. Both must exist.
//
//	renameat2(RENAME_EXCHANGE), fsync(directory)
func (d Disk) Exchange(a, b string) error {
	if err := d.exchange(a, b); err != nil {
		return fmt.Errorf("exchange %s and %s: %w", a, b, err)
	}
	return d.SyncDir(filepath.Dir(a))
}

func (d Disk) exchange(a, b string) error {
	return d.Do(Op{Kind: OpExchange, Path: a, To: b}, func() error {
		return unix.Renameat2(unix.AT_FDCWD, a, unix.AT_FDCWD, b, unix.RENAME_EXCHANGE)
	})
}

// Remove removes the file or link at path. A missing one is no error.
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

// Discard removes path and everything below it, without a sync. After an error some of it
// may be left, and after a power cut all of it. Use it only for leftovers that are
// harmless.
//
//	unlink, rmdir, for each
func (d Disk) Discard(path string) error {
	return d.Do(Op{Kind: OpRemoveAll, Path: path}, func() error { return os.RemoveAll(path) })
}

// SyncDir makes the names in the directory dir durable.
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

// Mkdir creates the directory dir durably, unless it exists. It sets the mode of a new
// directory regardless of the umask.
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

// ErrTooLarge means that a file is larger than the limit of ReadFile or ReadLinked.
var ErrTooLarge = errors.New("file is too large")

// ErrNotRegular means that a directory, a FIFO or a device is where a file should be.
var ErrNotRegular = errors.New("not a regular file")

// WrongKind reports whether err of ReadFile says that something else than a file of that
// size is at the path: a link, a directory, a FIFO, a file that is too large. Another
// attempt gives the same. Every other error but fs.ErrNotExist may pass, and says
// nothing about the content: too few descriptors, no permission, an error of the disk.
func WrongKind(err error) bool {
	return errors.Is(err, ErrNotRegular) || errors.Is(err, ErrTooLarge) || errors.Is(err, unix.ELOOP) || errors.Is(err, unix.EISDIR)
}

// ReadFile reads the regular file at path, of at most limit bytes. It follows no link at
// path, and never blocks on a FIFO.
func ReadFile(path string, limit int64) ([]byte, error) {
	f, err := openRegular(path, unix.O_NOFOLLOW)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return readAll(f, path, limit)
}

func readAll(f *os.File, path string, limit int64) ([]byte, error) {
	st, err := f.Stat()
	if err != nil {
		return nil, err
	}
	b := bytes.NewBuffer(make([]byte, 0, min(st.Size(), limit)+bytes.MinRead))
	if _, err := b.ReadFrom(io.LimitReader(f, limit+1)); err != nil {
		return nil, err
	}
	if int64(b.Len()) > limit {
		return nil, fmt.Errorf("read %s: %w (limit %d bytes)", path, ErrTooLarge, limit)
	}
	return b.Bytes(), nil
}
