package pack

import (
	"archive/tar"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
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
	kind       tarstream.Kind // a hard link is a file
	executable bool
	size       int64
	sum        [sha256.Size]byte
	target     string // of a symbolic link
}

// List reads a packed file of that format, whose files have unpacked bytes by its manifest; 0: it
// does not say.
func List(format, file string, unpacked int64) (Listing, error) {
	f, err := os.Open(file)
	if err != nil {
		return Listing{}, err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return Listing{}, err
	}
	stream, err := tarstream.New(format, f)
	if err != nil {
		return Listing{}, err
	}
	defer stream.Close()
	l := Listing{entries: map[string]entry{}}
	var all tarstream.Entries
	for t := tarstream.NewReader(stream, tarstream.Limit(unpacked, st.Size())); ; {
		h, err := t.Next()
		if err == io.EOF {
			if err := stream.Rest(stream); err != nil || len(l.entries) > 0 {
				return l, err
			}
			return l, errors.New("the archive is empty")
		}
		if err != nil {
			return l, err
		}
		if err := l.add(&all, h, t); err != nil {
			return l, fmt.Errorf("entry %.200q: %w", h.Name, err)
		}
	}
}

// add adds an entry whose content is body. It refuses what a node refuses.
func (l *Listing) add(all *tarstream.Entries, h *tar.Header, body io.Reader) error {
	one, err := all.Next(h)
	if err != nil {
		return err
	}
	for _, dir := range one.Dirs { // they have no entries
		l.entries[dir] = entry{kind: tarstream.Dir}
	}
	e := entry{kind: one.Kind}
	switch one.Kind {
	case tarstream.Nothing:
		return nil
	case tarstream.File:
		sum := sha256.New()
		if _, err := io.Copy(sum, body); err != nil {
			return err
		}
		e.executable, e.size = h.Mode&0o111 != 0, h.Size
		sum.Sum(e.sum[:0])
		l.Unpacked += h.Size
	case tarstream.HardLink: // the same file under another name
		e = l.entries[one.Target]
	case tarstream.Link:
		e.target = one.Target
	}
	l.entries[one.Name] = e
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
	return nil
}

func (e entry) String() string {
	switch e.kind {
	case tarstream.File:
		return fmt.Sprintf("%s of %d bytes with the SHA-256 %x", map[bool]string{true: "a program", false: "a file"}[e.executable], e.size, e.sum)
	case tarstream.Dir:
		return "a directory"
	}
	return fmt.Sprintf("a link to %q", e.target)
}
