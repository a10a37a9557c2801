package stage

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/bilbycast/edge-agent/fsutil"
	"github.com/bilbycast/edge-agent/release"
	"github.com/bilbycast/edge-agent/state"
	"golang.org/x/sys/unix"
)

// digests writes the record of a version's files: a line for each regular file, as
// sha256sum writes them ("sha256sum -c .release.sha256"). A star marks a program.
type digests struct {
	f    *fsutil.File
	w    *bufio.Writer
	sum  hash.Hash
	head []byte // the first bytes of the present file
}

// Write takes the content of the present file.
func (d *digests) Write(b []byte) (int, error) {
	if room := headSize - len(d.head); room > 0 {
		d.head = append(d.head, b[:min(room, len(b))]...)
	}
	return d.sum.Write(b)
}

const headSize = 4

// isProgram reports whether a file that begins with head is executed: an ELF file, or one
// that has the right to be and names an interpreter. In archives of other systems every
// file has that right, also data that the service rewrites.
func isProgram(head []byte, executable bool) bool {
	return bytes.HasPrefix(head, []byte("\x7fELF")) || executable && bytes.HasPrefix(head, []byte("#!"))
}

// newDigests creates the record in the directory dir, which is a partial version.
func newDigests(disk fsutil.Disk, dir string) (*digests, error) {
	f, err := disk.Create(filepath.Join(dir, state.DigestsFile), os.O_WRONLY|os.O_EXCL, 0o644)
	if err != nil {
		return nil, err
	}
	if err := f.Chmod(0o644); err != nil { // whatever the umask
		f.Close()
		return nil, err
	}
	return &digests{f: f, w: bufio.NewWriterSize(f, 64<<10), sum: sha256.New()}, nil
}

// add records the file of that name, whose content was written to d.
func (d *digests) add(name string, executable bool) error {
	mark := " "
	if isProgram(d.head, executable) {
		mark = "*"
	}
	d.head = d.head[:0]
	_, err := fmt.Fprintf(d.w, "%x %s%s\n", d.sum.Sum(nil), mark, name)
	d.sum.Reset()
	return err
}

// close makes the record durable, if err is nil, and returns the first error.
func (d *digests) close(err error) error {
	if err == nil {
		err = d.w.Flush()
	}
	if err == nil {
		err = d.f.Sync()
	}
	return errors.Join(err, d.f.Close())
}

// Change is a file of an installed version that is not as it was staged.
type Change struct {
	Path string // relative to the version's directory
	Why  string // "is missing", or how it differs
	// Code: it is a program or a library, so that the version may not start.
	Code bool
}

// Compare returns the files of version v that differ from their record. Files that are
// not in the record are ignored, since a program may write some; so is a version that
// an earlier agent staged, which has no record. A file that cannot be read now is an
// error, and no change.
func Compare(ctx context.Context, l state.Layout, v release.Version) (changes []Change, err error) {
	root, err := os.OpenRoot(l.Version(v))
	if err != nil {
		return nil, err
	}
	defer root.Close()
	record, err := root.OpenFile(state.DigestsFile, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer record.Close()
	var errs []error
	lines := bufio.NewScanner(record)
	for n := 0; lines.Scan(); n++ {
		if n > maxEntries || ctx.Err() != nil {
			return changes, errors.Join(fmt.Errorf("%s has more than %d lines", state.DigestsFile, maxEntries), ctx.Err())
		}
		sum, rest, ok := strings.Cut(lines.Text(), " ")
		if !ok || len(sum) != 2*sha256.Size || len(rest) < 2 {
			return changes, fmt.Errorf("%s is damaged at line %d", state.DigestsFile, n+1)
		}
		c := Change{Path: rest[1:], Code: rest[0] == '*' || isLibrary(rest[1:])}
		got, err := fileDigest(ctx, root, c.Path)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			c.Why = "is missing"
		case err != nil:
			errs = append(errs, fmt.Errorf("%s: %w", c.Path, err))
			continue
		case got != sum:
			c.Why = "has another content: its SHA-256 is " + got + ", and was " + sum
		default:
			continue
		}
		changes = append(changes, c)
	}
	return changes, errors.Join(append(errs, lines.Err())...)
}

// Recorded reports whether version v has a record, with which Compare compares it.
func Recorded(l state.Layout, v release.Version) bool {
	_, err := os.Lstat(filepath.Join(l.Version(v), state.DigestsFile))
	return err == nil
}

// isLibrary reports whether a file is a shared library, by its name.
func isLibrary(name string) bool {
	base := path.Base(name)
	return strings.HasSuffix(base, ".so") || strings.Contains(base, ".so.")
}

// fileDigest returns the SHA-256 of a regular file below root.
func fileDigest(ctx context.Context, root *os.Root, name string) (string, error) {
	f, err := root.OpenFile(name, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return "", err
	}
	defer f.Close()
	st, err := f.Stat()
	if err == nil && !st.Mode().IsRegular() {
		return "none: it is not a regular file", nil
	}
	if err != nil {
		return "", err
	}
	h := sha256.New()
	if _, err := io.Copy(h, contextReader{ctx, f}); err != nil {
		return "", err
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

// contextReader ends a read when ctx is done.
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

// intact reports whether no program or library of an installed version differs from its
// record.
func intact(ctx context.Context, l state.Layout, v release.Version) bool {
	changes, _ := Compare(ctx, l, v) // a file that cannot be read now is no reason
	return !slices.ContainsFunc(changes, func(c Change) bool { return c.Code })
}
