package stage

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/bilbycast/edge-agent/fsutil"
	"github.com/bilbycast/edge-agent/internal/state"
	"github.com/bilbycast/edge-agent/release"
	"golang.org/x/sys/unix"
)

// installed lists the versions, and what else is in versions/.
func installed(t testing.TB, l state.Layout) string {
	t.Helper()
	tree, err := l.Tree()
	if err != nil {
		t.Fatal(err)
	}
	entries, err := os.ReadDir(l.Versions())
	if err != nil {
		t.Fatal(err)
	}
	got := fmt.Sprint(tree.Versions)
	for _, e := range entries {
		if v, err := release.ParseVersion(e.Name()); err != nil || !tree.Has(v) {
			got += " " + e.Name()
		}
	}
	return got
}

// set changes the state of l.
func set(t testing.TB, l state.Layout, change func(*state.State, *state.Tree)) {
	t.Helper()
	if _, err := l.Do(t.Context(), func(s state.State, tr state.Tree, _ time.Time) (state.State, state.Tree, error) {
		change(&s, &tr)
		return s, tr, nil
	}); err != nil {
		t.Fatal(err)
	}
}

func newLayout(t testing.TB) state.Layout {
	t.Helper()
	l, err := state.At(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func TestPruneKeepsWhatIsNeeded(t *testing.T) {
	t.Parallel()
	v := release.MustVersion
	staged := func(s *state.State, from string, versions ...string) {
		for _, x := range versions {
			s.Commands = append(s.Commands, state.Command{ID: x, Version: v(x), From: v(from), Done: true, Status: "staged"})
		}
	}
	for name, tt := range map[string]struct {
		versions string // besides 1.0.0, which runs
		change   func(*state.State, *state.Tree)
		keep     int
		running  string
		want     string
	}{
		"few":                 {versions: "0.9.0", keep: 2, want: "[1.0.0 0.9.0]"},
		"the oldest go":       {versions: "0.7.0 0.8.0 0.9.0", keep: 2, want: "[1.0.0 0.9.0]"},
		"the running one":     {versions: "0.7.0 0.8.0 0.9.0", keep: 2, running: "0.7.0", want: "[1.0.0 0.9.0 0.7.0]"},
		"more are needed":     {versions: "0.7.0 0.8.0", keep: 1, running: "0.7.0", want: "[1.0.0 0.8.0 0.7.0]"},
		"newer ones go first": {versions: "0.8.0 0.9.0 1.1.0 1.2.0", keep: 3, want: "[1.0.0 0.9.0 0.8.0]"},
		"failed in a trial": {versions: "0.8.0 0.9.0 1.1.0", keep: 2, want: "[1.0.0 0.9.0]", change: func(s *state.State, _ *state.Tree) {
			s.Status, s.Target = state.RolledBack, v("1.1.0")
		}},
		"the only other one failed": {versions: "1.1.0", keep: 1, want: "[1.0.0]", change: func(s *state.State, tr *state.Tree) {
			s.Status, s.Target, tr.Previous = state.RolledBack, v("1.1.0"), v("1.1.0")
		}},
		"waits for an operator": {versions: "0.8.0 0.9.0 1.1.0 1.2.0", keep: 3, want: "[1.1.0 1.0.0 0.9.0]", change: func(s *state.State, _ *state.Tree) {
			s.Status, s.Target = state.StagedManual, v("1.1.0")
		}},
		"on trial": {versions: "0.7.0 0.8.0 0.9.0 1.1.0", keep: 1, want: "[1.1.0 1.0.0]", change: func(s *state.State, tr *state.Tree) {
			s.Status, s.Target, s.Previous, s.MaxBootAttempts, s.TrialID = state.PendingHealth, v("1.1.0"), v("1.0.0"), 3, "t"
			tr.Previous, tr.Current = v("1.0.0"), v("1.1.0")
		}},
		"failed before a later one was kept": {versions: "0.6.0 0.7.0 0.8.0 0.9.0", keep: 3, want: "[1.0.0 0.9.0 0.7.0]", change: func(s *state.State, tr *state.Tree) {
			staged(s, "0.7.0", "0.8.0", "1.0.0")
			tr.Previous = v("0.9.0")
		}},
		"the link alone": {versions: "0.7.0 0.8.0 0.9.0", keep: 2, want: "[1.0.0 0.7.0]", change: func(_ *state.State, tr *state.Tree) {
			tr.Previous = v("0.7.0")
		}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l := newLayout(t)
			install(t, l, "1.0.0", strings.Fields(tt.versions)...)
			if tt.change != nil {
				set(t, l, tt.change)
			}
			running := release.Version{}
			if tt.running != "" {
				running = v(tt.running)
			}
			if err := Prune(t.Context(), l, tt.keep, running); err != nil {
				t.Fatal(err)
			}
			if got := installed(t, l); got != tt.want {
				t.Errorf("left: %s, want %s", got, tt.want)
			}
		})
	}
}

// seam is a fsutil.Seam.
type seam func(op fsutil.Op, make func() error) error

func (s seam) Change(op fsutil.Op, make func() error) error { return s(op, make) }

// What cannot be removed is skipped, and named; the others go.
func TestPruneSkipsWhatItCannotRemove(t *testing.T) {
	t.Parallel()
	for _, cause := range []error{unix.EBUSY, unix.EPERM, unix.EROFS, unix.EACCES, unix.EIO} {
		l := newLayout(t)
		install(t, l, "1.0.0", "0.6.0", "0.7.0", "0.8.0", "0.9.0")
		spoiled := l.On(fsutil.Disk{Seam: seam(func(op fsutil.Op, make func() error) error {
			if strings.HasPrefix(op.Path, filepath.Join(l.Versions(), "0.7.0")) {
				return cause
			}
			return make()
		})})
		err := Prune(t.Context(), spoiled, 2, release.Version{})
		if !errors.Is(err, cause) || !strings.Contains(err.Error(), "remove version 0.7.0") {
			t.Errorf("%v: %v", cause, err)
		}
		if got := installed(t, l); got != "[1.0.0 0.9.0 0.7.0]" {
			t.Errorf("%v: left: %s", cause, got)
		}
	}
}

// The version is chosen and made absent under the root's lock, and removed
// without it.
func TestPruneHoldsTheLock(t *testing.T) {
	t.Parallel()
	for _, exdev := range []bool{false, true} {
		l := newLayout(t)
		install(t, l, "1.0.0", "0.8.0", "0.9.0")
		var seen []string
		watched := l.On(fsutil.Disk{Seam: seam(func(op fsutil.Op, make func() error) error {
			lock, err := fsutil.LockFile(context.Background(), filepath.Join(l.Root(), ".lock"), 0)
			if err == nil {
				lock.Unlock()
			}
			if strings.HasPrefix(op.Path, l.Versions()) && filepath.Base(op.Path) != "versions" && !strings.Contains(op.Path, fsutil.TempPrefix) {
				seen = append(seen, fmt.Sprintf("%s %s locked=%v", op.Kind, filepath.Base(op.Path), err != nil))
			}
			if exdev && op.Kind == fsutil.OpRename && filepath.Base(op.Path) == "0.8.0" {
				return &os.LinkError{Op: "rename", Old: op.Path, New: op.To, Err: unix.EXDEV}
			}
			return make()
		})})
		if err := Prune(t.Context(), watched, 2, release.Version{}); err != nil {
			t.Fatal(err)
		}
		want := []string{"remove all .partial-removed-0.8.0 locked=true", "rename 0.8.0 locked=true", "remove all .partial-removed-0.8.0 locked=false"}
		if exdev {
			want = append(want[:2], "remove all 0.8.0 locked=false", "remove .removed-0.8.0 locked=false")
		}
		if !slices.Equal(seen, want) {
			t.Errorf("exdev %v: %q", exdev, seen)
		}
		if got := installed(t, l); got != "[1.0.0 0.9.0]" {
			t.Errorf("left: %s", got)
		}
	}
}

// A link that an administrator made to a directory is a version; removing it
// removes the link alone.
func TestLinkedVersions(t *testing.T) {
	t.Parallel()
	s := setup(t, nil)
	l := s.Layout
	install(t, l, "0.9.0", "0.8.0", "0.7.0")
	outside := t.TempDir()
	file := filepath.Join(outside, "edge-agent")
	if err := os.WriteFile(file, []byte("by hand"), 0o755); err != nil {
		t.Fatal(err)
	}
	for _, v := range []string{"1.0.0", "0.5.0", "0.6.0"} {
		if err := os.Symlink(outside, filepath.Join(l.Versions(), v)); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink("nowhere", filepath.Join(l.Versions(), "0.4.0")); err != nil {
		t.Fatal(err)
	}
	if got := installed(t, l); got != "[1.0.0 0.9.0 0.8.0 0.7.0 0.6.0 0.5.0] 0.4.0" {
		t.Errorf("installed: %s", got)
	}
	rel, a := fetch(t, s, "1.0.0")
	if _, err := s.Stage(t.Context(), s.Host(rel.Manifest().Version), rel, a, func() {}); err != nil {
		t.Fatal(err)
	}
	if st, err := os.Lstat(l.Version(release.MustVersion("1.0.0"))); err != nil || !st.IsDir() {
		t.Errorf("1.0.0 is %v: %v", st.Mode(), err)
	}
	if err := Prune(t.Context(), l, 3, release.Version{}); err != nil {
		t.Fatal(err)
	}
	if got := installed(t, l); got != "[0.9.0 0.8.0 0.7.0] 0.4.0" {
		t.Errorf("installed: %s", got)
	}
	if b, err := os.ReadFile(file); string(b) != "by hand" {
		t.Errorf("what the links pointed to: %q, %v", b, err)
	}
}

// While a release is being staged, Prune does nothing: Stage prunes.
func TestPruneWhileAReleaseIsStaged(t *testing.T) {
	t.Parallel()
	l := newLayout(t)
	install(t, l, "1.0.0", "0.8.0", "0.9.0")
	unlock, err := lockStaging(t.Context(), l, 0)
	if err != nil {
		t.Fatal(err)
	}
	err = Prune(t.Context(), l, 2, release.Version{})
	unlock()
	if got := installed(t, l); err != nil || got != "[1.0.0 0.9.0 0.8.0]" {
		t.Errorf("left: %s: %v", got, err)
	}
}

// Staging removes what failed before anything is downloaded, so that the new
// version is one of KeepVersions.
func TestStagePrunesFirst(t *testing.T) {
	t.Parallel()
	for _, keep := range []int{0, 2, 3} {
		var once sync.Once
		var s *Stager
		atDownload := ""
		s = setup(t, tarballs(func(w http.ResponseWriter, r *http.Request, next http.Handler) {
			once.Do(func() { atDownload = installed(t, s.Layout) })
			next.ServeHTTP(w, r)
		}))
		s.KeepVersions = keep
		install(t, s.Layout, "0.9.0", "0.8.0", "0.9.1", "0.9.2", "0.9.3")
		set(t, s.Layout, func(st *state.State, tr *state.Tree) {
			st.Status, st.Target, tr.Previous = state.RolledBack, release.MustVersion("0.9.3"), release.MustVersion("0.8.0")
		})
		if err := os.Mkdir(filepath.Join(s.Layout.Versions(), ".partial-0.9.5"), 0o755); err != nil {
			t.Fatal(err)
		}
		rel, a := fetch(t, s, "1.0.0")
		if _, err := s.Stage(t.Context(), s.Host(rel.Manifest().Version), rel, a, func() {}); err != nil {
			t.Fatal(err)
		}
		want := map[int]string{0: "[0.9.3 0.9.2 0.9.1 0.9.0 0.8.0]", 2: "[0.9.0 0.8.0]", 3: "[0.9.0 0.8.0]"}[keep]
		if atDownload != want {
			t.Errorf("keep %d: at the download: %s, want %s", keep, atDownload, want)
		}
	}
}

// mount mounts a file system of its own.
func mount(t *testing.T, dir, source, kind string, flags uintptr, options string) {
	t.Helper()
	needMounts(t)
	if err := unix.Mount(source, dir, kind, flags, options); err != nil {
		t.Fatalf("mount %s: %v", kind, err)
	}
	t.Cleanup(func() {
		for range 50 { // a program that was just started may still hold it
			if err := unix.Unmount(dir, 0); err == nil {
				return
			}
			<-time.After(20 * time.Millisecond)
		}
		t.Errorf("%s is not unmounted", dir)
	})
}

// needMounts skips the test where nothing can be mounted; in CI that is a failure.
func needMounts(t *testing.T) {
	t.Helper()
	if os.Getuid() != 0 {
		if os.Getenv("EDGE_AGENT_NO_SKIP") != "" {
			t.Fatal("mounting needs root")
		}
		t.Skip("NOT TESTED with real mounts: mounting needs root")
	}
}

// A mount point cannot be removed, nor can what has one in it: what is mounted
// there is not touched.
func TestMountPointsInVersions(t *testing.T) {
	t.Parallel()
	s := setup(t, nil)
	l := s.Layout
	install(t, l, "1.9.0", "1.0.0", "1.1.0", "1.2.0")
	for _, at := range []string{"1.0.0", "1.1.0/data"} {
		dir := filepath.Join(l.Versions(), at)
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		mount(t, dir, "tmpfs", "tmpfs", 0, "size=1M")
		if err := os.WriteFile(filepath.Join(dir, "kept"), nil, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	err := Prune(t.Context(), l, 1, release.Version{})
	if err == nil || strings.Count(err.Error(), "is a mount point") != 2 {
		t.Errorf("got %v", err)
	}
	rel, a := fetch(t, s, "1.0.0")
	_, err = s.Stage(t.Context(), s.Host(rel.Manifest().Version), rel, a, func() { t.Error("it was downloaded") })
	if err == nil || !strings.Contains(err.Error(), "is a mount point; unmount it") {
		t.Errorf("got %v", err)
	}
	for _, at := range []string{"1.0.0", "1.1.0/data"} {
		if _, err := os.Stat(filepath.Join(l.Versions(), at, "kept")); err != nil {
			t.Error(err)
		}
	}
}
