package stage

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/bilbycast/edge-agent/fsutil"
	"github.com/bilbycast/edge-agent/internal/state"
	"github.com/bilbycast/edge-agent/release"
	"golang.org/x/sys/unix"
)

// writes counts the bytes of a release's files that are written.
type writes struct {
	mu    sync.Mutex
	bytes int
}

func (w *writes) Change(op fsutil.Op, make func() error) error {
	if op.Kind == fsutil.OpWrite && strings.Contains(op.Path, "/versions/") && !strings.HasPrefix(filepath.Base(op.Path), ".") {
		w.mu.Lock()
		w.bytes += len(op.Data)
		w.mu.Unlock()
	}
	return make()
}

// memory is a disk of which the test says what is on it; without that it has what is in memory.
type memory struct {
	io.Reader
	block [1000]byte // no multiple of what the extractor writes at a time
}

func (m *memory) Next() ([]byte, error) {
	n, err := m.Read(m.block[:])
	if n > 0 {
		err = nil
	}
	return m.block[:n], err
}

func (m *memory) Close() error { return nil }

func inMemory(f *os.File) (fromDisk, error) {
	return &memory{Reader: io.NewSectionReader(f, 0, 1<<40)}, nil
}

// leftoverArchive has one entry of each kind, and bin of some blocks.
var leftoverArchive, leftoverBin = func() ([]byte, []byte) {
	bin := make([]byte, 320_000)
	rand.NewChaCha8([32]byte{}).Read(bin)
	var packed bytes.Buffer
	z := gzip.NewWriter(&packed)
	w := tar.NewWriter(z)
	add := func(h tar.Header, content []byte) {
		h.Size = int64(len(content))
		err := w.WriteHeader(&h)
		if _, e := w.Write(content); err != nil || e != nil {
			panic(errors.Join(err, e))
		}
	}
	add(tar.Header{Name: "dir/", Typeflag: tar.TypeDir, Mode: 0o755}, nil)
	add(tar.Header{Name: "dir/bin", Typeflag: tar.TypeReg, Mode: 0o755}, bin)
	add(tar.Header{Name: "dir/text", Typeflag: tar.TypeReg, Mode: 0o644}, []byte("text"))
	add(tar.Header{Name: "dir/empty", Typeflag: tar.TypeReg, Mode: 0o644}, nil)
	add(tar.Header{Name: "link", Typeflag: tar.TypeSymlink, Linkname: "dir/bin"}, nil)
	add(tar.Header{Name: "hard", Typeflag: tar.TypeLink, Linkname: "dir/text"}, nil)
	if err := errors.Join(w.Close(), z.Close()); err != nil {
		panic(err)
	}
	return packed.Bytes(), bin
}()

// unpackAgain unpacks leftoverArchive into dir, which may have leftovers.
func unpackAgain(s *Stager, dir string) (record string, err error) {
	return s.extract(context.Background(), bytes.NewReader(leftoverArchive), dir, packing{
		format: release.FormatGzip, size: int64(len(leftoverArchive)), unpacked: 1 << 20, again: true, progress: func(int64) {}})
}

// content lists a directory: modes, names, sizes, links and contents.
func content(t *testing.T, dir string) string {
	t.Helper()
	var all strings.Builder
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		rel, _ := filepath.Rel(dir, path)
		fmt.Fprintf(&all, "%s %s", info.Mode(), rel)
		switch {
		case info.Mode().IsRegular():
			b, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			fmt.Fprintf(&all, " %q", b)
		case info.Mode()&fs.ModeSymlink != 0:
			to, _ := os.Readlink(path)
			fmt.Fprintf(&all, " -> %s", to)
		}
		all.WriteByte('\n')
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return all.String()
}

// Whatever an earlier process left, and whatever happened to it since: what is there afterwards
// is what the archive has, and only what differs was written.
func TestLeftoversBecomeTheArchive(t *testing.T) {
	t.Parallel()
	fresh := func(t *testing.T) (s *Stager, w *writes, dir string) {
		l, err := state.At(t.TempDir())
		if err != nil {
			t.Fatal(err)
		}
		w = &writes{}
		s = &Stager{Config: Config{Layout: l.On(fsutil.Disk{Seam: w})}, fromDisk: inMemory}
		dir = l.Partial(release.MustVersion("1.0.0"))
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		return s, w, dir
	}
	s, w, dir := fresh(t)
	record, err := unpackAgain(s, dir)
	if err != nil {
		t.Fatal(err)
	}
	want, whole := content(t, dir), w.bytes
	bin := len(leftoverBin)
	change := func(f func(path string) error) func(dir string) error {
		return func(dir string) error { return f(filepath.Join(dir, "dir/bin")) }
	}
	instead := func(make func(path string) error) func(dir string) error {
		return change(func(path string) error { return errors.Join(os.RemoveAll(path), make(path)) })
	}
	for name, tt := range map[string]struct {
		spoil   func(dir string) error
		written int // bytes
	}{
		"nothing":          {func(string) error { return nil }, 4}, // of the text with two names
		"all is gone":      {func(dir string) error { return errors.Join(os.RemoveAll(dir), os.Mkdir(dir, 0o755)) }, whole},
		"the end is gone":  {change(func(path string) error { return os.Truncate(path, 100_000) }), 4 + bin - 100_000},
		"all of it":        {change(func(path string) error { return os.Truncate(path, 0) }), 4 + bin},
		"zeros at the end": {change(func(path string) error { return errors.Join(os.Truncate(path, 100_000), os.Truncate(path, int64(bin))) }), 4 + bin - 100_000},
		"it is longer":     {change(func(path string) error { return os.Truncate(path, int64(bin)+5000) }), 4},
		"a byte differs": {change(func(path string) error {
			f, err := os.OpenFile(path, os.O_WRONLY, 0)
			if err != nil {
				return err
			}
			_, err = f.WriteAt([]byte{0}, 1999)
			return errors.Join(err, f.Close())
		}), -1},
		"its mode":              {change(func(path string) error { return os.Chmod(path, 0o600) }), 4},
		"the mode of dir":       {func(dir string) error { return os.Chmod(filepath.Join(dir, "dir"), 0o700) }, 4},
		"a directory":           {instead(func(path string) error { return os.MkdirAll(filepath.Join(path, "x"), 0o755) }), 4 + bin},
		"a pipe":                {instead(func(path string) error { return unix.Mkfifo(path, 0o644) }), 4 + bin},
		"a link to itself":      {instead(func(path string) error { return os.Symlink("bin", path) }), 4 + bin},
		"a link out of it":      {instead(func(path string) error { return os.Symlink("/etc/passwd", path) }), 4 + bin},
		"a link to the text":    {instead(func(path string) error { return os.Symlink("text", path) }), 4 + bin},
		"another name of empty": {instead(func(path string) error { return os.Link(filepath.Join(filepath.Dir(path), "empty"), path) }), 4 + bin},
		"dir is a file": {func(dir string) error {
			return errors.Join(os.RemoveAll(dir+"/dir"), os.WriteFile(dir+"/dir", nil, 0o644))
		}, whole},
		"dir is a link": {func(dir string) error {
			return errors.Join(os.Rename(dir+"/dir", dir+"/other"), os.Symlink("other", dir+"/dir"))
		}, whole},
		"the link is another": {func(dir string) error {
			return errors.Join(os.Remove(dir+"/link"), os.Symlink("dir/text", dir+"/link"))
		}, 4},
		"the link is a file": {func(dir string) error {
			return errors.Join(os.Remove(dir+"/link"), os.WriteFile(dir+"/link", nil, 0o644))
		}, 4},
		"the other name is a file": {func(dir string) error {
			return errors.Join(os.Remove(dir+"/hard"), os.WriteFile(dir+"/hard", []byte("other"), 0o600))
		}, 0},
		"more than the archive has": {func(dir string) error {
			return errors.Join(os.MkdirAll(dir+"/dir/more/x", 0o755), os.WriteFile(dir+"/more", nil, 0o644), os.WriteFile(filepath.Join(dir, Marker), []byte("{}"), 0o644), os.Symlink("/", dir+"/out"))
		}, 4},
		"the record is a directory": {func(dir string) error {
			path := filepath.Join(dir, state.DigestsFile)
			return errors.Join(os.Remove(path), os.MkdirAll(path+"/x", 0o755))
		}, 4},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s, w, dir := fresh(t)
			if _, err := unpackAgain(s, dir); err != nil {
				t.Fatal(err)
			}
			if err := tt.spoil(dir); err != nil {
				t.Fatal(err)
			}
			w.bytes = 0
			again, err := unpackAgain(s, dir)
			if err != nil || again != record {
				t.Fatalf("record %s, want %s; %v", again, record, err)
			}
			if got := content(t, dir); got != want {
				t.Errorf("the directory has\n%.2000s\nwant\n%.2000s", got, want)
			}
			if tt.written >= 0 && w.bytes != tt.written || w.bytes > whole {
				t.Errorf("%d bytes were written, want %d", w.bytes, tt.written)
			}
			if st, err := os.Stat("/etc/passwd"); err != nil || st.Size() == 0 {
				t.Fatal("a link was followed")
			}
		})
	}
}

// What the disk has counts, and not what is in memory: a file of which the disk has other bytes,
// fewer or unreadable ones is written again, and all of it where the file system does not say.
func TestOnlyWhatTheDiskHasIsNotWrittenAgain(t *testing.T) {
	t.Parallel()
	other := bytes.Clone(leftoverBin)
	other[150_000]++
	broken := errors.New("input/output error")
	for name, tt := range map[string]struct {
		disk    func(f *os.File) (fromDisk, error)
		written int
	}{
		"the same":    {inMemory, 0},
		"other bytes": {func(*os.File) (fromDisk, error) { return &memory{Reader: bytes.NewReader(other)}, nil }, -1},
		"fewer bytes": {func(*os.File) (fromDisk, error) { return &memory{Reader: bytes.NewReader(other[:100_000])}, nil }, len(leftoverBin) - 100_000},
		"no bytes":    {func(*os.File) (fromDisk, error) { return &memory{Reader: bytes.NewReader(nil)}, nil }, len(leftoverBin)},
		"unreadable": {func(*os.File) (fromDisk, error) {
			return &memory{Reader: io.MultiReader(bytes.NewReader(other[:5000]), errReader{broken})}, nil
		}, len(leftoverBin) - 5000},
		"not supported": {func(*os.File) (fromDisk, error) { return nil, errors.ErrUnsupported }, len(leftoverBin)},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l, err := state.At(t.TempDir())
			if err != nil {
				t.Fatal(err)
			}
			w := &writes{}
			s := &Stager{Config: Config{Layout: l.On(fsutil.Disk{Seam: w})}, fromDisk: inMemory}
			dir := t.TempDir()
			dir = filepath.Join(dir, "versions", ".partial-1.0.0")
			if err := os.MkdirAll(dir, 0o755); err != nil {
				t.Fatal(err)
			}
			if _, err := unpackAgain(s, dir); err != nil {
				t.Fatal(err)
			}
			want := content(t, dir)
			w.bytes = 0
			s.fromDisk = func(f *os.File) (fromDisk, error) {
				if filepath.Base(f.Name()) != "bin" {
					return inMemory(f)
				}
				return tt.disk(f)
			}
			if _, err := unpackAgain(s, dir); err != nil {
				t.Fatal(err)
			}
			if got := content(t, dir); got != want {
				t.Errorf("the directory has\n%.500s\nwant\n%.500s", got, want)
			}
			const text = 4 // which has two names
			if least := len(leftoverBin) - 150_000; tt.written < 0 && (w.bytes < least || w.bytes > least+text+1000) || tt.written >= 0 && w.bytes != tt.written+text {
				t.Errorf("%d bytes were written, want %d", w.bytes, tt.written)
			}
		})
	}
}

type errReader struct{ error }

func (e errReader) Read([]byte) (int, error) { return 0, e.error }

// A staging that is stopped while it compares keeps what it did not reach.
func TestASecondInterruptionKeepsTheRest(t *testing.T) {
	t.Parallel()
	l, err := state.At(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	w := &writes{}
	s := &Stager{Config: Config{Layout: l.On(fsutil.Disk{Seam: w})}, fromDisk: inMemory}
	dir := l.Partial(release.MustVersion("1.0.0"))
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if _, err := unpackAgain(s, dir); err != nil {
		t.Fatal(err)
	}
	want := content(t, dir)
	ctx, stop := context.WithCancel(t.Context())
	s.fromDisk = func(f *os.File) (fromDisk, error) {
		stop()
		return inMemory(f)
	}
	_, err = s.extract(ctx, io.MultiReader(bytes.NewReader(leftoverArchive[:len(leftoverArchive)/2]), errReader{context.Canceled}), dir, packing{
		format: release.FormatGzip, size: int64(len(leftoverArchive)), unpacked: 1 << 20, again: true, progress: func(int64) {}})
	if err == nil {
		t.Fatal("it was not stopped")
	}
	s.fromDisk, w.bytes = inMemory, 0
	if _, err := unpackAgain(s, dir); err != nil {
		t.Fatal(err)
	}
	if got := content(t, dir); got != want || w.bytes > 4 { // the text with two names
		t.Errorf("%d bytes were written again\n%.300s", w.bytes, got)
	}
}

// Files of another user are not used again: their owner would stay, and whoever has them open
// could change them later.
func TestLeftoversOfAnotherUser(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		if os.Getenv("EDGE_AGENT_NO_SKIP") != "" {
			t.Error("needs root")
		}
		t.Skip("gives a file to another user: needs root")
	}
	l, err := state.At(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	s := &Stager{Config: Config{Layout: l}, fromDisk: inMemory}
	dir := l.Partial(release.MustVersion("1.0.0"))
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if _, err := unpackAgain(s, dir); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"dir/bin", "dir"} {
		if err := os.Chown(filepath.Join(dir, name), 1234, 1234); err != nil {
			t.Fatal(err)
		}
		if _, err := unpackAgain(s, dir); err != nil {
			t.Fatal(err)
		}
		st, err := os.Stat(filepath.Join(dir, name))
		if err != nil || !own(st) {
			t.Errorf("%s still belongs to another user; %v", name, err)
		}
	}
}

// Where two names of an archive are one to the file system, the second entry finds the first.
// That must not pass for a leftover.
func TestANameThatIsMissingInTheEnd(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "README"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	x := &extractor{again: true, top: dir, root: root}
	add := func(name string) {
		t.Helper()
		if _, err := x.entries.Next(&tar.Header{Name: name, Typeflag: tar.TypeReg}); err != nil {
			t.Fatal(err)
		}
	}
	add("README")
	if err := x.clearRest(); err != nil {
		t.Error(err)
	}
	add("readme")
	if err := x.clearRest(); !faultOfMachine(err) {
		t.Errorf("one file of two names: %v", err)
	}
}
