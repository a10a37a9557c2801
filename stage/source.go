package stage

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"github.com/bilbycast/edge-agent/release"
	"golang.org/x/sys/unix"
)

// Source has the files of one release: manifest.json, manifest.sig.bundle, and
// its tarballs. They are no more believed than those of a release host.
type Source interface {
	// Open returns the file of that name and its size, or fs.ErrNotExist.
	Open(name string) (io.ReadCloser, int64, error)
	io.Closer
}

// OpenSource opens a directory, or a tar file that is not compressed, with the
// files of a release in its top.
func OpenSource(path string) (Source, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	st, err := f.Stat()
	if err == nil && st.Mode().IsRegular() {
		return &tarSource{f}, nil
	}
	f.Close()
	if err != nil {
		return nil, err
	}
	if !st.IsDir() {
		return nil, fmt.Errorf("%s is neither a directory nor a tar file", path)
	}
	root, err := os.OpenRoot(path)
	if err != nil {
		return nil, err
	}
	return dirSource{root}, nil
}

// dirSource is a directory. Links that leave it are not followed (os.Root).
type dirSource struct{ *os.Root }

func (d dirSource) Open(name string) (io.ReadCloser, int64, error) {
	// A fifo would be waited for, and for ever.
	f, err := d.OpenFile(name, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, 0, err
	}
	st, err := f.Stat()
	if err == nil && !st.Mode().IsRegular() {
		err = fmt.Errorf("%s is not a regular file", name)
	}
	if err != nil {
		f.Close()
		return nil, 0, err
	}
	return f, st.Size(), nil
}

// tarSource is a tar file, which is searched again for each name.
type tarSource struct{ f *os.File }

func (s *tarSource) Close() error { return s.f.Close() }

func (s *tarSource) Open(name string) (io.ReadCloser, int64, error) {
	if _, err := s.f.Seek(0, io.SeekStart); err != nil {
		return nil, 0, err
	}
	r := tar.NewReader(s.f)
	for range maxEntries {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return nil, 0, fmt.Errorf("%s: %w", name, fs.ErrNotExist)
		}
		if err != nil {
			return nil, 0, fmt.Errorf("not a tar file of a release (one that is not compressed): %w", err)
		}
		if h.Typeflag == tar.TypeReg && (h.Name == name || h.Name == "./"+name) {
			return io.NopCloser(r), h.Size, nil
		}
	}
	return nil, 0, fmt.Errorf("more than %d entries", maxEntries)
}

// smallFrom reads a small file from the Source.
func (s *Stager) smallFrom(small smallFile) ([]byte, error) {
	name, limit := small.name, small.limit
	f, _, err := s.From.Open(name)
	if err != nil {
		return nil, release.Errorf(release.NetworkError, "read %s of the release: %w", name, err)
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err != nil {
		return nil, release.Errorf(release.NetworkError, "read %s of the release: %w", name, err)
	}
	if int64(len(b)) > limit {
		return nil, release.Errorf(small.tooLarge, "%s has more than %d bytes", name, limit)
	}
	return b, nil
}

// moreFrom is more of a Source: all of it, from the beginning.
func (d *download) moreFrom(ctx context.Context) error {
	if err := d.restart(); err != nil {
		return err
	}
	f, size, err := d.s.From.Open(d.url)
	if err != nil {
		return release.Errorf(release.NetworkError, "read the tarball of the release: %w", err)
	}
	defer f.Close()
	if d.limit > 0 && size != d.limit {
		return release.Errorf(release.ChecksumMismatch, "%s has %d bytes, but the signed manifest says %d", d.url, size, d.limit)
	}
	if size > release.MaxTarball {
		return release.Errorf(release.ManifestInvalid, "%s has %d bytes, more than %d", d.url, size, int64(release.MaxTarball))
	}
	d.total = size
	err = d.copy(ctx, size, contextReader{ctx, f})
	var coded *release.Error
	if err != nil && !errors.As(err, &coded) && ctx.Err() == nil { // another try would read the same
		err = release.Errorf(release.NetworkError, "read %s: %w", d.url, err)
	}
	return err
}

type contextReader struct {
	ctx context.Context
	r   io.Reader
}

func (c contextReader) Read(p []byte) (int, error) {
	if err := c.ctx.Err(); err != nil {
		return 0, err
	}
	return c.r.Read(p)
}
