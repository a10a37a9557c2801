//go:build !sim

package agent

import (
	"context"
	"errors"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/bilbycast/edge-agent/fsutil"
	"github.com/bilbycast/edge-agent/internal/state"
	"github.com/bilbycast/edge-agent/release"
	"github.com/bilbycast/edge-agent/trial"
	"golang.org/x/sys/unix"
)

// rollBack is what the command of an operator does; to "" is the previous version.
func rollBack(t *testing.T, l state.Layout, to string) {
	t.Helper()
	v := release.Version{}
	if to != "" {
		v = release.MustVersion(to)
	}
	for tries := 0; ; tries++ {
		_, err := l.Do(context.Background(), func(s state.State, tr state.Tree, now time.Time) (state.State, state.Tree, error) {
			return state.RollBack(s, tr, v, now)
		})
		if errors.Is(err, fsutil.ErrLocked) && tries < 1000 { // a child that another test forks has the lock until it executes
			unix.Nanosleep(&unix.Timespec{Nsec: 1e6}, nil) // no time of synctest
			continue
		}
		if err != nil {
			t.Error(err)
		}
		return
	}
}

// A start of a version that an operator rolled back ends, whenever that was.
func TestARolledBackStartEnds(t *testing.T) {
	t.Parallel()
	const of110 = 2 // the start of 1.1.0
	for name, tt := range map[string]struct {
		at    time.Duration // in that start
		blind bool          // no watchdog counted it
		down  bool          // the agent is, meanwhile
		busy  bool          // it stages another release
	}{
		"right after the start":           {at: 2 * time.Second},
		"right after it, and no watchdog": {at: 3 * time.Second, blind: true},
		"later":                           {at: 20 * time.Second},
		"while the agent is down":         {at: 20 * time.Second, down: true},
		"and the agent is busy":           {at: 20 * time.Second, down: true, busy: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c, l := attachedRoot(t)
			synctest.Test(t, func(t *testing.T) {
				s := newService(l)
				if s.blind = tt.blind; tt.blind {
					if err := l.RecordStartOf(s.invocation()); err != nil {
						t.Fatal(err)
					}
				}
				ready := func(state.Result) bool {
					s.mu.Lock()
					defer s.mu.Unlock()
					return s.n == of110 && time.Since(s.begun) >= tt.at
				}
				if tt.down {
					attend(t, c, l, s.unit(), ready)
					rollBack(t, l, "")
				}
				did := tt.down
				until := func(r state.Result) bool {
					if !did && ready(r) {
						rollBack(t, l, "")
						did = true
					}
					s.mu.Lock()
					defer s.mu.Unlock()
					return did && (s.n > of110 || time.Since(s.begun) > 5*time.Minute)
				}
				if tt.busy {
					attendBusy(t, c, s, until)
				} else {
					attend(t, c, l, s.unit(), until)
				}
				if res, err := l.Read(); err != nil || res.State.Status != state.RolledBack || s.n == of110 {
					t.Errorf("%d starts, %+v, %v", s.n, res.State, err)
				}
			})
		})
	}
}

// attendBusy is attend for an agent that stages a release.
func attendBusy(t *testing.T, c node, s *service, until func(state.Result) bool) {
	o := c.Options
	o.Notify = func(string) error { return nil }
	a, err := newAttached(c.Config, o, s.unit())
	if err != nil {
		t.Fatal(err)
	}
	a.hold, a.busy, a.staged = &hold{}, true, release.MustVersion("1.2.0")
	ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- a.run(ctx) }()
	for !until(state.Result{}) && ctx.Err() == nil {
		time.Sleep(time.Second)
	}
	cancel()
	<-done
}

// After a swap that was taken back, the start of the previous version goes on.
func TestATakenBackSwapRestartsNothing(t *testing.T) {
	t.Parallel()
	c, l := attachedRoot(t)
	synctest.Test(t, func(t *testing.T) {
		s := newService(l)
		s.deaf = true
		attend(t, c, l, s.unit(), decided)
		s.deaf = false
		if res := attend(t, c, l, s.unit(), after(2*time.Minute)); res.State.Status != state.RolledBack || s.n != 1 {
			t.Errorf("%d starts, %+v", s.n, res.State)
		}
	})
}

// A version that is put on trial again within a moment is judged again.
func TestTheSameVersionOnTrialAgain(t *testing.T) {
	t.Parallel()
	c, l := attachedRoot(t)
	synctest.Test(t, func(t *testing.T) {
		s, did := newService(l), ""
		res := attend(t, c, l, s.unit(), func(r state.Result) bool {
			if did == "" && s.n == 2 && time.Since(s.begun) > 10*time.Second {
				rollBack(t, l, "")
				rollBack(t, l, "1.1.0")
				did = r.State.TrialID
			}
			return did != "" && decided(r)
		})
		if res.State.Status != state.Stable || s.n != 3 {
			t.Errorf("%d starts, %+v", s.n, res.State)
		}
	})
}

// An agent that read the root right before current was moved blames nobody.
func TestAnAgentThatReadTheRootBeforeTheSwap(t *testing.T) {
	t.Parallel()
	c, l := attachedRoot(t)
	synctest.Test(t, func(t *testing.T) {
		s, o := newService(l), c.Options
		o.Notify = func(string) error { return nil }
		a, err := newAttached(c.Config, o, s.unit())
		if err != nil {
			t.Fatal(err)
		}
		a.c.version = release.MustVersion("1.0.0")
		if err := s.start(false); err != nil {
			t.Fatal(err)
		}
		a.hold = &hold{}
		if err := a.run(t.Context()); !errors.Is(err, errCurrentMoved) {
			t.Error(err)
		}
		if res, err := l.Read(); err != nil || res.State.Noted() {
			t.Errorf("%+v, %v", res.State, err)
		}
	})
}

// The event of a rollback that enters the outbox late is completed and sent as well. A previous
// version that needs longer than a window is no sign of a dependency that is down.
func TestTheWatchOverThePreviousVersion(t *testing.T) {
	t.Parallel()
	event := func(t *testing.T, l state.Layout) *state.Event {
		entries, _, err := l.Outbox().List()
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range entries {
			if e.Event != nil && e.Event.Code == release.RolledBack {
				return e.Event
			}
		}
		return nil
	}
	t.Run("late", func(t *testing.T) {
		t.Parallel()
		c, l := attachedRoot(t)
		c.Check = failsOn110(&c)
		synctest.Test(t, func(t *testing.T) {
			s, blocked := newService(l), false
			var rolledBack time.Time
			attend(t, c, l, s.unit(), func(r state.Result) bool {
				if !blocked && r.State.BootAttempts == 2 {
					blocked = os.RemoveAll(l.OutboxDir()) == nil && os.Symlink("/proc/nonexistent/x", l.OutboxDir()) == nil
				}
				if rolledBack.IsZero() && decided(r) {
					rolledBack = time.Now()
				}
				if rolledBack.IsZero() || time.Since(rolledBack) < 3*time.Minute {
					return false
				}
				os.Remove(l.OutboxDir())
				return time.Since(rolledBack) > 10*time.Minute
			})
			if e := event(t, l); !blocked || e == nil || e.Watch || e.Dependency {
				t.Errorf("blocked %v: %+v", blocked, e)
			}
		})
	})
	t.Run("slow", func(t *testing.T) {
		t.Parallel()
		c, l := attachedRoot(t)
		synctest.Test(t, func(t *testing.T) {
			s, fails := newService(l), failsOn110(&c)
			c.Check = func(ctx context.Context) error {
				if err := fails(ctx); err != nil {
					return err
				}
				s.mu.Lock()
				defer s.mu.Unlock()
				if s.n >= 4 && time.Since(s.begun) < 50*time.Second { // a window is 40 s
					return errors.New("it starts")
				}
				return nil
			}
			attend(t, c, l, s.unit(), func(r state.Result) bool { e := event(t, l); return e != nil && !e.Watch })
			if e := event(t, l); e == nil || e.Dependency {
				t.Errorf("%+v", e)
			}
		})
	})
}

// An upgrade starts no service that does not run. A repair may be for one that failed, and
// starts none that somebody stopped.
func TestAnUpgradeStartsNoService(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		unit            trial.Unit
		upgrade, repair bool
	}{{trial.Up, true, true}, {trial.Between, false, true}, {trial.Down, false, true}, {trial.Stopped, false, false}} {
		c, l := attachedRoot(t)
		s := newService(l)
		s.state = tt.unit
		o := c.Options
		o.Notify = func(string) error { return nil }
		a, err := newAttached(c.Config, o, s.unit())
		if err != nil {
			t.Fatal(err)
		}
		for _, repair := range []bool{false, true} {
			want := tt.upgrade
			if repair {
				want = tt.repair
			}
			if err := a.running(repair).Up(t.Context()); want != (err == nil) || err != nil && !strings.Contains(err.Error(), "systemctl start app.service") {
				t.Errorf("%s, repair %v: %v", tt.unit, repair, err)
			}
		}
	}
}
