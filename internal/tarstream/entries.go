package tarstream

import (
	"archive/tar"
	"crypto/sha256"
	"errors"
	"fmt"
	"path"

	"github.com/bilbycast/edge-agent/internal/state"
)

// Limits of one archive.
const (
	MaxEntries = 100_000
	MaxPath    = 1024 // bytes of a name or link target
	MaxDepth   = 64   // elements of a name
)

// Kind is what a node makes of an entry.
type Kind byte

// Nothing is made of the top of the archive, of a directory that is there, and of a comment.
const (
	Nothing Kind = iota
	Dir
	File
	Link
	HardLink
)

// Entry is an entry that a node accepts.
type Entry struct {
	Kind   Kind
	Name   string   // the shortest form
	Target string   // of a link; of a hard link, the earlier file
	Dirs   []string // that have to be made before it, the outermost first
}

// Entries checks the entries of an archive in their order. It accepts regular files, directories,
// and links that stay inside, each with a plain name, and nothing below a link. Of a name it keeps
// the first bytes of its SHA-256, and its kind: a hundred thousand names may have 1,024 bytes each.
// Two names with the same first bytes count as one: the chance of it is 3e-10 for so many, and no
// node would then unpack the archive.
type Entries struct {
	kinds map[[8]byte]Kind
	n     int
}

func key(name string) [8]byte {
	sum := sha256.Sum256([]byte(name))
	return [8]byte(sum[:])
}

// Has reports whether the archive has a name so far, in its shortest form.
func (e *Entries) Has(name string) bool { return e.kinds[key(name)] != Nothing }

// Len is how many names the archive has so far, with those of directories that have no entry.
func (e *Entries) Len() int { return len(e.kinds) }

// Next returns what a node makes of the next entry, or why it refuses the archive.
func (e *Entries) Next(h *tar.Header) (one Entry, err error) {
	if e.n++; e.n > MaxEntries {
		return one, fmt.Errorf("more than %d entries", MaxEntries)
	}
	if h.Typeflag == tar.TypeXGlobalHeader { // git archive writes its commit there
		return one, nil
	}
	name, err := cleanName(h.Name)
	if err != nil {
		return one, err
	}
	kind, target, err := e.kind(h, name)
	if err != nil || kind == Nothing {
		return one, err
	}
	dirs, err := e.parents(path.Dir(name))
	if err == nil {
		err = e.add(name, kind)
	}
	return Entry{kind, name, target, dirs}, err
}

// kind returns what a node makes of an entry of that name, and the target of a link.
func (e *Entries) kind(h *tar.Header, name string) (k Kind, target string, err error) {
	old, isDir := e.kinds[key(name)], h.Typeflag == tar.TypeDir
	switch {
	case name == "." && !isDir:
		return 0, "", errors.New("the top of the archive is not a directory")
	case name == "." || old == Dir && isDir:
		return Nothing, "", nil
	case name == state.ReleaseFile || name == state.DigestsFile:
		return 0, "", errors.New("the name is reserved")
	case old != Nothing:
		return 0, "", errors.New("a second entry of that name")
	case isDir:
		return Dir, "", nil
	}
	switch h.Typeflag {
	case tar.TypeReg:
		return File, "", nil
	case tar.TypeSymlink:
		return Link, h.Linkname, checkTarget(name, h.Linkname)
	case tar.TypeLink:
		if target, err = cleanName(h.Linkname); err != nil {
			return 0, "", fmt.Errorf("hard link: %w", err)
		}
		if k := e.kinds[key(target)]; k != File && k != HardLink {
			return 0, "", fmt.Errorf("hard link to %.200q, which is not an earlier file of the archive", h.Linkname)
		}
		return HardLink, target, nil
	}
	return 0, "", fmt.Errorf("is of type %q; only files, directories and links are accepted", h.Typeflag)
}

// parents adds the directories above an entry that are not there, and returns them. It refuses a
// parent that is a link or a file: nothing is ever written through a link.
func (e *Entries) parents(dir string) ([]string, error) {
	if dir == "." {
		return nil, nil
	}
	switch e.kinds[key(dir)] {
	case Nothing:
	case Dir:
		return nil, nil
	default:
		return nil, fmt.Errorf("lies below %q, which is not a directory", dir)
	}
	dirs, err := e.parents(path.Dir(dir))
	if err != nil {
		return nil, err
	}
	return append(dirs, dir), e.add(dir, Dir)
}

func (e *Entries) add(name string, k Kind) error {
	if k == Dir && len(e.kinds) > MaxEntries {
		return fmt.Errorf("more than %d entries with their directories", MaxEntries)
	}
	if e.kinds == nil {
		e.kinds = map[[8]byte]Kind{}
	}
	e.kinds[key(name)] = k
	return nil
}
