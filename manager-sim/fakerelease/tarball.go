package fakerelease

import (
	"archive/tar"
	"bytes"
	"debug/elf"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/bilbycast/edge-agent/internal/pack"
	"github.com/klauspost/compress/gzip"
)

// file is an entry of a tarball.
type file struct {
	name  string
	mode  int64
	size  int64
	open  func() (io.ReadCloser, error)
	patch []byte // replaces the first bytes
}

func fileAt(name, path string) (file, error) {
	st, err := os.Stat(path)
	if err != nil {
		return file{}, err
	}
	if !st.Mode().IsRegular() {
		return file{}, fmt.Errorf("%s is not a regular file", path)
	}
	return file{name: name, mode: int64(st.Mode().Perm()), size: st.Size(),
		open: func() (io.ReadCloser, error) { return os.Open(path) }}, nil
}

func textFile(name, text string) file {
	return file{name: name, mode: 0o644, size: int64(len(text)),
		open: func() (io.ReadCloser, error) { return io.NopCloser(strings.NewReader(text)), nil }}
}

// writeTarball packs files into the gzipped tar at path, and into its other formats beside
// it. It returns the sum of their sizes in bytes.
func writeTarball(path string, files []file, formats []string) (unpacked int64, err error) {
	var all []io.Writer
	var closers []io.Closer
	defer func() {
		for _, c := range slices.Backward(closers) {
			err = errors.Join(err, c.Close())
		}
	}()
	for _, format := range formats {
		f, err := os.Create(pack.Name(path, format))
		if err != nil {
			return 0, err
		}
		closers = append(closers, f)
		w, err := pack.Writer(format, f, gzip.BestSpeed)
		if err != nil {
			return 0, err
		}
		closers = append(closers, w)
		all = append(all, w)
	}
	t := tar.NewWriter(io.MultiWriter(all...))
	for _, x := range files {
		h := &tar.Header{Name: x.name, Typeflag: tar.TypeReg, Mode: x.mode, Size: x.size, ModTime: time.Unix(0, 0), Format: tar.FormatPAX}
		if err := t.WriteHeader(h); err != nil {
			return 0, err
		}
		if err := x.writeTo(t); err != nil {
			return 0, fmt.Errorf("%s: %w", x.name, err)
		}
		unpacked += x.size
	}
	return unpacked, t.Close()
}

func (x file) writeTo(w io.Writer) error {
	r, err := x.open()
	if err != nil {
		return err
	}
	defer r.Close()
	if _, err := io.CopyN(io.Discard, r, int64(len(x.patch))); err != nil {
		return err
	}
	_, err = io.Copy(w, io.MultiReader(bytes.NewReader(x.patch), r))
	return err
}

// otherMachine returns the first bytes of the ELF file at path, changed to those of a
// program for another machine.
func otherMachine(path string) ([]byte, error) {
	e, err := elf.Open(path)
	if err != nil {
		return nil, err
	}
	defer e.Close()
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	const machineAt = 18 // e_machine in the ELF header
	head := make([]byte, machineAt+2)
	if _, err := io.ReadFull(f, head); err != nil {
		return nil, err
	}
	other := elf.EM_AARCH64
	if e.Machine == other {
		other = elf.EM_X86_64
	}
	var order binary.ByteOrder = e.ByteOrder
	order.PutUint16(head[machineAt:], uint16(other))
	return head, nil
}
