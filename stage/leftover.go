package stage

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"github.com/bilbycast/edge-agent/fsutil"
	"github.com/bilbycast/edge-agent/internal/state"
	"golang.org/x/sys/unix"
)

// A staging that was interrupted leaves files in the partial directory. The next one of the
// same tarball compares each with the archive, and writes only what differs: a device that
// restarts often during a long download does not write the same bytes again and again.

// fromDisk reads a file that an earlier process wrote; see fsutil.FromDisk. What it reads is on
// the disk; that it stays there, the sync of each file sees to.
type fromDisk interface {
	Next() ([]byte, error)
	Close() error
}

func readFromDisk(f *os.File) (fromDisk, error) { return fsutil.ReadFromDisk(f) }

// leftover opens the file that an earlier process left under the name of an entry. Anything
// else of that name is removed, and so is a file that cannot be used; then f is nil.
func (x *extractor) leftover(name string, mode fs.FileMode) (f *fsutil.File, old fromDisk, err error) {
	if !x.again {
		return nil, nil, nil
	}
	st, err := x.root.Lstat(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil, nil
	}
	// A hard link would change the other name, too.
	if sys, ok := sysOf(st); ok && st.Mode().IsRegular() && sys.Nlink == 1 {
		f, err := x.disk.CreateBy(x.path(name), func() (*os.File, error) {
			f, err := x.root.OpenFile(name, os.O_RDWR|unix.O_NONBLOCK, 0)
			if err != nil {
				return nil, err
			}
			if now, err := f.Stat(); err != nil || !os.SameFile(st, now) {
				return f, errors.Join(err, errLeftover)
			}
			return f, f.Chmod(mode)
		})
		if err == nil {
			if old, err = x.fromDisk(f.File); err == nil {
				return f, old, nil
			}
			f.Close()
		}
	}
	return nil, nil, x.disk.Discard(x.path(name))
}

var errLeftover = errors.New("is not the file that it was")

func sysOf(st fs.FileInfo) (*syscall.Stat_t, bool) {
	if st == nil { // it cannot be looked at
		return nil, false
	}
	sys, ok := st.Sys().(*syscall.Stat_t)
	return sys, ok
}

// clear removes what an earlier process left under a name.
func (x *extractor) clear(name string) error {
	if !x.again {
		return nil
	}
	if _, err := x.root.Lstat(name); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return x.disk.Discard(x.path(name))
}

// clearRest removes what an earlier process left that the archive does not have.
func (x *extractor) clearRest() error {
	if !x.again {
		return nil
	}
	return filepath.WalkDir(x.top, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name, err := filepath.Rel(x.top, path)
		if err != nil || name == "." || name == state.DigestsFile || x.seen[name] != 0 {
			return err
		}
		if err := x.disk.Discard(path); err != nil {
			return err
		}
		if e.IsDir() {
			return fs.SkipDir
		}
		return nil
	})
}

// writer writes the content of an entry: first it compares it with what the disk has of it.
type writer struct {
	early
	old  fromDisk // nil: from n on the file is written
	left []byte   // of old, not compared yet
}

func (w *writer) Write(b []byte) (int, error) {
	same := 0
	for w.old != nil && same < len(b) {
		if len(w.left) == 0 {
			var err error
			if w.left, err = w.old.Next(); err != nil { // the end, or bytes that cannot be read
				if err := w.differs(); err != nil {
					return same, err
				}
				break
			}
		}
		part := b[same:min(len(b), same+len(w.left))]
		if !bytes.Equal(part, w.left[:len(part)]) {
			if err := w.differs(); err != nil {
				return same, err
			}
			break
		}
		w.left = w.left[len(part):]
		w.n += int64(len(part))
		same += len(part)
	}
	if same == len(b) {
		return same, nil
	}
	n, err := w.early.Write(b[same:])
	return same + n, err
}

// differs ends the comparison: the rest of the file is written anew.
func (w *writer) differs() error {
	err := w.old.Close()
	w.old, w.done = nil, w.n
	if err == nil {
		err = w.f.Truncate(w.n)
	}
	if err == nil {
		_, err = w.f.Seek(w.n, io.SeekStart)
	}
	return err
}

// end removes what the file has beyond the entry.
func (w *writer) end() error {
	if w.old == nil {
		return nil
	}
	st, err := w.f.Stat()
	if err != nil || st.Size() != w.n {
		return errors.Join(err, w.differs())
	}
	return w.old.Close()
}
