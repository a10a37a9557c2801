package stage

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/bilbycast/edge-agent/fsutil"
	"github.com/bilbycast/edge-agent/internal/state"
	"github.com/bilbycast/edge-agent/release"
)

// install gives the Stager's root a version that runs.
func install(t testing.TB, l state.Layout, version string, more ...string) {
	t.Helper()
	if err := l.Make(); err != nil {
		t.Fatal(err)
	}
	for _, v := range append([]string{version}, more...) {
		if err := os.Mkdir(filepath.Join(l.Versions(), v), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := (fsutil.Disk{}).Symlink("versions/"+version, l.Current()); err != nil {
		t.Fatal(err)
	}
	if _, err := l.Do(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
}

func TestSwap(t *testing.T) {
	t.Parallel()
	s := setup(t, nil)
	install(t, s.Layout, "0.9.0")
	rel, a := fetch(t, s, "1.0.0")
	st, err := s.Stage(t.Context(), s.Host(rel.Manifest().Version), rel, a, func() {})
	if err != nil {
		t.Fatal(err)
	}
	trial := state.Trial{ID: "c", CommandID: "c", MaxAttempts: 2}
	for _, commit := range []func(context.Context, state.Layout, Staged, state.Trial) (state.Result, error){Swap, Shelve} {
		// Others came after it was withdrawn, so that it is forgotten.
		if _, err := commit(t.Context(), s.Layout, st, trial); code(err) != release.Withdrawn {
			t.Errorf("a command that is not known any more: %v", err)
		}
	}
	if _, err := s.Layout.Do(t.Context(), func(s state.State, tr state.Tree, _ time.Time) (state.State, state.Tree, error) {
		return state.Accept(s, state.Command{ID: "c", Version: st.Version()}), tr, nil
	}); err != nil {
		t.Fatal(err)
	}
	res, err := Swap(t.Context(), s.Layout, st, trial)
	if err != nil {
		t.Fatal(err)
	}
	got := fmt.Sprint(res.State.Status, " ", res.Tree.Current, " ", res.Tree.Previous, " ", res.Tree.LastGood, " ", res.State.MaxBootAttempts)
	if want := "pending_health 1.0.0 0.9.0 0.9.0 2"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	if _, err := Swap(t.Context(), s.Layout, st, trial); code(err) != release.InProgress {
		t.Errorf("a swap during a trial: %v", err)
	}
}

func TestSwapNeedsTheVersionOnDisk(t *testing.T) {
	t.Parallel()
	s := setup(t, nil)
	install(t, s.Layout, "0.9.0")
	rel, _ := fetch(t, s, "1.0.0")
	if _, err := Swap(t.Context(), s.Layout, Staged{rel: rel}, state.Trial{ID: "c"}); code(err) != release.Internal {
		t.Errorf("got %v", err)
	}
	if res, err := s.Layout.Read(); err != nil || res.State.Status != state.Stable {
		t.Errorf("got %+v, %v", res.State, err)
	}
}

func TestTidyRemovesOnlyLeftovers(t *testing.T) {
	t.Parallel()
	s := setup(t, nil)
	install(t, s.Layout, "1.0.0")
	l := s.Layout
	keep := strings.Repeat("a", 64)
	for _, f := range []string{l.Download(keep), filepath.Join(l.Downloads(), "stray"), filepath.Join(l.Root(), "outbox", fsutil.TempPrefix+"y"), filepath.Join(l.Root(), fsutil.TempPrefix+"x-state.json"), l.ConfigFile()} {
		if err := os.WriteFile(f, nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.MkdirAll(filepath.Join(l.Partial(release.MustVersion("2.0.0")), "x"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := s.Tidy(t.Context()); err != nil {
		t.Fatal(err)
	}
	want := "config.toml current downloads downloads/" + keep + ".unverified last-good outbox previous state.json versions versions/1.0.0"
	if got := left(t, s); got != want {
		t.Errorf("left: %s", got)
	}
}

// An operator may roll back while a release is being staged.
func TestSwapRefusesTheRunningVersion(t *testing.T) {
	t.Parallel()
	s := setup(t, nil)
	install(t, s.Layout, "1.0.0")
	rel, a := fetch(t, s, "1.0.0")
	staged, err := s.Stage(t.Context(), s.Host(rel.Manifest().Version), rel, a, func() {})
	if err != nil {
		t.Fatal(err)
	}
	for _, commit := range []func(context.Context, state.Layout, Staged, state.Trial) (state.Result, error){Swap, Shelve} {
		if _, err := commit(t.Context(), s.Layout, staged, state.Trial{ID: "t"}); code(err) != release.InProgress {
			t.Errorf("got %v", err)
		}
	}
	if res, err := s.Layout.Read(); err != nil || res.State.Status != state.Stable || len(res.Notes) != 0 {
		t.Errorf("got %+v, %v", res, err)
	}
}

// A download is removed whatever a clean-up job, or somebody, has made of it. Its other names keep
// what they have.
func TestWhatBecameOfADownloadIsRemoved(t *testing.T) {
	t.Parallel()
	s := setup(t, nil)
	elsewhere := filepath.Join(t.TempDir(), "elsewhere")
	if err := os.WriteFile(elsewhere, []byte("stays"), 0o640); err != nil {
		t.Fatal(err)
	}
	for name, make := range map[string]func(path string) error{
		"a file":       func(path string) error { return os.WriteFile(path, make([]byte, 3<<20), 0o600) },
		"a short one":  func(path string) error { return os.WriteFile(path, []byte("short"), 0o600) },
		"nothing":      func(string) error { return nil },
		"no directory": func(path string) error { return os.Remove(filepath.Dir(path)) },
		"a link":       func(path string) error { return os.Symlink(elsewhere, path) },
		"a hard link":  func(path string) error { return os.Link(elsewhere, path) },
	} {
		path := filepath.Join(t.TempDir(), "downloads", "x")
		if err := errors.Join(os.Mkdir(filepath.Dir(path), 0o700), make(path)); err != nil {
			t.Fatal(err)
		}
		freed, err := s.remove(path)
		if err != nil || exists(path) {
			t.Errorf("%s: %v; it is there: %v", name, err, exists(path))
		}
		Staged{freed: freed}.wait()
	}
	b, err := os.ReadFile(elsewhere)
	if st, e := os.Stat(elsewhere); string(b) != "stays" || errors.Join(err, e) != nil || st.Mode() != 0o640 {
		t.Errorf("the target of the links: %q, %v", b, err)
	}
}
