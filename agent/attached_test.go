//go:build !sim

package agent

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/bilbycast/edge-agent/config"
	"github.com/bilbycast/edge-agent/internal/state"
	"github.com/bilbycast/edge-agent/release"
	"github.com/bilbycast/edge-agent/trial"
	"github.com/bilbycast/edge-agent/upgrade"
	"github.com/bilbycast/edge-agent/watchdog"
)

// fakeUnit is a unit without systemd. Without look it is up, in one start.
type fakeUnit struct {
	look    func() (trial.Service, error)
	restart func(start string, again bool) error
}

func (u fakeUnit) Fit(context.Context) error                 { return nil }
func (u fakeUnit) Journal(context.Context) ([]string, error) { return []string{"it said this"}, nil }
func (u fakeUnit) Older(context.Context) (string, error)     { return "", nil }
func (u fakeUnit) LastEnd(context.Context, string) string    { return "" }
func (u fakeUnit) StoppedBy(context.Context) string          { return "a unit that it depends on failed" }
func (u fakeUnit) Restart(_ context.Context, start string, again bool) error {
	return u.restart(start, again)
}

func (u fakeUnit) Look(context.Context) (trial.Service, error) {
	if u.look == nil {
		return up("start 1"), nil
	}
	return u.look()
}

func up(start string) trial.Service {
	return trial.Service{State: trial.Up, Active: true, Ran: true, Invocation: start, Words: "app.service is active"}
}

// attachedRoot is an install root with 1.1.0 on trial and not yet started.
func attachedRoot(t *testing.T) (node, state.Layout) {
	t.Helper()
	c := bareNode(t)
	c.Service.Unit = "app.service"
	c.Manager = config.Manager{URLs: []string{"ws://127.0.0.1:1"}, AllowInsecure: true, RegistrationToken: config.NewSecret("t"), Proxy: config.NewSecret("none")}
	c.Upgrade = config.Upgrade{Enabled: true, BootHealthWindowSecs: 40, MaxBootAttempts: 2}
	l, _ := trialRoot(t, c.Service.InstallRoot, c.Upgrade.MaxBootAttempts)
	return c, l
}

// count is what the watchdog of an earlier version does before a start.
func count(l state.Layout) error {
	_, err := l.Do(context.Background(), func(s state.State, t state.Tree, _ time.Time) (state.State, state.Tree, error) {
		s, t = state.CountStart(s, t, "", time.Now())
		return s, t, nil
	})
	return err
}

// service is a unit as systemd runs it, with its watchdog, and what serves the requests of
// an agent. Its methods are called from many goroutines.
type service struct {
	l state.Layout

	mu       waiting
	n        int // starts
	begun    time.Time
	restarts int // NRestarts
	state    trial.Unit
	requests int

	deaf     bool          // nothing serves a request
	pathDown bool          // because the path unit is not active
	blind    bool          // no watchdog runs: the drop-in is gone
	dies     time.Duration // 1.1.0 ends by itself after this time; 0: it does not
}

func newService(l state.Layout) *service {
	return &service{l: l, mu: make(waiting, 1), n: 1, begun: time.Now(), state: trial.Up}
}

// waiting is a mutex that simulated time does not wait for.
type waiting chan struct{}

func (w waiting) Lock()   { w <- struct{}{} }
func (w waiting) Unlock() { <-w }

// start starts the service, as a job or by systemd itself.
func (s *service) start(byItself bool) error {
	if s.restarts++; !byItself {
		s.restarts = 0
	}
	s.n, s.begun, s.state = s.n+1, time.Now(), trial.Up
	if s.blind {
		return nil
	}
	n := s.restarts
	rep := watchdog.Count(context.Background(), s.l.AtStart(), watchdog.Systemd{
		Invocation: s.invocation(), Restarts: func(context.Context) (int, error) { return n, nil },
	})
	return errors.Join(rep.Errs...)
}

func (s *service) invocation() string { return fmt.Sprintf("start %d", s.n) }

func (s *service) unit() fakeUnit {
	return fakeUnit{
		restart: func(start string, again bool) error {
			s.mu.Lock()
			defer s.mu.Unlock()
			if s.requests++; s.deaf || start != s.invocation() || s.state == trial.Stopped && !again {
				return nil
			}
			return s.start(false)
		},
		look: func() (trial.Service, error) {
			s.mu.Lock()
			defer s.mu.Unlock()
			t, err := s.l.Tree()
			if err == nil && s.dies > 0 && s.state == trial.Up && s.n > 1 && t.Current.String() == "1.1.0" && time.Since(s.begun) >= s.dies {
				err = s.start(true)
			}
			u := up(s.invocation())
			u.Age, u.Restarts, u.State, u.Active, u.PathDown = time.Since(s.begun), s.restarts, s.state, s.state == trial.Up, s.pathDown
			return u, err
		},
	}
}

// attend runs Attend until until holds, for at most a simulated hour, and returns what the
// root then is.
func attend(t *testing.T, c node, l state.Layout, u fakeUnit, until func(state.Result) bool) state.Result {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- Attend(ctx, c.Config, c.Options, u) }()
	var res state.Result
	for ctx.Err() == nil {
		time.Sleep(time.Second)
		var err error
		if res, err = l.Read(); err != nil {
			t.Fatal(err)
		}
		if until(res) {
			break
		}
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
	return res
}

func decided(r state.Result) bool { return r.State.Status != state.PendingHealth }

// after returns a condition that holds once a time has passed.
func after(d time.Duration) func(state.Result) bool {
	began := time.Now()
	return func(state.Result) bool { return time.Since(began) >= d }
}

// A version is kept at the end of its first window, if its check has held.
func TestAnAttachedVersionIsKept(t *testing.T) {
	t.Parallel()
	c, l := attachedRoot(t)
	synctest.Test(t, func(t *testing.T) {
		s, began := newService(l), time.Now()
		res := attend(t, c, l, s.unit(), decided)
		took := time.Since(began)
		if res.State.Status != state.Stable || res.Tree.LastGood.String() != "1.1.0" || s.n != 2 || took < 40*time.Second || took > 45*time.Second {
			t.Errorf("after %v and %d starts: %+v", took, s.n, res.State)
		}
	})
}

// A version that ends by itself, or whose check fails in two rounds after the window, is
// rolled back once its starts are used up, with the cause, whether a watchdog counts or not.
func TestAnAttachedVersionIsRolledBack(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		set   func(*service, *node)
		cause string
	}{
		"ends by itself":                      {func(s *service, _ *node) { s.dies = 20 * time.Second }, "systemd restarted it"},
		"its check fails":                     {func(_ *service, c *node) { c.Check = failsOn110(c) }, "its own check fails: it is not well"},
		"its check fails, without a watchdog": {func(s *service, c *node) { s.blind, c.Check = true, failsOn110(c) }, "its own check fails: it is not well"},
		"ends by itself, without a watchdog":  {func(s *service, _ *node) { s.dies, s.blind = 20*time.Second, true }, "systemd restarted it"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c, l := attachedRoot(t)
			synctest.Test(t, func(t *testing.T) {
				s, began := newService(l), time.Now()
				tt.set(s, &c)
				last := 4 // two starts of 1.1.0, and one of 1.0.0
				if s.blind {
					last = 5 // the agent counts a start only once it runs
				}
				res := attend(t, c, l, s.unit(), func(r state.Result) bool {
					s.mu.Lock()
					defer s.mu.Unlock()
					return decided(r) && s.n >= last
				})
				if res.State.Status != state.RolledBack || res.Tree.Current.String() != "1.0.0" || s.n != last || len(res.State.FailedStarts) != 2 ||
					!strings.Contains(res.State.FailedStarts[0], tt.cause) || !strings.Contains(res.State.FailedStarts[1], tt.cause) {
					t.Errorf("after %v and %d starts: %+v", time.Since(began), s.n, res.State)
				}
			})
		})
	}
}

// failsOn110 is a check that fails while current points to 1.1.0.
func failsOn110(c *node) func(context.Context) error {
	current := filepath.Join(c.Service.InstallRoot, "current")
	return func(context.Context) error {
		if to, err := os.Readlink(current); err != nil || strings.HasSuffix(to, "1.1.0") {
			return errors.Join(errors.New("it is not well"), err)
		}
		return nil
	}
}

// An agent that dies after each look comes to the same verdict: a start's limit runs from
// its own begin, and failed rounds are on disk.
func TestAnAttachedAgentThatDies(t *testing.T) {
	t.Parallel()
	c, l := attachedRoot(t)
	synctest.Test(t, func(t *testing.T) {
		s := newService(l)
		c.Check = failsOn110(&c)
		for range 300 {
			if res := attend(t, c, l, s.unit(), after(3*time.Second)); decided(res) && s.n >= 4 {
				break
			}
		}
		if res, err := l.Read(); err != nil || res.State.Status != state.RolledBack || s.n != 4 {
			t.Errorf("%d starts, %+v, %v", s.n, res.State, err)
		}
	})
}

// A swap that no start follows within a window, and not within 20 s where windows are shorter, is
// taken back. Nothing counts.
func TestAnAttachedVersionThatNothingStarts(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		window  int // boot_health_window_secs
		stopped bool
		want    time.Duration
	}{
		"nothing serves the request":                   {window: 40, want: 40 * time.Second},
		"nothing serves the request, in short windows": {window: 10, want: 20 * time.Second},
		"an operator stopped it before":                {window: 40, stopped: true, want: 40 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c, l := attachedRoot(t)
			c.Upgrade.BootHealthWindowSecs = tt.window
			synctest.Test(t, func(t *testing.T) {
				s, began := newService(l), time.Now()
				if s.deaf = true; tt.stopped {
					s.state = trial.Stopped
				}
				res := attend(t, c, l, s.unit(), decided)
				took := time.Since(began)
				if res.State.Status != state.RolledBack || res.Tree.Current.String() != "1.0.0" || res.State.BootAttempts != 0 || s.n != 1 || took < tt.want || took > tt.want+5*time.Second {
					t.Errorf("after %v and %d starts: %+v", took, s.n, res.State)
				}
				if asked := s.requests > 1; asked == tt.stopped {
					t.Errorf("%d requests", s.requests)
				}
				entries, _, err := l.Outbox().List()
				if e := entries[len(entries)-1].Event; err != nil || e.Code != release.NotStarted || !strings.Contains(e.Message, "app.service") {
					t.Errorf("%+v, %v", e, err)
				}
				s.start(false)
				if res, err := l.Read(); err != nil || res.Tree.Current.String() != "1.0.0" {
					t.Errorf("the next start: %+v, %v", res, err)
				}
			})
		})
	}
}

// An agent whose requests nothing serves, because the path unit is not active, ends itself:
// systemd starts that unit with it. It does so once in a window at most.
func TestAnAttachedAgentMendsItsPathUnit(t *testing.T) {
	t.Parallel()
	c, l := attachedRoot(t)
	c.Check = failsOn110(&c)
	synctest.Test(t, func(t *testing.T) {
		s, began := newService(l), time.Now()
		if err := s.start(false); err != nil {
			t.Fatal(err)
		}
		s.deaf, s.pathDown = true, true
		err := Attend(t.Context(), c.Config, c.Options, s.unit())
		if took := time.Since(began); !errors.Is(err, errMend) || took < time.Minute || took > 2*time.Minute {
			t.Errorf("after %v: %v", took, err)
		}
		s.deaf, s.pathDown = false, false
		res := attend(t, c, l, s.unit(), decided)
		if res.State.Status != state.RolledBack {
			t.Errorf("%+v", res.State)
		}
	})
}

// A service that an operator stopped is neither started nor rolled back, and a newer version
// can be staged after a window.
func TestAttachedWaitsForAStoppedService(t *testing.T) {
	t.Parallel()
	c, l := attachedRoot(t)
	synctest.Test(t, func(t *testing.T) {
		s := newService(l)
		if err := s.start(false); err != nil {
			t.Fatal(err)
		}
		s.state = trial.Stopped
		res := attend(t, c, l, s.unit(), after(30*time.Second))
		if l.MayReplace(res.State) {
			t.Error("a newer version can be staged within the window")
		}
		res = attend(t, c, l, s.unit(), after(10*time.Minute))
		if res.State.Status != state.PendingHealth || s.n != 2 || s.requests != 0 || !l.MayReplace(res.State) {
			t.Errorf("%d starts, %d requests, %+v", s.n, s.requests, res.State)
		}
		s.start(false)
		if res = attend(t, c, l, s.unit(), decided); res.State.Status != state.Stable {
			t.Errorf("after somebody started it: %+v", res.State)
		}
	})
}

// A check that cannot tell is no evidence, unless the service's dependency answers. An
// operator's word is enough then.
func TestAnAttachedCheckThatCannotTell(t *testing.T) { // not in parallel: a child that it forks has the locks of other tests until it executes
	for name, tt := range map[string]struct {
		dependency config.Dependency
		accept     bool
		status     state.Status
		unproven   bool
	}{
		"no dependency is named":               {nil, false, state.PendingHealth, true},
		"an operator accepts it":               {nil, true, state.Stable, false},
		"the dependency is down":               {config.Dependency{"/bin/false"}, false, state.PendingHealth, true},
		"the dependency answers":               {config.Dependency{"/bin/true"}, false, state.RolledBack, false},
		"the dependency answers, and accepted": {config.Dependency{"/bin/true"}, true, state.RolledBack, false},
	} {
		t.Run(name, func(t *testing.T) {
			c, l := attachedRoot(t)
			c.Health = config.Health{Command: []string{"/bin/sh", "-c", "exit 75"}, Dependency: tt.dependency, TimeoutSecs: 5}
			synctest.Test(t, func(t *testing.T) {
				s := newService(l)
				if tt.accept {
					if _, err := upgrade.Accept(t.Context(), l); err != nil {
						t.Fatal(err)
					}
				}
				wait := after(5 * time.Minute)
				res := attend(t, c, l, s.unit(), func(r state.Result) bool { return wait(r) || decided(r) })
				if res.State.Status != tt.status || l.MayReplace(res.State) != tt.unproven && tt.status == state.PendingHealth {
					t.Errorf("%d starts, %+v, unproven %v", s.n, res.State, l.MayReplace(res.State))
				}
			})
		})
	}
}
