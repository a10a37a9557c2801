//go:build !sim

package agent

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"github.com/bilbycast/edge-agent/config"
	"github.com/bilbycast/edge-agent/internal/state"
	"github.com/bilbycast/edge-agent/release"
	"github.com/bilbycast/edge-agent/trial"
)

// livesBriefly runs agents that live for less than a window, one after the other, for half an
// hour or until until holds.
func livesBriefly(t *testing.T, c node, s *service, until func(state.Result) bool) (res state.Result) {
	t.Helper()
	for range 60 {
		dies := after(30 * time.Second)
		if res = attend(t, c, s.l, s.unit(), func(r state.Result) bool { return until(r) || dies(r) }); until(res) {
			break
		}
	}
	return res
}

// An agent that never lives for a window forgets nothing that it waits for.
func TestAnAttachedAgentThatLivesBriefly(t *testing.T) {
	t.Parallel()
	t.Run("takes a swap back", func(t *testing.T) {
		t.Parallel()
		c, l := attachedRoot(t)
		synctest.Test(t, func(t *testing.T) {
			s, began := newService(l), time.Now()
			s.deaf = true
			if res := livesBriefly(t, c, s, decided); res.State.Status != state.RolledBack || time.Since(began) > 3*time.Minute {
				t.Errorf("after %v: %+v", time.Since(began), res.State)
			}
		})
	})
	t.Run("offers what somebody stopped", func(t *testing.T) {
		t.Parallel()
		c, l := attachedRoot(t)
		synctest.Test(t, func(t *testing.T) {
			s := newService(l)
			if err := s.start(false); err != nil {
				t.Fatal(err)
			}
			s.state = trial.Stopped
			if res := livesBriefly(t, c, s, func(r state.Result) bool { return l.MayReplace(r.State) }); !l.MayReplace(res.State) {
				t.Errorf("%+v", res.State)
			}
		})
	})
	t.Run("sends the event of a rollback", func(t *testing.T) {
		t.Parallel()
		c, l := attachedRoot(t)
		c.Check = func(context.Context) error { return errors.New("it is not well") }
		synctest.Test(t, func(t *testing.T) {
			s := newService(l)
			attend(t, c, l, s.unit(), decided)
			sent := func(state.Result) bool {
				entries, _, err := l.Outbox().List()
				for _, e := range entries {
					if e.Event != nil && e.Event.Code == release.RolledBack {
						return err == nil && !e.Event.Watch && e.Event.Dependency
					}
				}
				return false
			}
			if res := livesBriefly(t, c, s, sent); !sent(res) {
				t.Error("the event waits")
			}
		})
	})
	t.Run("asks twice, a quarter of a window apart", func(t *testing.T) {
		t.Parallel()
		c, l := attachedRoot(t)
		synctest.Test(t, func(t *testing.T) {
			s := newService(l)
			c.Check = func(context.Context) error {
				s.mu.Lock()
				defer s.mu.Unlock()
				if s.n > 1 && time.Since(s.begun) < 45*time.Second { // a window is 40 s
					return errors.New("it starts")
				}
				return nil
			}
			for range 100 {
				dies := after(3 * time.Second)
				if res := attend(t, c, l, s.unit(), func(r state.Result) bool { return decided(r) || dies(r) }); decided(res) {
					break
				}
			}
			if res, err := l.Read(); err != nil || res.State.Status == state.RolledBack || s.n != 2 {
				t.Errorf("%d starts, %+v, %v", s.n, res.State, err)
			}
		})
	})
}

// slowOlder is a unit whose processes are found slowly.
type slowOlder struct{ fakeUnit }

func (slowOlder) Older(context.Context) (string, error) {
	time.Sleep(4500 * time.Millisecond)
	return "", nil
}

// A healthy version is kept where systemd answers slowly. The dependency is not asked while the
// check passes.
func TestAnAttachedVersionBesideASlowSystemd(t *testing.T) {
	t.Parallel()
	c, l := attachedRoot(t)
	asked := filepath.Join(t.TempDir(), "asked")
	c.Health.Dependency = config.Dependency{"/bin/sh", "-c", "touch " + asked}
	synctest.Test(t, func(t *testing.T) {
		s := newService(l)
		u := s.unit()
		look := u.look
		u.look = func() (trial.Service, error) { time.Sleep(4500 * time.Millisecond); return look() }
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
		defer cancel()
		if err := Attend(ctx, c.Config, c.Options, slowOlder{u}); err != nil {
			t.Error(err)
		}
		if res, err := l.Read(); err != nil || res.State.Status != state.Stable {
			t.Errorf("%+v, %v", res.State, err)
		}
	})
	if _, err := os.Stat(asked); err == nil {
		t.Error("the dependency was asked")
	}
}

// A newer version can be staged although systemd says nothing, or something restarts the service
// all the time.
func TestAnAttachedTrialThatIsNotDecided(t *testing.T) {
	t.Parallel()
	t.Run("systemd says nothing", func(t *testing.T) {
		t.Parallel()
		c, l := attachedRoot(t)
		synctest.Test(t, func(t *testing.T) {
			s := newService(l)
			if err := s.start(false); err != nil {
				t.Fatal(err)
			}
			u := s.unit()
			u.look = func() (trial.Service, error) { return trial.Service{}, errors.New("no answer") }
			if res := attend(t, c, l, u, after(2*time.Minute)); res.State.Status != state.PendingHealth || !l.MayReplace(res.State) {
				t.Errorf("%+v", res.State)
			}
		})
	})
	t.Run("jobs restart it", func(t *testing.T) {
		t.Parallel()
		c, l := attachedRoot(t)
		synctest.Test(t, func(t *testing.T) {
			s := newService(l)
			long := after(5 * time.Minute)
			res := attend(t, c, l, s.unit(), func(r state.Result) bool {
				s.mu.Lock()
				defer s.mu.Unlock()
				if s.n > 1 && time.Since(s.begun) > 30*time.Second && !long(r) {
					if err := s.start(false); err != nil {
						t.Error(err)
					}
				}
				return long(r) && time.Since(s.begun) > 5*time.Second
			})
			if res.State.Status != state.PendingHealth || !l.MayReplace(res.State) {
				t.Errorf("%d starts, %+v", s.n, res.State)
			}
		})
	})
}
