package payload

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
)

// Equal returns nil if dir has every file of tree with its content, and its right to be
// executed. It may have more files, such as a marker.
func Equal(tree, dir string) error {
	return filepath.WalkDir(tree, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		rel, err := filepath.Rel(tree, path)
		if err != nil {
			return err
		}
		if err := equalFile(path, filepath.Join(dir, rel)); err != nil {
			return fmt.Errorf("%s: %w", rel, err)
		}
		return nil
	})
}

func equalFile(want, got string) error {
	a, err := os.Open(want)
	if err != nil {
		return err
	}
	defer a.Close()
	b, err := os.Open(got)
	if err != nil {
		return err
	}
	defer b.Close()
	is, err := a.Stat()
	if err != nil {
		return err
	}
	has, err := b.Stat()
	if err != nil {
		return err
	}
	if is.Size() != has.Size() {
		return fmt.Errorf("%d bytes, want %d", has.Size(), is.Size())
	}
	if is.Mode()&0o100 != has.Mode()&0o100 {
		return fmt.Errorf("mode %v, want %v", has.Mode(), is.Mode())
	}
	for x, y := make([]byte, 1<<20), make([]byte, 1<<20); ; {
		n, err := io.ReadFull(a, x)
		if _, e := io.ReadFull(b, y[:n]); e != nil && n > 0 {
			return e
		}
		if !bytes.Equal(x[:n], y[:n]) {
			return errors.New("its content differs")
		}
		switch {
		case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
			return nil
		case err != nil:
			return err
		}
	}
}
