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
// its tarballs. A release host, a directory and a tar file are Sources; none is
// trusted, since the signed manifest decides about every byte.
type Source interface {
	// Open returns the file of that name, from byte at on or from its beginning.
	// etag is that of the Part which the bytes before at came from, or "". The
	// caller closes the body.
	//
	// A *release.Error is final; every other error may pass, and is retried.
	// An error that wraps fs.ErrNotExist says that there is no such file.
	Open(ctx context.Context, name string, at int64, etag string) (Part, error)
	// Describe returns how messages call the file of that name: a URL without
	// secrets, or the name.
	Describe(name string) string
	// Close releases what the Source holds. It does not end a Part.
	io.Closer
}

// Part is what a Source returns of one file.
type Part struct {
	Body  io.ReadCloser
	From  int64  // the first byte of Body in the file
	End   int64  // the byte after its last one; below 0: not known
	Total int64  // size of the whole file; 0: not known
	ETag  string // names these bytes of the file for a later Open; may be empty
	Type  string // the media type that the host gives; may be empty
	// Remote: it came over a network, where a captive portal may answer instead
	// of the host, and where another try may help.
	Remote bool
	// Cut: the end of the connection is the end of Body, so that a body that was
	// cut cannot be told from a complete one.
	Cut bool
	// PastEnd: the file has no byte at the requested place.
	PastEnd bool
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

func (dirSource) Describe(name string) string { return name }

func (d dirSource) Open(ctx context.Context, name string, _ int64, _ string) (Part, error) {
	// A fifo would be waited for, and for ever.
	f, err := d.OpenFile(name, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return Part{}, unreadable(name, err)
	}
	st, err := f.Stat()
	if err == nil && !st.Mode().IsRegular() {
		err = fmt.Errorf("%s is not a regular file", name)
	}
	if err != nil {
		f.Close()
		return Part{}, unreadable(name, err)
	}
	return localPart(ctx, name, f, f, st.Size()), nil
}

// tarSource is a tar file, which is searched again for each name.
type tarSource struct{ f *os.File }

func (s *tarSource) Close() error { return s.f.Close() }

func (*tarSource) Describe(name string) string { return name }

func (s *tarSource) Open(ctx context.Context, name string, _ int64, _ string) (Part, error) {
	if _, err := s.f.Seek(0, io.SeekStart); err != nil {
		return Part{}, unreadable(name, err)
	}
	r := tar.NewReader(s.f)
	for range maxEntries {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return Part{}, unreadable(name, fmt.Errorf("%s: %w", name, fs.ErrNotExist))
		}
		if err != nil {
			return Part{}, unreadable(name, fmt.Errorf("not a tar file of a release (one that is not compressed): %w", err))
		}
		if h.Typeflag == tar.TypeReg && (h.Name == name || h.Name == "./"+name) {
			return localPart(ctx, name, r, io.NopCloser(nil), h.Size), nil
		}
	}
	return Part{}, unreadable(name, fmt.Errorf("more than %d entries", maxEntries))
}

// unreadable returns the final error of a local file.
func unreadable(name string, err error) error {
	return release.Errorf(release.NetworkError, "read %s of the release: %w", name, err)
}

// localPart returns a whole local file of size bytes.
func localPart(ctx context.Context, name string, r io.Reader, c io.Closer, size int64) Part {
	return Part{Body: &localBody{ctx, name, r, c}, End: size, Total: size}
}

// localBody reads a local file until ctx is done. Its errors are final: another
// try would read the same.
type localBody struct {
	ctx  context.Context
	name string
	r    io.Reader
	io.Closer
}

func (b *localBody) Read(p []byte) (int, error) {
	if err := b.ctx.Err(); err != nil {
		return 0, err
	}
	n, err := b.r.Read(p)
	if err != nil && err != io.EOF {
		err = unreadable(b.name, err)
	}
	return n, err
}
