package fsutil

import (
	"errors"
	"fmt"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"
)

// Disk makes the changes. The zero Disk is the real one.
type Disk struct {
	// Seam, if set, stands between the caller and every single change; tests set it.
	Seam Seam
}

// Seam sees every change before it is made. It calls make, or does not, and
// returns what the caller is to get.
type Seam interface {
	Change(op Op, make func() error) error
}

// Op is one change of the file system: one system call.
type Op struct {
	Kind OpKind
	Path string
	To   string // the new name of a rename, the other of an exchange, the target of a link
	Data []byte // of a write; valid during the call
	Size int64  // of a truncate
}

// OpKind is a kind of change.
type OpKind string

// The kinds of change. OpRemoveAll alone is many system calls.
const (
	OpCreate    OpKind = "create" // open(O_CREAT)
	OpWrite     OpKind = "write"  // at the end
	OpTruncate  OpKind = "truncate"
	OpSync      OpKind = "fsync"
	OpSyncDir   OpKind = "fsync directory"
	OpMkdir     OpKind = "mkdir"
	OpSymlink   OpKind = "symlink"
	OpLink      OpKind = "link" // a hard link Path to the file To
	OpRename    OpKind = "rename"
	OpExchange  OpKind = "exchange"
	OpRemove    OpKind = "remove"
	OpRemoveAll OpKind = "remove all"
)

// Do makes one change, which only the caller knows how to make.
func (d Disk) Do(op Op, make func() error) error {
	if d.Seam == nil {
		return make()
	}
	return d.Seam.Change(op, make)
}

// File is an open file whose changes go through a Disk.
type File struct {
	*os.File
	disk Disk
	path string
}

// Create opens the regular file path, making it if it is not there, and gives
// it exactly the mode, whatever the umask. flags are added to O_CREATE. It
// follows no link in the last element, and never waits: a FIFO, a device or a
// directory of that name is an error.
//
//	open(O_CREAT|O_NOFOLLOW|O_NONBLOCK), fchmod
func (d Disk) Create(path string, flags int, mode fs.FileMode) (*File, error) {
	return d.CreateBy(path, func() (*os.File, error) {
		f, err := os.OpenFile(path, flags|os.O_CREATE|unix.O_NOFOLLOW|unix.O_NONBLOCK, mode)
		if err != nil {
			return nil, err
		}
		return f, regular(f, mode)
	})
}

// regular refuses a file of another kind, and gives it the mode.
func regular(f *os.File, mode fs.FileMode) error {
	st, err := f.Stat()
	if err != nil {
		return err
	}
	if !st.Mode().IsRegular() {
		return fmt.Errorf("open %s: not a regular file", f.Name())
	}
	if st.Mode().Perm() != mode {
		return f.Chmod(mode)
	}
	return nil
}

// mkdir makes dir with exactly the mode.
func mkdir(dir string, mode fs.FileMode) error {
	if err := os.Mkdir(dir, mode); err != nil {
		return err
	}
	// Through a descriptor: the name may be another's by now.
	f, err := os.OpenFile(dir, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_DIRECTORY, 0)
	if errors.Is(err, fs.ErrPermission) { // a umask that leaves the owner nothing
		return os.Chmod(dir, mode)
	}
	if err != nil {
		return err
	}
	defer f.Close()
	return f.Chmod(mode)
}

// CreateBy is Create for a caller that opens the file in its own way.
func (d Disk) CreateBy(path string, open func() (*os.File, error)) (*File, error) {
	f := &File{disk: d, path: path}
	err := d.Do(Op{Kind: OpCreate, Path: path}, func() (err error) {
		f.File, err = open()
		return err
	})
	if err != nil {
		if f.File != nil {
			f.File.Close()
		}
		return nil, err
	}
	return f, nil
}

// Write writes at the end.
func (f *File) Write(b []byte) (n int, err error) {
	err = f.disk.Do(Op{Kind: OpWrite, Path: f.path, Data: b}, func() error {
		n, err = f.File.Write(b)
		return err
	})
	return n, err
}

// Truncate changes the length.
func (f *File) Truncate(size int64) error {
	return f.disk.Do(Op{Kind: OpTruncate, Path: f.path, Size: size}, func() error { return f.File.Truncate(size) })
}

// Sync makes the content durable, but not the name.
func (f *File) Sync() error { return f.disk.Do(Op{Kind: OpSync, Path: f.path}, f.File.Sync) }
