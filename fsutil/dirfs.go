package fsutil

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// DirFS is os.DirFS for a directory that may be hostile. It opens regular files only,
// so it never blocks on a FIFO.
func DirFS(dir string) fs.FS { return dirFS(dir) }

type dirFS string

func (d dirFS) Open(name string) (fs.File, error) {
	if !fs.ValidPath(name) {
		return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrInvalid}
	}
	return OpenRegular(filepath.Join(string(d), filepath.FromSlash(name)))
}

// OpenRegular opens a regular file for reading. It follows links. A FIFO, a device or a
// directory is an error, and it never blocks on one.
func OpenRegular(path string) (*os.File, error) { return openRegular(path, 0) }

func openRegular(path string, flags int) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK|unix.O_NOCTTY|flags, 0)
	if err != nil {
		return nil, err
	}
	st, err := f.Stat()
	if err == nil && !st.Mode().IsRegular() {
		err = fmt.Errorf("open %s: %w", path, ErrNotRegular)
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// ReadLinked is ReadFile, but follows a link at path, as an administrator may have made.
func ReadLinked(path string, limit int64) ([]byte, error) {
	f, err := OpenRegular(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return readAll(f, path, limit)
}
