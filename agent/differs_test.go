//go:build !sim

package agent

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/bilbycast/edge-agent/fsutil"
	"github.com/bilbycast/edge-agent/internal/state"
	"github.com/bilbycast/edge-agent/release"
	"github.com/bilbycast/edge-agent/watchdog"
)

// installed adds a version with a program to a root.
func installed(t *testing.T, c node, l state.Layout, version string) {
	t.Helper()
	dir := l.Version(release.MustVersion(version))
	if err := errors.Join(os.MkdirAll(dir, 0o755), os.WriteFile(filepath.Join(dir, c.Service.Binary), []byte("x"), 0o755)); err != nil {
		t.Fatal(err)
	}
}

// point does what ln -sfn does.
func point(t *testing.T, l state.Layout, version string) {
	t.Helper()
	if err := (fsutil.Disk{}).Symlink(l.Version(release.MustVersion(version)), l.Current()); err != nil {
		t.Error(err)
	}
}

// Somebody points current of a running agent to another version.
func TestAnAgentFollowsCurrent(t *testing.T) { // not parallel: a child that another test forks has the lock until it executes
	for name, tt := range map[string]struct {
		start string                                               // current at the start of 1.0.0; "": 1.0.0
		then  func(t *testing.T, c node, l state.Layout, a *Agent) // what happens after a minute
		want  string                                               // the reason a few seconds later
		ends  bool                                                 // within a minute, and not before followWait has passed
		off   bool                                                 // upgrades are disabled
	}{
		"to another version": {ends: true, want: "current points to 1.1.0, and 1.0.0 runs: the service restarts in 30s", then: func(t *testing.T, _ node, l state.Layout, _ *Agent) {
			point(t, l, "1.1.0")
		}},
		"upgrades are disabled": {off: true, ends: true, want: "current points to 1.1.0", then: func(t *testing.T, _ node, l state.Layout, _ *Agent) {
			point(t, l, "1.1.0")
		}},
		"before the start, as where the unit starts one version": {start: "1.1.0", want: "current points to 1.1.0, but this start runs 1.0.0: the unit must start ", then: func(*testing.T, node, state.Layout, *Agent) {}},
		"to another one, as above": {start: "1.1.0", ends: true, want: "current points to 1.2.0, and 1.0.0 runs", then: func(t *testing.T, c node, l state.Layout, _ *Agent) {
			installed(t, c, l, "1.2.0")
			point(t, l, "1.2.0")
		}},
		"to one that cannot run": {want: "current points to 1.2.0, whose program edge cannot be executed", then: func(t *testing.T, c node, l state.Layout, _ *Agent) {
			installed(t, c, l, "1.2.0")
			if err := os.Chmod(filepath.Join(l.Version(release.MustVersion("1.2.0")), c.Service.Binary), 0o644); err != nil {
				t.Error(err)
			}
			point(t, l, "1.2.0")
		}},
		"while a release is staged": {then: func(t *testing.T, _ node, l state.Layout, a *Agent) {
			a.mu.Lock()
			a.busy = true
			a.mu.Unlock()
			point(t, l, "1.1.0")
		}},
	} {
		t.Run(name, func(t *testing.T) {
			c, l, told := lonely(t)
			c.Upgrade.Enabled = !tt.off
			installed(t, c, l, "1.0.0")
			installed(t, c, l, "1.1.0")
			if tt.start != "" {
				point(t, l, tt.start)
				if err := (fsutil.Disk{}).Symlink(l.Version(release.MustVersion(tt.start)), l.LastGood()); err != nil {
					t.Fatal(err)
				}
			}
			watchdog.Run(t.Context(), l)
			synctest.Test(t, func(t *testing.T) {
				a, err := newOf(c)
				if err != nil {
					t.Fatal(err)
				}
				ctx, cancel := context.WithCancel(t.Context())
				done := make(chan error, 1)
				go func() { done <- a.Run(ctx) }()
				time.Sleep(time.Minute)
				tt.then(t, c, l, a)
				time.Sleep(followWait - time.Second)
				a.mu.Lock()
				why := a.differsErr
				a.mu.Unlock()
				if tt.want == "" && why != nil || tt.want != "" && (why == nil || !strings.Contains(why.Error(), tt.want) || !strings.Contains(told.String(), tt.want)) {
					t.Errorf("the reason is %v; systemd was told %s", why, told)
				}
				select {
				case err := <-done:
					t.Fatalf("it ended at once: %v", err)
				default:
				}
				wait := time.Hour
				if tt.ends {
					wait = time.Minute
				}
				select {
				case err := <-done:
					if !tt.ends || !errors.Is(err, ErrRestart) {
						t.Errorf("it ended: %v", err)
					}
				case <-time.After(wait):
					if tt.ends {
						t.Error("it still runs")
					}
					cancel()
					if err := <-done; err != nil {
						t.Error(err)
					}
				}
				cancel()
			})
		})
	}
}

// An operator who changes the link back in time has no restart.
func TestAnAgentStaysWhenCurrentReturns(t *testing.T) {
	t.Parallel()
	c, l, _ := lonely(t)
	installed(t, c, l, "1.0.0")
	installed(t, c, l, "1.1.0")
	synctest.Test(t, func(t *testing.T) {
		a, err := newOf(c)
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- a.Run(ctx) }()
		time.Sleep(time.Second)
		for range 5 {
			point(t, l, "1.1.0")
			time.Sleep(followWait - 2*time.Second)
			point(t, l, "1.0.0")
			time.Sleep(2 * time.Second)
		}
		select {
		case err := <-done:
			t.Fatalf("it ended: %v", err)
		default:
		}
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		if err := a.differsErr; err != nil {
			t.Error(err)
		}
	})
}

// An operator points current back during the trial of an attached service, and does not
// restart it: the agent does, once.
func TestAnAttachedServiceFollowsCurrent(t *testing.T) {
	t.Parallel()
	for name, operatorRestarts := range map[string]bool{"nobody restarts it": false, "the operator restarts it": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c, l := attachedRoot(t)
			c.Upgrade.BootHealthWindowSecs = 600
			want := map[bool]int{false: 1, true: 0}[operatorRestarts]
			synctest.Test(t, func(t *testing.T) {
				s := newService(l)
				if err := s.start(false); err != nil {
					t.Fatal(err)
				}
				began, moved := time.Now(), false
				res := attend(t, c, l, s.unit(), func(state.Result) bool {
					if !moved && time.Since(began) > 7*time.Second {
						moved = true
						point(t, l, "1.0.0")
					}
					if moved && operatorRestarts && time.Since(began) > 15*time.Second {
						operatorRestarts = false
						s.mu.Lock()
						s.start(false)
						s.mu.Unlock()
					}
					return time.Since(began) > 10*time.Minute
				})
				if res.State.Status != state.RolledBack || res.Tree.Current.String() != "1.0.0" || s.requests != want || s.n != 3 {
					t.Errorf("%d starts, %d requests, %+v", s.n, s.requests, res.State)
				}
			})
		})
	}
}
