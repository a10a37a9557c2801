package upgrade

import (
	"context"
	"errors"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/bilbycast/edge-agent/internal/state"
	"github.com/bilbycast/edge-agent/release"
)

var errSick = errors.New("health.http: connection refused")

// One short flap refuses no upgrade. A check that goes on failing does, within a bound,
// also if each call takes long.
func TestAskRunning(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		fails int           // calls, before one passes
		takes time.Duration // each call
		none  bool
		ok    bool
		asks  int
		most  time.Duration
	}{
		"no check":               {none: true, ok: true},
		"it passes":              {ok: true, asks: 1},
		"it flaps once":          {fails: 1, ok: true, asks: 2, most: time.Second},
		"it flaps for a while":   {fails: 4, ok: true, asks: 5, most: 4 * time.Second},
		"it fails":               {fails: 1000, asks: 6, most: 5 * time.Second},
		"it hangs":               {fails: 1000, takes: 10 * time.Second, asks: 3, most: 32 * time.Second},
		"it hangs, then answers": {fails: 2, takes: 10 * time.Second, ok: true, asks: 3, most: 32 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				asks, began := 0, time.Now()
				r := Running{Check: func(context.Context) error {
					time.Sleep(tt.takes)
					if asks++; asks <= tt.fails {
						return errSick
					}
					return nil
				}}
				if tt.none {
					r.Check = nil
				}
				err := r.ask(t.Context())
				if (err == nil) != tt.ok || asks != tt.asks || time.Since(began) > tt.most {
					t.Errorf("%v after %d calls in %v", err, asks, time.Since(began))
				}
				if err != nil && (release.CodeOf(err) != release.Unhealthy || !errors.Is(err, errSick) || !strings.Contains(err.Error(), "--repair")) {
					t.Errorf("%v (%s)", err, release.CodeOf(err))
				}
			})
		})
	}
}

// What the service depends on is asked first, and also for a repair.
func TestAskTheDependency(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		fails  int // calls, before it answers
		repair bool
		ok     bool
		checks int
	}{
		"it answers":                 {ok: true, checks: 1},
		"it flaps":                   {fails: 4, ok: true, checks: 1},
		"it is away":                 {fails: 1000},
		"it answers, and a repair":   {ok: true, repair: true},
		"it is away, and a repair":   {fails: 1000, repair: true},
		"it flaps once, in a repair": {fails: 1, ok: true, repair: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				asks, checks := 0, 0
				err := Running{Repair: tt.repair,
					Check: func(context.Context) error { checks++; return nil },
					Dependency: func(context.Context) error {
						if asks++; asks <= tt.fails {
							return errSick
						}
						return nil
					},
				}.ask(t.Context())
				if (err == nil) != tt.ok || checks != tt.checks {
					t.Errorf("%v after %d checks", err, checks)
				}
				if err != nil && (release.CodeOf(err) != release.Unhealthy || !errors.Is(err, errSick) || !strings.Contains(err.Error(), "health.dependency") || strings.Contains(err.Error(), "--repair")) {
					t.Errorf("%v (%s)", err, release.CodeOf(err))
				}
			})
		})
	}
}

// A process that is stopped meanwhile refuses nothing.
func TestAskRunningEndsWithItsContext(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), 1500*time.Millisecond)
		defer cancel()
		err := Running{Check: func(context.Context) error { return errSick }}.ask(ctx)
		if !errors.Is(err, context.DeadlineExceeded) || release.CodeOf(err) == release.Unhealthy {
			t.Errorf("%v", err)
		}
	})
}

// The running version's check is asked before anything is fetched and again right before the
// swap, and only for a swap. A refusal leaves the version that runs.
func TestARunningVersionThatFailsItsCheck(t *testing.T) {
	t.Parallel()
	trust := trusted(t, nil)
	for name, tt := range map[string]struct {
		end    End
		passes int // calls, before all fail; -1: none fails
		repair bool
		want   release.Code
		asks   int
		staged bool
	}{
		"it passes":                     {passes: -1, asks: 2, staged: true},
		"it fails already":              {want: release.Unhealthy, asks: 6},
		"it fails while staging":        {passes: 1, want: release.Unhealthy, asks: 7, staged: true},
		"it fails, and this repairs it": {repair: true, staged: true},
		"it fails, and nothing is run":  {end: Shelve, staged: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			n := nodeWith(t, "0.9.0", "")
			p := pipeline(t, &n, trust)
			src, _, err := p.Open(stick("1.0.0"))
			if err != nil {
				t.Fatal(err)
			}
			defer src.Close()
			asks := 0
			_, err = p.Run(t.Context(), src, Request{End: tt.end, Running: Running{Repair: tt.repair, Check: func(context.Context) error {
				if asks++; tt.passes < 0 || asks <= tt.passes {
					return nil
				}
				return errSick
			}}})
			if codeOf(err) != tt.want || asks != tt.asks {
				t.Errorf("%v after %d calls", err, asks)
			}
			res, readErr := n.Layout.Read()
			if readErr != nil {
				t.Fatal(readErr)
			}
			if swapped := tt.want == "" && tt.end == Swap; (res.State.Status == state.PendingHealth) != swapped || (res.Tree.Current.String() == "1.0.0") != swapped {
				t.Errorf("%s, current %s", res.State.Status, res.Tree.Current)
			}
			if _, err := os.Stat(n.Layout.Version(release.MustVersion("1.0.0"))); (err == nil) != tt.staged {
				t.Errorf("staged: %v", err)
			}
			said := false
			entries, _, err := n.Layout.Outbox().List()
			for _, e := range entries {
				said = said || e.Event != nil && e.Event.Code == release.Staged && strings.Contains(e.Event.Message, "an operator declared it the repair")
			}
			if err != nil || said != tt.repair {
				t.Errorf("the event reports the repair: %v, %v", said, err)
			}
		})
	}
}

// Apply asks as well, before it changes anything; RollBack never does.
func TestApplyAsksTheRunningVersion(t *testing.T) {
	t.Parallel()
	trust := trusted(t, nil)
	n := emptyNode(t)
	p := pipeline(t, &n, trust)
	if err := errors.Join(fromStick(t, p, "1.0.0", Install), fromStick(t, p, "1.7.0", Shelve)); err != nil {
		t.Fatal(err)
	}
	sick := func(context.Context) error { return errSick }
	if _, err := Apply(t.Context(), n.Layout, Running{Check: sick}); codeOf(err) != release.Unhealthy || !errors.Is(err, errSick) {
		t.Errorf("%v", err)
	}
	if res := do(t, n.Layout, nil); res.State.Status != state.StagedManual || res.Tree.Current.String() != "1.0.0" {
		t.Errorf("after a refusal: %s, %s", res.State.Status, res.Tree.Current)
	}
	res, err := Apply(t.Context(), n.Layout, Running{Check: sick, Repair: true})
	if err != nil || res.State.Status != state.PendingHealth || res.Tree.Current.String() != "1.7.0" {
		t.Errorf("the repair: %v, %s", err, res.State.Status)
	}
	entries, _, err := n.Layout.Outbox().List()
	if err != nil {
		t.Fatal(err)
	}
	if e := entries[len(entries)-1].Event; e == nil || !strings.Contains(e.Message, "an operator declared it the repair") {
		t.Errorf("%+v", e)
	}
	// Nothing waits: that is the answer, whatever the check says, and it is not asked.
	if _, err := Apply(t.Context(), n.Layout, Running{Check: sick}); err == nil || !strings.Contains(err.Error(), "no version waits") {
		t.Errorf("%v", err)
	}
}
