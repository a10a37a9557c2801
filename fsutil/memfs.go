package fsutil

import (
	"bytes"
	"io/fs"
)

// MemFS is files in memory by their names, for reading one at a time. It has no
// directories, and its files have no FileInfo.
type MemFS map[string][]byte

// Open returns the file of that name, or fs.ErrNotExist.
func (m MemFS) Open(name string) (fs.File, error) {
	b, ok := m[name]
	if !ok {
		return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrNotExist}
	}
	return MemFile(b), nil
}

// MemFile returns a file in memory, to be read. Its Stat returns fs.ErrInvalid.
func MemFile(b []byte) fs.File { return memFile{bytes.NewReader(b)} }

type memFile struct{ r *bytes.Reader }

func (f memFile) Read(b []byte) (int, error) { return f.r.Read(b) }
func (memFile) Close() error                 { return nil }
func (memFile) Stat() (fs.FileInfo, error)   { return nil, fs.ErrInvalid }
