package fsutil

import (
	"errors"
	"fmt"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"
)

// Disk makes the changes of this package. The zero Disk changes the real file system.
type Disk struct {
	// Seam, if set, decides on every single change. Tests set it.
	Seam Seam
}

// Seam gets every change before it is made. It calls make or not, and returns the
// error that the caller is to get.
type Seam interface {
	Change(op Op, make func() error) error
}

// Op is one change of the file system, which is one system call.
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

// Do makes one change by calling make, unless the Seam decides otherwise.
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

// Create opens the regular file at path, or creates it, and sets its mode regardless of
// the umask. flags are added to O_CREATE. It follows no link at path. A FIFO, a device
// or a directory is an error, and it never blocks on one.
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

// regular sets the mode of a regular file, and refuses any other.
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

// mkdir creates dir, and sets its mode regardless of the umask.
func mkdir(dir string, mode fs.FileMode) error {
	if err := os.Mkdir(dir, mode); err != nil {
		return err
	}
	// Through a descriptor, as dir may have been replaced meanwhile.
	f, err := os.OpenFile(dir, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_DIRECTORY, 0)
	if errors.Is(err, fs.ErrPermission) { // the umask removed the owner's permissions
		return os.Chmod(dir, mode)
	}
	if err != nil {
		return err
	}
	defer f.Close()
	return f.Chmod(mode)
}

// CreateBy is Create for a caller that opens the file itself.
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

// Write writes at the current offset.
func (f *File) Write(b []byte) (n int, err error) {
	err = f.disk.Do(Op{Kind: OpWrite, Path: f.path, Data: b}, func() error {
		n, err = f.File.Write(b)
		return err
	})
	return n, err
}

// Truncate changes the size of the file, in bytes.
func (f *File) Truncate(size int64) error {
	return f.disk.Do(Op{Kind: OpTruncate, Path: f.path, Size: size}, func() error { return f.File.Truncate(size) })
}

// Sync makes the content durable, but not the name in the directory.
func (f *File) Sync() error { return f.disk.Do(Op{Kind: OpSync, Path: f.path}, f.File.Sync) }
