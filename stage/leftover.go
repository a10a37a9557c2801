package stage

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
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
	if own(st) && st.Mode().IsRegular() && st.Sys().(*syscall.Stat_t).Nlink == 1 && !x.noDisk {
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
			x.noDisk = errors.Is(err, errors.ErrUnsupported) // nor will it for the next file
			f.Close()
		}
	}
	return nil, nil, x.disk.Discard(x.path(name))
}

var errLeftover = errors.New("is not the file that it was")

// own reports whether this user made the file: another one may still have it open, or own it
// in the end. st is nil if it cannot be looked at.
func own(st fs.FileInfo) bool {
	if st == nil {
		return false
	}
	sys, ok := st.Sys().(*syscall.Stat_t)
	return ok && sys.Uid == uint32(os.Geteuid())
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

// clearRest removes what an earlier process left that the archive does not have. It fails if a
// name of the archive is missing: the file system may take two of them for one, so that the
// second entry found the first instead of a leftover.
func (x *extractor) clearRest() error {
	if !x.again {
		return nil
	}
	found := 0
	err := x.walk(".", func(name string, e fs.DirEntry) (bool, error) {
		switch {
		case name == state.DigestsFile:
			return false, nil
		case !x.entries.Has(name):
			return false, x.disk.Discard(x.path(name))
		}
		found++
		return e.IsDir(), nil
	}, func(string) error { return nil })
	if err == nil && found != x.entries.Len() {
		err = fmt.Errorf("%d of %d entries are there: %w", found, x.entries.Len(), unix.ENOENT)
	}
	return err
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

// end removes what the file has beyond the entry, whose content was written with that error.
// What was not compared yet stays for the next staging.
func (w *writer) end(err error) error {
	if w.old == nil {
		return err
	}
	st, statErr := w.f.Stat()
	if err = errors.Join(err, statErr); err == nil && st.Size() != w.n {
		return w.differs()
	}
	return errors.Join(err, w.old.Close())
}
