//go:build !sim

package agent

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/bilbycast/edge-agent/config"
	"github.com/bilbycast/edge-agent/internal/state"
	"github.com/bilbycast/edge-agent/release"
	"github.com/bilbycast/edge-agent/watchdog"
)

// misbehaving are the ways in which a callback misbehaves. hang is closed when the test ends.
var misbehaving = map[string]func(hang chan struct{}) error{
	"panics":               func(chan struct{}) error { panic("nil map") },
	"panics with an error": func(chan struct{}) error { panic(errors.New("nil map")) },
	"ignores its context":  func(hang chan struct{}) error { <-hang; return nil },
}

// misbehave runs test in a bubble for each way in which a callback misbehaves. The tests are
// not parallel: a child that another test forks has the lock of the root until it executes.
func misbehave(t *testing.T, test func(t *testing.T, bad func() error)) {
	t.Helper()
	for name, bad := range misbehaving {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				hang := make(chan struct{})
				test(t, func() error { return bad(hang) })
				close(hang)
				synctest.Wait()
			})
		})
	}
}

// alone is a node without a manager, its root, what it tells systemd, and its log.
func alone(t *testing.T) (c node, l state.Layout, told, log *lines) {
	t.Helper()
	c, l, told = lonely(t)
	c.Manager.URLs, c.Manager.RegistrationToken = []string{}, config.Secret{}
	log = &lines{}
	c.Log = logTo(log, slog.LevelInfo)
	return c, l, told, log
}

// aloneOnTrial is alone in the first start of 1.1.0 on trial, which a watchdog counted.
func aloneOnTrial(t *testing.T) (c node, l state.Layout, told, log *lines) {
	t.Helper()
	c, l, told, log = alone(t)
	installed(t, c, l, "1.1.0")
	c.Version = "1.1.0"
	if _, err := l.Do(t.Context(), func(s state.State, tr state.Tree, now time.Time) (state.State, state.Tree, error) {
		s = state.Begin(s, state.Trial{ID: "c", CommandID: "c", Target: release.MustVersion("1.1.0"), MaxAttempts: 3}, now)
		tr.Previous, tr.Current = release.MustVersion("1.0.0"), release.MustVersion("1.1.0")
		return s, tr, nil
	}); err != nil {
		t.Fatal(err)
	}
	watchdog.Run(t.Context(), l)
	return c, l, told, log
}

// started runs c, and returns how Run ends.
func started(t *testing.T, c node) (a *Agent, stop context.CancelFunc, done chan error) {
	t.Helper()
	a, err := newOf(c)
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	done = make(chan error, 1)
	go func() { done <- a.Run(ctx) }()
	return a, stop, done
}

// end stops a run, and fails the test if the run does not end with want in time for systemd.
func end(t *testing.T, stop context.CancelFunc, done chan error, want error) {
	t.Helper()
	began := time.Now()
	stop()
	if err := <-done; !errors.Is(err, want) {
		t.Errorf("it ends with: %v", err)
	}
	if took := time.Since(began); took > 3*callbackGrace {
		t.Errorf("the end took %v", took)
	}
}

// On trial a check that misbehaves is a failed check: the trial fails, and the next start
// knows why.
func TestACheckThatMisbehavesFailsItsTrial(t *testing.T) {
	misbehave(t, func(t *testing.T, bad func() error) {
		c, l, told, log := aloneOnTrial(t)
		c.Check = func(context.Context) error { return bad() }
		began := time.Now()
		_, _, done := started(t, c)
		err := <-done
		if took := time.Since(began); !errors.Is(err, ErrTrialFailed) || !strings.Contains(err.Error(), "Options.Check") || took > 3*time.Minute || ExitCode(err) != 1 {
			t.Errorf("after %v: %v", took, err)
		}
		if strings.Contains(told.String(), "READY=1") || !strings.Contains(log.String(), `"callback":"Options.Check"`) {
			t.Errorf("systemd was told %s\nlog: %s", told, log)
		}
		res, err := l.Read()
		if err != nil || !strings.Contains(strings.Join(res.State.FailedStarts, ""), "Options.Check") {
			t.Errorf("%+v, %v", res.State, err)
		}
	})
}

// A service that stops does not wait for its check.
func TestACheckOnTrialDelaysNoStop(t *testing.T) {
	misbehave(t, func(t *testing.T, bad func() error) {
		c, _, _, _ := aloneOnTrial(t)
		c.Check = func(context.Context) error { return bad() }
		_, stop, done := started(t, c)
		time.Sleep(3 * time.Second)
		end(t, stop, done, nil)
	})
}

// In a stable start a check that misbehaves is reported, and the service runs.
func TestACheckThatMisbehavesInAStableStart(t *testing.T) {
	misbehave(t, func(t *testing.T, bad func() error) {
		c, _, told, _ := alone(t)
		c.Check = func(context.Context) error { return bad() }
		a, stop, done := started(t, c)
		for range 3 {
			time.Sleep(time.Minute)
			synctest.Wait()
			if h := a.health(t.Context()); h.Status != "degraded" {
				t.Errorf("health: %+v", h)
			}
			if err := a.checkRunning(t.Context()); err == nil {
				t.Error("an upgrade may begin")
			}
		}
		if !strings.Contains(told.String(), "READY=1") {
			t.Errorf("systemd was told %s", told)
		}
		end(t, stop, done, nil)
	})
}

// A drain that misbehaves does not keep the service from its restart.
func TestADrainThatMisbehaves(t *testing.T) {
	misbehave(t, func(t *testing.T, bad func() error) {
		c, _, _, log := alone(t)
		secs := 5
		c.Upgrade.DrainSecs = &secs
		c.Drain = func(context.Context) error { return bad() }
		a, _, done := started(t, c)
		time.Sleep(time.Minute)
		began := time.Now()
		a.closeSwap()
		if err := <-done; !errors.Is(err, ErrRestart) || ExitCode(err) != 0 || time.Since(began) > 5*time.Second+2*callbackGrace {
			t.Errorf("after %v: %v", time.Since(began), err)
		}
		if !strings.Contains(log.String(), "the service did not drain") {
			t.Errorf("log: %s", log)
		}
	})
}

// A function that notifies nobody hangs nothing, at the start and at the end.
func TestANotifyThatMisbehaves(t *testing.T) {
	misbehave(t, func(t *testing.T, bad func() error) {
		c, _, _, log := alone(t)
		c.Notify = func(string) error { return bad() }
		_, stop, done := started(t, c)
		time.Sleep(time.Minute)
		end(t, stop, done, nil)
		if s := log.String(); !strings.Contains(s, `"callback":"Options.Notify"`) || !strings.Contains(s, `"msg":"ready"`) {
			t.Errorf("log: %s", s)
		}
	})
}

// A check of the unit that misbehaves withholds upgrades, and health says why.
func TestACheckOfTheUnitThatMisbehaves(t *testing.T) {
	misbehave(t, func(t *testing.T, bad func() error) {
		c, _, told, _ := alone(t)
		c.CheckUnit = func(context.Context) error { return bad() }
		a, stop, done := started(t, c)
		time.Sleep(2 * time.Minute)
		if why := a.unavailable(); why == nil || !strings.Contains(why.Error(), "Options.CheckUnit") || !strings.Contains(told.String(), "READY=1") {
			t.Errorf("upgrades are withheld for: %v; systemd was told %s", why, told)
		}
		end(t, stop, done, nil)
	})
}

// A version whose check misbehaves is refused, and a journal that cannot be read is left out.
func TestAVersionCheckAndAJournalThatMisbehave(t *testing.T) {
	misbehave(t, func(t *testing.T, bad func() error) {
		c, l, _, log := alone(t)
		c.CheckVersion = func(context.Context, string) error { return bad() }
		c.Journal = func(context.Context) ([]string, error) { return nil, bad() }
		a, err := newOf(c)
		if err != nil {
			t.Fatal(err)
		}
		if err := a.fitsVersion(t.Context(), ""); !isCallbackError(err) {
			t.Errorf("the version: %v", err)
		}
		put(t, l, "t.rollback", false)
		began := time.Now()
		a.attachJournal(t.Context())
		if took := time.Since(began); took > journalLimit+callbackGrace || !strings.Contains(log.String(), "the journal of the failed version was not added") {
			t.Errorf("after %v, log: %s", took, log)
		}
	})
}

// An Agent runs once, and a root has one agent at a time.
func TestAnAgentRunsOnce(t *testing.T) {
	c, _, _, _ := alone(t)
	synctest.Test(t, func(t *testing.T) {
		a, stop, done := started(t, c)
		time.Sleep(time.Second)
		if err := a.Run(t.Context()); !errors.Is(err, ErrAlreadyRunning) {
			t.Errorf("while it runs: %v", err)
		}
		other, err := newOf(c)
		if err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		if err := other.Run(t.Context()); !errors.Is(err, ErrAlreadyRunning) || time.Since(began) != 0 {
			t.Errorf("another agent on the root, after %v: %v", time.Since(began), err)
		}
		end(t, stop, done, nil)
		if err := a.Run(t.Context()); !errors.Is(err, ErrAlreadyRunning) {
			t.Errorf("when it has ended: %v", err)
		}
		_, stop, done = started(t, c) // another Agent may run now
		time.Sleep(time.Second)
		end(t, stop, done, nil)
	})
}

// An attached agent is neither hung nor ended by its functions, and its runs share what is known
// of a call that was abandoned: current moves twice, and Notify is called once.
func TestAnAttachedAgentWhoseFunctionsMisbehave(t *testing.T) {
	misbehave(t, func(t *testing.T, bad func() error) {
		c, l, told, log := alone(t)
		c.Service.Unit = "app.service"
		installed(t, c, l, "1.1.0")
		var calls atomic.Int64
		c.Notify = func(s string) error {
			told.Write([]byte(s + "\n"))
			calls.Add(1)
			return bad()
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() {
			done <- Attend(ctx, c.Config, c.Options, fakeUnit{restart: func(string, bool) error { return nil }})
		}()
		for _, v := range []string{"1.1.0", "1.0.0"} {
			time.Sleep(time.Minute)
			point(t, l, v)
		}
		time.Sleep(time.Minute)
		if n := strings.Count(log.String(), `"msg":"agent started"`); n < 3 {
			t.Errorf("%d runs: %s", n, log)
		}
		if n := calls.Load(); strings.Contains(t.Name(), "ignores") != (n == 1) {
			t.Errorf("%d calls", n)
		}
		end(t, cancel, done, nil)
	})
}
