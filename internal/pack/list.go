package pack

import (
	"archive/tar"
	"cmp"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path"
	"slices"

	"github.com/bilbycast/edge-agent/internal/tarstream"
)

// Listing is what a node would unpack from a packed file: every entry with its digest, but
// not the content. So its size does not grow with the files.
type Listing struct {
	Unpacked int64 // bytes of all regular files
	entries  map[string]entry
}

// entry is what a node keeps of an entry: it ignores owners, times and all modes but
// "executable".
type entry struct {
	kind       byte // a Typeflag of package tar
	executable bool
	size       int64
	sum        [sha256.Size]byte
	target     string // of a symbolic link
}

// Limits of a Listing: those of a node.
const (
	maxEntries = 100_000
	maxName    = 1024 // bytes of a name or link target
)

// List reads a packed file of that format.
func List(format, file string) (Listing, error) {
	f, err := os.Open(file)
	if err != nil {
		return Listing{}, err
	}
	defer f.Close()
	unpacked, err := tarstream.New(format, f)
	if err != nil {
		return Listing{}, err
	}
	defer unpacked.Close()
	end := func() error { // what nodes refuse
		if n, err := io.Copy(io.Discard, io.LimitReader(unpacked, tarstream.MaxTrailer+1)); err != nil || n > tarstream.MaxTrailer {
			return cmp.Or(err, fmt.Errorf("more than %d bytes after the last entry", tarstream.MaxTrailer))
		}
		return unpacked.Rest()
	}
	l := Listing{entries: map[string]entry{}}
	for t := tar.NewReader(unpacked); ; {
		h, err := t.Next()
		if err == io.EOF {
			return l, end()
		}
		if err == nil {
			err = l.add(h, t)
		}
		if err != nil {
			return l, fmt.Errorf("after %d entries: %w", len(l.entries), err)
		}
	}
}

// add adds an entry whose content is body.
func (l *Listing) add(h *tar.Header, body io.Reader) error {
	name := path.Clean(h.Name)
	if len(l.entries) >= maxEntries || len(name) > maxName || len(h.Linkname) > maxName {
		return fmt.Errorf("more than %d entries, or a name of more than %d bytes", maxEntries, maxName)
	}
	e := entry{kind: h.Typeflag}
	switch h.Typeflag {
	case tar.TypeXGlobalHeader:
		return nil
	case tar.TypeReg:
		sum := sha256.New()
		if _, err := io.Copy(sum, body); err != nil {
			return err
		}
		e.executable, e.size = h.Mode&0o111 != 0, h.Size
		sum.Sum(e.sum[:0])
		l.Unpacked += h.Size
	case tar.TypeLink: // the same file under another name
		var ok bool
		if e, ok = l.entries[path.Clean(h.Linkname)]; !ok || e.kind != tar.TypeReg {
			return fmt.Errorf("%q is a hard link to %q, which is not an earlier file", name, h.Linkname)
		}
	case tar.TypeSymlink:
		e.target = h.Linkname
	}
	for dir := path.Dir(name); dir != "." && dir != "/"; dir = path.Dir(dir) { // whether or not they have entries
		if _, ok := l.entries[dir]; ok {
			break
		}
		l.entries[dir] = entry{kind: tar.TypeDir}
	}
	if name != "." {
		l.entries[name] = e
	}
	return nil
}

// Same returns the first difference between what a node would unpack from l, of the tarball,
// and from o; nil: there is none.
func (l Listing) Same(o Listing) error {
	names := slices.AppendSeq(slices.Collect(maps.Keys(l.entries)), maps.Keys(o.entries))
	slices.Sort(names)
	for _, name := range slices.Compact(names) {
		a, inTarball := l.entries[name]
		b, inOther := o.entries[name]
		switch {
		case !inOther:
			return fmt.Errorf("it lacks %q, which the tarball has", name)
		case !inTarball:
			return fmt.Errorf("it has %q, which the tarball lacks", name)
		case a != b:
			return fmt.Errorf("%q is %s, but in the tarball %s", name, b, a)
		}
	}
	if len(names) == 0 {
		return errors.New("it is empty")
	}
	return nil
}

func (e entry) String() string {
	switch e.kind {
	case tar.TypeReg:
		return fmt.Sprintf("%s of %d bytes with the SHA-256 %x", map[bool]string{true: "a program", false: "a file"}[e.executable], e.size, e.sum)
	case tar.TypeDir:
		return "a directory"
	case tar.TypeSymlink:
		return fmt.Sprintf("a link to %q", e.target)
	}
	return fmt.Sprintf("of type %q", e.kind)
}
