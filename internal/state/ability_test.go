package state_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/bilbycast/edge-agent/fsutil"
	"github.com/bilbycast/edge-agent/internal/box"
	"github.com/bilbycast/edge-agent/internal/state"
	"github.com/bilbycast/edge-agent/release"
	"golang.org/x/sys/unix"
)

// below lists everything below dir.
func below(t *testing.T, dir string) (list []string) {
	t.Helper()
	if err := filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
		list = append(list, path)
		return err
	}); err != nil {
		t.Fatal(err)
	}
	return list
}

// cutAfter makes the first n changes, and none after them, as a process that is killed.
type cutAfter struct{ n *int }

func (c cutAfter) Change(_ fsutil.Op, make func() error) error {
	if *c.n--; *c.n < 0 {
		return errors.New("killed")
	}
	return make()
}

// executed sees the directory in which Try executes a program.
type executed struct{ dir *string }

func (e executed) Change(op fsutil.Op, make func() error) error {
	if op.Kind == fsutil.OpChmod && filepath.Base(op.Path) == "edge-agent" {
		*e.dir = filepath.Dir(op.Path)
	}
	return make()
}

// Try executes a program where a release is checked, by a name that the profile in
// docs/install.md allows.
func TestTryExecutesWhereAReleaseIsChecked(t *testing.T) {
	t.Parallel()
	l, err := state.At(t.TempDir())
	if err == nil {
		err = l.Make()
	}
	var dir string
	if err == nil {
		err = l.On(fsutil.Disk{Seam: executed{&dir}}).Try(t.Context(), "edge-agent")
	}
	if err != nil {
		t.Fatal(err)
	}
	docs, err := os.ReadFile("../../docs/install.md")
	if err != nil {
		t.Fatal(err)
	}
	const name = state.PartialPrefix + "[0-9]*"
	for _, path := range []string{dir, l.Partial(release.MustVersion("1.0.0"))} {
		if ok, err := filepath.Match(filepath.Join(l.Versions(), name), path); !ok || err != nil {
			t.Errorf("%q is not %s, %v", path, name, err)
		}
	}
	if !strings.Contains(string(docs), "ROOT/versions/"+name+"/PROGRAM") {
		t.Errorf("docs/install.md does not name %s", name)
	}
}

// Try leaves nothing, and Sweep removes what a crash at any moment leaves, in the root and
// in the directories that are elsewhere.
func TestTryLeavesNothing(t *testing.T) {
	t.Parallel()
	for _, links := range []bool{false, true} {
		root, other := t.TempDir(), t.TempDir()
		l, err := state.At(root)
		if err != nil {
			t.Fatal(err)
		}
		if links {
			for _, dir := range []string{l.Versions(), l.OutboxDir()} {
				to := filepath.Join(other, filepath.Base(dir))
				if err := errors.Join(os.Mkdir(to, 0o755), os.Symlink(to, dir)); err != nil {
					t.Fatal(err)
				}
			}
		}
		if err := errors.Join(l.Make(), l.Sweep(t.Context())); err != nil {
			t.Fatal(err)
		}
		before := append(below(t, root), below(t, other)...)
		same := func(when string, cut int) {
			t.Helper()
			if after := append(below(t, root), below(t, other)...); !slices.Equal(after, before) {
				t.Errorf("links %v, %s, cut %d: it had %q, and has %q", links, when, cut, before, after)
			}
		}
		if err := errors.Join(l.Try(t.Context(), "bin/edge"), l.TryTrust(t.Context())); err != nil {
			t.Fatal(err)
		}
		same("at the end", -1)
		for cut := 0; ; cut++ {
			n := cut
			err := l.On(fsutil.Disk{Seam: cutAfter{&n}}).Try(t.Context(), "bin/edge")
			if e := l.Sweep(t.Context()); e != nil {
				t.Fatal(e)
			}
			same("after Sweep", cut)
			if err == nil {
				if cut < 25 {
					t.Errorf("Try makes only %d changes", cut)
				}
				break
			}
		}
	}
}

// A directory that is a mount of its own is tried for what happens there.
func TestTryMounts(t *testing.T) {
	t.Parallel()
	l, err := state.At(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Make(); err != nil {
		t.Fatal(err)
	}
	for dir, flags := range map[string]uintptr{l.Versions(): unix.MS_NOEXEC, l.OutboxDir(): unix.MS_RDONLY} {
		box.NeedRoot(t)
		if err := unix.Mount("tmpfs", dir, "tmpfs", flags, "size=1M"); err != nil {
			t.Fatal(err)
		}
		unmount := func() {
			if err := unix.Unmount(dir, 0); err != nil {
				t.Error(err)
			}
		}
		var cannot *fsutil.Inability
		if err := l.Try(t.Context(), "edge"); !errors.As(err, &cannot) || cannot.Dir != dir || cannot.FileSystem != "tmpfs" || !strings.Contains(cannot.Remedy(), dir) {
			t.Errorf("%s: %v", dir, err)
		}
		if err := l.Try(t.Context(), ""); (err == nil) != (dir == l.Versions()) { // nothing is executed
			t.Errorf("%s, without a program: %v", dir, err)
		}
		unmount()
	}
}
