package watchdog_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/bilbycast/edge-agent/fsutil"
	"github.com/bilbycast/edge-agent/release"
	"github.com/bilbycast/edge-agent/state"
	"github.com/bilbycast/edge-agent/watchdog"
)

var v1, v2 = release.MustVersion("1.0.0"), release.MustVersion("1.1.0")

// root is an install root that runs 1.0.0 and has 1.1.0 beside it.
func root(t testing.TB) state.Layout {
	t.Helper()
	l, err := state.At(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	lay(t, l)
	return l
}

// lay puts 1.0.0, which runs, and 1.1.0 into l.
func lay(t testing.TB, l state.Layout) {
	t.Helper()
	if err := l.Make(); err != nil {
		t.Fatal(err)
	}
	for _, v := range []release.Version{v1, v2} {
		if err := os.Mkdir(l.Version(v), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := (fsutil.Disk{}).Symlink("versions/1.0.0", l.Current()); err != nil {
		t.Fatal(err)
	}
	if _, err := l.Do(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
}

// trial is root with 1.1.0 on trial, for max starts.
func trial(t testing.TB, max int) state.Layout {
	t.Helper()
	l := root(t)
	_, err := l.Do(t.Context(), func(s state.State, tr state.Tree) (state.State, state.Tree, error) {
		s = state.Begin(s, state.Trial{ID: "c", CommandID: "c", Target: v2, MaxAttempts: max}, time.Now())
		tr.Previous, tr.Current = v1, v2
		return s, tr, nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func short(r watchdog.Report) string {
	return fmt.Sprintf("%s %s %d/%d reverted=%v errs=%d", r.Status, r.Current, r.BootAttempts, r.MaxAttempts, r.Reverted, len(r.Errs))
}

func TestCountsThenGoesBackInTheSameStart(t *testing.T) {
	t.Parallel()
	l := trial(t, 2)
	for _, want := range []string{
		"pending_health 1.1.0 1/2 reverted=false errs=0",
		"pending_health 1.1.0 2/2 reverted=false errs=0",
		"rolled_back 1.0.0 2/2 reverted=true errs=0",
		"rolled_back 1.0.0 2/2 reverted=false errs=0",
	} {
		if got := short(watchdog.Run(t.Context(), l)); got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	}
	if to, _ := os.Readlink(l.Current()); to != "versions/1.0.0" {
		t.Errorf("current -> %s", to)
	}
	entries, _, err := l.Outbox().List()
	if err != nil {
		t.Fatal(err)
	}
	last := entries[len(entries)-1].Event
	if last.Code != release.RolledBack || last.BootAttempts != 2 || last.From != v2 || last.To != v1 {
		t.Errorf("the event: %+v", last)
	}
}

// The count is on disk before the new version gets to run.
func TestTheCountIsOnDisk(t *testing.T) {
	t.Parallel()
	l := trial(t, 3)
	watchdog.Run(t.Context(), l)
	b, err := os.ReadFile(filepath.Join(l.Root(), "state.json"))
	if err != nil {
		t.Fatal(err)
	}
	if s, err := state.Decode(b); err != nil || s.BootAttempts != 1 {
		t.Errorf("on disk: %d starts, %v", s.BootAttempts, err)
	}
}

func TestAStableRootIsLeftAlone(t *testing.T) {
	t.Parallel()
	l := root(t)
	before, _ := os.Stat(filepath.Join(l.Root(), "state.json"))
	if got := short(watchdog.Run(t.Context(), l)); got != "stable 1.0.0 0/0 reverted=false errs=0" {
		t.Error(got)
	}
	if after, _ := os.Stat(filepath.Join(l.Root(), "state.json")); !os.SameFile(before, after) {
		t.Error("state.json was written")
	}
}

// A trial whose starts cannot be counted could go on for ever: it ends at
// once, by the link alone. Here state.json is as large as it may be, so that it
// loads and cannot be written again; that stands for a full disk, for root too.
func TestATrialThatCannotBeCountedEnds(t *testing.T) {
	t.Parallel()
	l := trial(t, 3)
	watchdog.Run(t.Context(), l)
	path := filepath.Join(l.Root(), "state.json")
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	s, err := state.Decode(b)
	if err != nil {
		t.Fatal(err)
	}
	compact, err := json.Marshal(s)
	if err != nil {
		t.Fatal(err)
	}
	s.Reason = strings.Repeat("x", state.MaxState-len(compact)-len(`"reason":"",`))
	if compact, err = json.Marshal(s); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, compact, 0o644); err != nil {
		t.Fatal(err)
	}
	if got := short(watchdog.Run(t.Context(), l)); got != "rolled_back 1.0.0 1/3 reverted=true errs=1" {
		t.Error(got)
	}
	if to, _ := os.Readlink(l.Current()); to != "versions/1.0.0" {
		t.Errorf("current -> %s", to)
	}
	// The next that can write records it.
	if got := short(watchdog.Run(t.Context(), l)); got != "rolled_back 1.0.0 1/3 reverted=false errs=0" {
		t.Error(got)
	}
	entries, _, _ := l.Outbox().List()
	if n := len(entries); n == 0 || entries[n-1].Event.Code != release.RolledBack {
		t.Errorf("outbox: %+v", entries)
	}
}

func TestNothingInstalled(t *testing.T) {
	t.Parallel()
	l, err := state.At(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	rep := watchdog.Run(t.Context(), l)
	if rep.Status != "" || len(rep.Notes) != 1 {
		t.Errorf("got %+v", rep)
	}
}

func TestNoRoot(t *testing.T) {
	t.Parallel()
	l, err := state.At(filepath.Join(t.TempDir(), "none"))
	if err != nil {
		t.Fatal(err)
	}
	rep := watchdog.Run(t.Context(), l)
	if len(rep.Errs) == 0 || !errors.Is(rep.Errs[0], os.ErrNotExist) {
		t.Errorf("got %+v", rep)
	}
}

func BenchmarkStableRoot(b *testing.B) {
	l := root(b)
	for b.Loop() {
		watchdog.Run(b.Context(), l)
	}
}
