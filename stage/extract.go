package stage

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"slices"

	"github.com/bilbycast/edge-agent/fsutil"
	"github.com/bilbycast/edge-agent/internal/state"
	"github.com/bilbycast/edge-agent/internal/tarstream"
	"github.com/bilbycast/edge-agent/release"
	"golang.org/x/sys/unix"
)

// unpackEarly is after how many bytes of a file the kernel begins to write it.
const unpackEarly = 1 << 20

// packing is what is known of a packed tar file.
type packing struct {
	format   string // release.FormatGzip or FormatZstd
	size     int64
	unpacked int64       // bytes of all its files; 0: not known
	again    bool        // an earlier process unpacked some of it already
	progress func(int64) // receives the number of packed bytes that were read
}

// extract unpacks the packed tar file from into the directory to, which is empty or has what
// an earlier process unpacked of it, and syncs it. It creates regular files, directories, and
// links that stay inside; it refuses every other entry and every name that is not plain. It
// ignores owners, times, set-id bits and all modes but "executable": a directory gets mode
// 0755, a file 0644 or 0755, whatever the umask. It returns the digest of the record of what
// it created.
func (s *Stager) extract(ctx context.Context, from io.Reader, to string, p packing) (record string, err error) {
	root, err := os.OpenRoot(to)
	if err != nil {
		return "", err
	}
	defer root.Close()
	packed := &progressReader{ctx: ctx, r: from, report: p.progress}
	x := &extractor{format: p.format, disk: s.Layout.Disk(), top: to, root: root, limit: tarstream.Limit(p.unpacked, p.size),
		again: p.again, fromDisk: s.fromDisk}
	if err := x.clear(state.DigestsFile); err != nil {
		return "", err
	}
	if x.record, err = newDigests(x.disk, to); err != nil {
		return "", err
	}
	err = x.run(ctx, packed)
	if e := x.syncs.wait(); err == nil {
		err = e
	}
	if err == nil {
		err = x.clearRest()
	}
	if err := x.record.close(err); err != nil {
		if fsutil.IsNoSpace(err) || ctx.Err() != nil {
			return "", err
		}
		if faultOfMachine(err) {
			return "", release.Errorf(release.Internal, "extract: %w: that is a fault of this machine, not of the release; look for errors of its disk (journalctl -k)", err)
		}
		return "", release.Errorf(release.ExtractFailed, "extract: %w", err)
	}
	return x.record.digest(), x.sync()
}

// faultOfMachine reports whether err, of reading the archive or of writing what is in it, is
// one of the system that the content of an archive cannot cause. A program that has no loader
// has ENOENT, too.
func faultOfMachine(err error) bool {
	errno, ok := errors.AsType[unix.Errno](err)
	return ok && !slices.Contains(ofArchive, errno)
}

// ofArchive are errors that an archive can cause: by a name that the file system cannot store,
// by two names that are the same to it, or by too many links to a file.
var ofArchive = []unix.Errno{unix.ENAMETOOLONG, unix.EINVAL, unix.EILSEQ, unix.EEXIST, unix.ENOTDIR, unix.EISDIR, unix.ELOOP, unix.EMLINK}

type extractor struct {
	format  string
	disk    fsutil.Disk
	top     string
	root    *os.Root
	limit   int64 // bytes that all files together may have
	entries tarstream.Entries
	record  *digests
	linked  map[string]fileRecord // some names of files that have several
	syncs   syncs
	buf     [128 << 10]byte

	again    bool // the directory has what an earlier process left
	fromDisk func(*os.File) (fromDisk, error)
	noDisk   bool // fromDisk is not supported here
}

func (x *extractor) run(ctx context.Context, packed *progressReader) error {
	u, err := openPacked(x.format, packed)
	if err != nil {
		return err
	}
	defer func() {
		if e, ok := packed.r.(*stream); ok {
			e.end(errStopped)
		}
		u.close()
	}()
	for t := tarstream.NewReader(u.ahead, x.limit); ; {
		if err := ctx.Err(); err != nil {
			return context.Cause(ctx)
		}
		h, err := t.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			return err
		}
		if err := x.entry(h, t); err != nil {
			return fmt.Errorf("entry %.200q: %w", h.Name, err)
		}
	}
	if err := u.from.Rest(u.ahead); err != nil {
		return err
	}
	if x.entries.Len() == 0 {
		return errors.New("the archive is empty")
	}
	return nil
}

func (x *extractor) entry(h *tar.Header, body io.Reader) error {
	e, err := x.entries.Next(h)
	if err != nil {
		return err
	}
	for _, dir := range e.Dirs {
		if err := x.mkdir(dir); err != nil {
			return err
		}
	}
	var op fsutil.Op
	var link func(string, string) error
	switch e.Kind {
	case tarstream.Nothing:
		return nil
	case tarstream.Dir:
		return x.mkdir(e.Name)
	case tarstream.File:
		return x.file(e.Name, h, body)
	case tarstream.Link:
		op, link = fsutil.Op{Kind: fsutil.OpSymlink, To: e.Target}, x.root.Symlink
		err = x.record.link(e.Name, e.Target)
	default:
		op, link = fsutil.Op{Kind: fsutil.OpLink, To: x.path(e.Target)}, x.root.Link
		err = x.recordAgain(e.Target, e.Name)
	}
	if err == nil {
		err = x.clear(e.Name)
	}
	if err != nil {
		return err
	}
	op.Path = x.path(e.Name)
	return x.disk.Do(op, func() error { return link(e.Target, e.Name) })
}

func (x *extractor) mkdir(name string) error {
	if x.again {
		if st, err := x.root.Lstat(name); err == nil && st.IsDir() && own(st) && x.root.Chmod(name, 0o755) == nil {
			return nil
		}
	}
	if err := x.clear(name); err != nil {
		return err
	}
	return x.disk.Do(fsutil.Op{Kind: fsutil.OpMkdir, Path: x.path(name)}, func() error {
		if err := x.root.Mkdir(name, 0o755); err != nil {
			return err
		}
		return x.root.Chmod(name, 0o755)
	})
}

func (x *extractor) file(name string, h *tar.Header, body io.Reader) error {
	mode := fs.FileMode(0o644)
	if h.Mode&0o111 != 0 {
		mode = 0o755
	}
	f, old, err := x.leftover(name, mode)
	if err == nil && f == nil {
		f, err = x.disk.CreateBy(x.path(name), func() (*os.File, error) {
			f, err := x.root.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode)
			if err != nil {
				return nil, err
			}
			return f, f.Chmod(mode)
		})
	}
	if err != nil {
		return err
	}
	w := &writer{early: early{f: f, every: unpackEarly}, old: old}
	_, err = io.CopyBuffer(io.MultiWriter(w, x.record), body, x.buf[:])
	if err = w.end(err); err == nil {
		err = x.record.add(name, mode == 0o755)
	}
	if err != nil {
		f.Close()
		return err
	}
	return x.syncs.add(f)
}

// maxLinked bounds the memory of linked: a name may have 1,024 bytes.
const maxLinked = 1000

// recordAgain records an earlier file under another name of it. It reads the file once for many
// names.
func (x *extractor) recordAgain(file, name string) error {
	r, known := x.linked[file]
	if !known {
		f, err := x.root.Open(file)
		if err != nil {
			return err
		}
		defer f.Close()
		st, err := f.Stat()
		if err != nil {
			return err
		}
		if _, err := io.CopyBuffer(x.record, struct{ io.Reader }{f}, x.buf[:]); err != nil {
			return err
		}
		r = x.record.take(st.Mode()&0o100 != 0)
	}
	if x.linked == nil || len(x.linked) >= maxLinked {
		x.linked = map[string]fileRecord{}
	}
	x.linked[file], x.linked[name] = r, r
	return x.record.put(name, r)
}

func (x *extractor) path(name string) string { return path.Join(x.top, name) }

// sync makes the names durable; the files are synced by syncs.
func (x *extractor) sync() error {
	return x.walk(".", func(_ string, e fs.DirEntry) (bool, error) { return e.IsDir(), nil },
		func(dir string) error { return x.disk.SyncDir(x.path(dir)) })
}

// walk calls each for what is in dir and in those directories below for which it returns true, and
// after at the end of each directory. It keeps no list: the names may take more memory than there is.
func (x *extractor) walk(dir string, each func(name string, e fs.DirEntry) (into bool, err error), after func(dir string) error) error {
	d, err := x.root.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	for {
		some, err := d.ReadDir(256)
		for _, e := range some {
			name := path.Join(dir, e.Name())
			into, err := each(name, e)
			if err == nil && into {
				err = x.walk(name, each, after)
			}
			if err != nil {
				return err
			}
		}
		if err == io.EOF {
			return after(dir)
		}
		if err != nil {
			return err
		}
	}
}

// progressReader reads until ctx is done: one file of a release may take minutes.
type progressReader struct {
	ctx    context.Context
	r      io.Reader
	n      int64
	report func(int64)
}

func (p *progressReader) Read(b []byte) (int, error) {
	if p.ctx.Err() != nil {
		return 0, context.Cause(p.ctx)
	}
	n, err := p.r.Read(b)
	p.n += int64(n)
	p.report(p.n)
	return n, err
}
