package upgrade

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/bilbycast/edge-agent/internal/state"
	"github.com/bilbycast/edge-agent/release"
)

// A command that is withdrawn at the last moment, while the self-check runs, is not swapped:
// the withdrawal and the commit are changes under one lock.
func TestAWithdrawnCommandIsNotSwapped(t *testing.T) {
	t.Parallel()
	for _, end := range []End{Swap, Shelve} {
		n := nodeWith(t, "1.0.0", "")
		p := pipeline(t, &n, trusted(t, nil))
		do(t, n.Layout, func(s state.State, tr state.Tree, now time.Time) (state.State, state.Tree, error) {
			return state.Start(s, state.Command{ID: "c", Version: release.MustVersion("1.7.0"), From: release.MustVersion("1.0.0"), Channel: "stable"}, now), tr, nil
		})
		wait := filepath.Join(n.Layout.Root(), "wait")
		if err := syscall.Mkfifo(wait, 0o600); err != nil {
			t.Fatal(err)
		}
		done := make(chan error, 1)
		go func() {
			src := p.Host(release.MustVersion("1.7.0"))
			defer src.Close()
			_, err := p.Run(t.Context(), src, Request{Version: release.MustVersion("1.7.0"), Channel: "stable", CommandID: "c", End: end})
			done <- err
		}()
		f, err := os.Open(wait) // once the program runs
		if err != nil {
			t.Fatal(err)
		}
		f.Close()
		res, err := Discard(t.Context(), n.Layout)
		if err != nil || !strings.Contains(strings.Join(res.Notes, " "), "an operator withdrew the upgrade to 1.7.0") {
			t.Errorf("%v, %q", err, res.Notes)
		}
		if f, err = os.OpenFile(wait, os.O_WRONLY, 0); err != nil { // the program continues
			t.Fatal(err)
		}
		f.Close()
		if err := <-done; release.CodeOf(err) != release.Withdrawn {
			t.Errorf("%v: %v", end, err)
		}
		res, err = n.Layout.Read()
		if err != nil || res.State.Status != state.Stable || res.Tree.Current.String() != "1.0.0" {
			t.Errorf("%v: %v %s, current %s", end, err, res.State.Status, res.Tree.Current)
		}
		if !res.Tree.Has(release.MustVersion("1.7.0")) {
			t.Errorf("%v: what was staged is gone", end)
		}
		if _, err := Discard(t.Context(), n.Layout); err == nil {
			t.Error("a second time: no error")
		}
	}
}

// Discard takes a version back that waits for an operator, of a manager or of a stick.
func TestDiscardWhatWaitsForAnOperator(t *testing.T) {
	t.Parallel()
	n := nodeWith(t, "1.0.0", "")
	p := pipeline(t, &n, trusted(t, nil))
	src := p.Host(release.MustVersion("1.7.0"))
	defer src.Close()
	if _, err := p.Run(t.Context(), src, Request{End: Shelve}); err != nil {
		t.Fatal(err)
	}
	if _, err := Discard(t.Context(), n.Layout); err != nil {
		t.Fatal(err)
	}
	res, err := n.Layout.Read()
	if err != nil || res.State.Status != state.Stable || !res.State.Target.IsZero() {
		t.Errorf("%v: %+v", err, res.State)
	}
	if _, err := Apply(t.Context(), n.Layout, Running{}); err == nil || !strings.Contains(err.Error(), "no version waits") {
		t.Errorf("apply afterwards: %v", err)
	}
}
