package fsutil

import (
	"errors"
	"io/fs"
	"os"
)

// OpChmod changes the mode of a file or directory.
const OpChmod OpKind = "chmod"

// Chmod sets the permissions of the file at path, or of what a link there points to. It
// does not sync: a caller sets the mode again after a power cut.
//
//	chmod
func (d Disk) Chmod(path string, mode fs.FileMode) error {
	return d.Do(Op{Kind: OpChmod, Path: path}, func() error { return os.Chmod(path, mode) })
}

// RemoveFiles removes files of the directory dir, with one sync at the end. A missing
// file is no error.
//
//	unlink for each, fsync(directory)
func (d Disk) RemoveFiles(dir string, paths []string) error {
	if len(paths) == 0 {
		return nil
	}
	for _, p := range paths {
		if err := d.remove(p); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return d.SyncDir(dir)
}
