package stage

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"strings"

	"github.com/bilbycast/edge-agent/release"
	"golang.org/x/sys/unix"
)

// Source has the files of one release: manifest.json, manifest.sig.bundle, and
// its tarballs. A release host, a directory and a tar file are Sources; none is
// trusted, since the signed manifest decides about every byte.
type Source interface {
	// Open returns the file of that name, from byte at on or from its beginning. etag is
	// that of the Part from which the bytes before at came, or "". The caller closes
	// the body.
	//
	// A *release.Error is final; every other error is retried. An error that wraps
	// fs.ErrNotExist reports that there is no such file.
	Open(ctx context.Context, name string, at int64, etag string) (Part, error)
	// Local reports whether reading needs no network: nothing else answers in place of the
	// Source, and another attempt reads the same.
	Local() bool
	// Describe returns the name of the file in messages: a URL without secrets, or name.
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
	// Cut: Body ends with the connection, so that a body that was cut looks complete.
	Cut bool
	// PastEnd: the file has no byte at the requested place.
	PastEnd bool
}

// OpenSource opens a directory, or a tar file that is not compressed, with the
// files of a release in its top. It opens every file now, and opens none later.
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
	return openDir(path)
}

// openDir opens all files of a directory, because a process that gives up root reads them
// afterwards.
func openDir(path string) (Source, error) {
	root, err := os.OpenRoot(path)
	if err != nil {
		return nil, err
	}
	defer root.Close()
	dir, err := root.Open(".")
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	names, err := dir.Readdirnames(-1)
	if err != nil {
		return nil, err
	}
	if len(names) > maxFiles { // a stick with much else on it
		names = slices.DeleteFunc(names, func(name string) bool {
			return !slices.ContainsFunc([]string{".json", ".bundle", ".gz", ".tgz"}, func(end string) bool { return strings.HasSuffix(name, end) })
		})
	}
	if len(names) > maxFiles {
		return nil, fmt.Errorf("%s has more than %d files that may be a release's: give a directory with one release", path, maxFiles)
	}
	files := dirSource{}
	for _, name := range names {
		// os.Root follows no link that leaves the directory. O_NONBLOCK waits for no FIFO.
		f, err := root.OpenFile(name, os.O_RDONLY|unix.O_NONBLOCK, 0)
		if err != nil {
			continue // if the release needs it, Open says that it is missing
		}
		if st, err := f.Stat(); err != nil || !st.Mode().IsRegular() {
			f.Close()
			continue
		}
		files[name] = f
	}
	return files, nil
}

// maxFiles bounds the open files of a directory.
const maxFiles = 200

// dirSource has the files of a directory, open.
type dirSource map[string]*os.File

func (dirSource) Local() bool { return true }

func (dirSource) Describe(name string) string { return name }

func (d dirSource) Close() error {
	var errs []error
	for _, f := range d {
		errs = append(errs, f.Close())
	}
	return errors.Join(errs...)
}

func (d dirSource) Open(ctx context.Context, name string, _ int64, _ string) (Part, error) {
	f, ok := d[name]
	if !ok {
		return Part{}, unreadable(name, fmt.Errorf("%s: %w", name, fs.ErrNotExist))
	}
	st, err := f.Stat()
	if err != nil {
		return Part{}, unreadable(name, err)
	}
	return localPart(ctx, name, io.NewSectionReader(f, 0, st.Size()), st.Size()), nil
}

// tarSource is a tar file, which is searched again for each name.
type tarSource struct{ f *os.File }

func (s *tarSource) Close() error { return s.f.Close() }

func (*tarSource) Local() bool { return true }

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
			return localPart(ctx, name, r, h.Size), nil
		}
	}
	return Part{}, unreadable(name, fmt.Errorf("more than %d entries", maxEntries))
}

// unreadable returns the final error of a local file.
func unreadable(name string, err error) error {
	return release.Errorf(release.NetworkError, "read %s of the release: %w", name, err)
}

// localPart returns a whole local file of size bytes.
func localPart(ctx context.Context, name string, r io.Reader, size int64) Part {
	return Part{Body: io.NopCloser(&localBody{ctx, name, r}), End: size, Total: size}
}

// localBody reads a local file until ctx is done. Its errors are final: another
// try would read the same.
type localBody struct {
	ctx  context.Context
	name string
	r    io.Reader
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
