package stage

import (
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash/maphash"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/bilbycast/edge-agent/internal/state"
	"github.com/bilbycast/edge-agent/internal/tarstream"
	"github.com/bilbycast/edge-agent/release"
	"golang.org/x/sys/unix"
)

// Change is a file of an installed version that is not as it was staged.
type Change struct {
	Path string // relative to the version's directory
	Why  string // "is missing", or how it differs
	// Code: it is a program or a library, so that the version may not start; or the
	// record itself, so that nothing is known of them.
	Code bool
}

// Bounds of a record, and of a line of it, in bytes. A link has two names in quotes.
const (
	maxRecord     = 64 << 20
	maxRecordLine = 16 << 10
)

// Compare returns the files of version v that differ from their record. Files that are
// not in the record are ignored, since a program may write some; so is a version that
// an earlier agent staged, which has no record. A record that is not the one of the
// version's marker is itself the change. A file that cannot be read now is an error,
// and no change.
func Compare(ctx context.Context, l state.Layout, v release.Version) (changes []Change, err error) {
	root, err := os.OpenRoot(l.Version(v))
	if err != nil {
		return nil, err
	}
	defer root.Close()
	record, err := root.OpenFile(state.DigestsFile, os.O_RDONLY|unix.O_NONBLOCK, 0)
	m, markerErr := readMarker(l, v)
	known := markerErr == nil && m.Record != ""
	if errors.Is(err, fs.ErrNotExist) {
		if known {
			return damagedRecord, nil
		}
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer record.Close()
	// The record is read twice, and not kept: it may have 64 MB.
	seed, code, sum := maphash.MakeSeed(), map[uint64]struct{}{}, sha256.New()
	err = eachRecorded(io.TeeReader(record, sum), func(e recorded) error {
		// A link to a directory of programs counts as one to a program.
		for p := e.path; e.code && p != "." && p != "/"; p = path.Dir(p) {
			code[maphash.String(seed, p)] = struct{}{}
		}
		return nil
	})
	if errors.Is(err, errRecord) || err == nil && known && m.Record != hex.EncodeToString(sum.Sum(nil)) {
		return damagedRecord, nil
	}
	if err == nil {
		_, err = record.Seek(0, io.SeekStart)
	}
	if err != nil {
		return nil, err
	}
	var errs []error
	err = eachRecorded(record, func(e recorded) error {
		if e.target != "" {
			to := path.Join(path.Dir(e.path), e.target)
			_, toCode := code[maphash.String(seed, to)]
			e.code = isLibrary(e.path) || isLibrary(to) || toCode
		}
		why, err := e.compare(ctx, root)
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", e.path, err))
		} else if why != "" {
			changes = append(changes, Change{e.path, why, e.code})
		}
		return ctx.Err()
	})
	return changes, errors.Join(append(errs, err)...)
}

var damagedRecord = []Change{{Path: state.DigestsFile, Code: true, Why: "is missing or damaged, so nothing is known of the other files"}}

// recorded is a file or a link of a record.
type recorded struct {
	path   string
	sum    string // of a file
	target string // of a link
	code   bool
	exec   bool // it must have the right to be executed
}

var errRecord = errors.New("the record is damaged")

// eachRecorded calls yield for each entry of a record, but for the code of a link. An empty record is
// damaged: each version has a program. Comments of later versions are ignored.
func eachRecorded(r io.Reader, yield func(recorded) error) error {
	var e recorded // the last one, which comments may follow
	in := bufio.NewReaderSize(io.LimitReader(r, maxRecord), maxRecordLine)
	for n := 0; ; n++ {
		b, err := in.ReadSlice('\n')
		if err == io.EOF && len(b) == 0 && e.path != "" {
			return yield(e)
		}
		if err == io.EOF || errors.Is(err, bufio.ErrBufferFull) || n > 3*tarstream.MaxEntries {
			return errRecord
		}
		if err != nil {
			return err
		}
		line := string(b[:len(b)-1])
		name, isExec := strings.CutPrefix(line, execComment)
		link, isLink := strings.CutPrefix(line, linkComment)
		switch {
		case isExec && (e.path == "" || name != e.path):
			return errRecord
		case isExec:
			e.exec = true
			continue
		case !isLink && strings.HasPrefix(line, "#"):
			continue
		}
		if e.path != "" {
			if err := yield(e); err != nil {
				return err
			}
		}
		e = recorded{}
		if isLink {
			if n, err := fmt.Sscanf(link, "%q %q", &e.path, &e.target); n != 2 || err != nil || e.path == "" || e.target == "" {
				return errRecord
			}
			continue
		}
		sum, rest, found := strings.Cut(line, " ")
		if _, err := hex.DecodeString(sum); err != nil || !found || len(sum) != 2*sha256.Size || len(rest) < 2 || rest[0] != ' ' && rest[0] != '*' {
			return errRecord
		}
		e.path, e.sum = rest[1:], sum
		e.code = rest[0] == '*' || isLibrary(e.path)
	}
}

// isLibrary reports whether a file is a shared library, by its name.
func isLibrary(name string) bool {
	base := path.Base(name)
	return strings.HasSuffix(base, ".so") || strings.Contains(base, ".so.")
}

// compare returns how the file differs, or "".
func (e recorded) compare(ctx context.Context, root *os.Root) (why string, err error) {
	st, err := root.Lstat(e.path)
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ENOTDIR):
		return "is missing", nil
	case errors.Is(err, syscall.ELOOP):
		return "lies below a link that leads to itself", nil
	case err != nil:
		if errno := syscall.Errno(0); errors.As(err, &errno) {
			return "", err
		}
		return "lies outside of the version's directory", nil // below a link, or by its name
	}
	if e.target != "" {
		if st.Mode().Type() != fs.ModeSymlink {
			return "is not a link to " + e.target + " any more", nil
		}
		to, err := root.Readlink(e.path)
		if err == nil && to != e.target {
			why = fmt.Sprintf("is a link to %s, and was one to %s", release.Foreign(to, tarstream.MaxPath), e.target)
		}
		return why, err
	}
	if !st.Mode().IsRegular() {
		return "has another content: it is not a regular file", nil
	}
	got, err := fileDigest(ctx, root, e.path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return "is missing", nil
	case err != nil:
		return "", err
	case got != e.sum:
		return "has another content: its SHA-256 is " + got + ", and was " + e.sum, nil
	case e.exec && st.Mode()&0o100 == 0:
		return fmt.Sprintf("is not executable any more (mode %04o)", st.Mode().Perm()), nil
	}
	return "", nil
}

// Recorded reports whether version v has a record, with which Compare compares it.
func Recorded(l state.Layout, v release.Version) bool {
	_, err := os.Lstat(filepath.Join(l.Version(v), state.DigestsFile))
	return err == nil
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
