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
	// the body, maybe while a Read of it waits, which that ends.
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
	return openDir(path)
}

// openDir opens all files of a directory, up to maxFiles, because a process that gives up
// root reads them afterwards. Others are opened when they are needed.
func openDir(path string) (Source, error) {
	root, err := os.OpenRoot(path)
	if err != nil {
		return nil, err
	}
	d := dirSource{root, map[string]*os.File{}}
	dir, err := root.Open(".")
	if err == nil {
		var names []string
		names, err = dir.Readdirnames(-1)
		dir.Close()
		for _, name := range names {
			if f, err := d.open(name); err == nil && len(d.held) < maxFiles && releaseFile(name) {
				d.held[name] = f
			} else if err == nil {
				f.Close()
			}
		}
	}
	if err != nil {
		d.Close()
		return nil, err
	}
	return d, nil
}

// releaseFile reports whether a file may belong to a release, by its name.
func releaseFile(name string) bool {
	return slices.ContainsFunc([]string{".json", ".bundle", ".gz", ".tgz", ".zst"}, func(end string) bool { return strings.HasSuffix(name, end) })
}

// maxFiles bounds the open files of a directory.
const maxFiles = 200

// dirSource is a directory, with files that are open already.
type dirSource struct {
	root *os.Root
	held map[string]*os.File
}

// open opens a regular file. os.Root follows no link that leaves the directory, and
// O_NONBLOCK waits for no FIFO.
func (d dirSource) open(name string) (*os.File, error) {
	f, err := d.root.OpenFile(name, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	st, err := f.Stat()
	if err == nil && !st.Mode().IsRegular() {
		err = fmt.Errorf("%s is not a regular file", name)
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

func (dirSource) Local() bool { return true }

func (dirSource) Describe(name string) string { return name }

func (d dirSource) Close() error {
	errs := []error{d.root.Close()}
	for _, f := range d.held {
		errs = append(errs, f.Close())
	}
	return errors.Join(errs...)
}

func (d dirSource) Open(ctx context.Context, name string, _ int64, _ string) (Part, error) {
	f, held := d.held[name]
	if !held {
		var err error
		if f, err = d.open(name); err != nil {
			return Part{}, localError(name, err)
		}
	}
	st, err := f.Stat()
	if err != nil {
		return Part{}, localError(name, err)
	}
	p := localPart(ctx, name, io.NewSectionReader(f, 0, st.Size()), st.Size())
	if !held {
		p.Body = struct {
			io.Reader
			io.Closer
		}{p.Body, f}
	}
	return p, nil
}

// tarSource is a tar file, which is searched again for each name.
type tarSource struct{ f *os.File }

// maxNames is how many entries of a tar file with a release are looked at.
const maxNames = 100_000

func (s *tarSource) Close() error { return s.f.Close() }

func (*tarSource) Local() bool { return true }

func (*tarSource) Describe(name string) string { return name }

func (s *tarSource) Open(ctx context.Context, name string, _ int64, _ string) (Part, error) {
	if _, err := s.f.Seek(0, io.SeekStart); err != nil {
		return Part{}, localError(name, err)
	}
	r := tar.NewReader(s.f)
	for range maxNames {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return Part{}, localError(name, fmt.Errorf("%s: %w", name, fs.ErrNotExist))
		}
		if err != nil {
			return Part{}, localError(name, fmt.Errorf("not a tar file of a release (one that is not compressed): %w", err))
		}
		if h.Typeflag == tar.TypeReg && (h.Name == name || h.Name == "./"+name) {
			return localPart(ctx, name, r, h.Size), nil
		}
	}
	return Part{}, localError(name, fmt.Errorf("more than %d entries", maxNames))
}

// localError returns the final error of a local file. It is no fault of the network.
func localError(name string, err error) error {
	return release.Errorf(release.Internal, "read %s of the release: %w%w", name, err, notRead{})
}

// notRead marks the error of a file of a local Source, and adds nothing to its text: the
// other files may be read.
type notRead struct{}

func (notRead) Error() string { return "" }

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
		err = localError(b.name, err)
	}
	return n, err
}
