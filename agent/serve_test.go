//go:build !sim

package agent

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/bilbycast/edge-agent/internal/state"
	"github.com/bilbycast/edge-agent/release"
)

// serves is a service that serves after d.
func serves(d time.Duration) func(context.Context, *Agent) error {
	return func(ctx context.Context, a *Agent) error {
		time.Sleep(d)
		a.Ready()
		<-ctx.Done()
		return nil
	}
}

// In a stable start READY=1 waits for the service, however long that takes, and the agent asks
// systemd to wait.
func TestReadyWaitsForTheService(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, _, told, _ := alone(t)
		c.Serve = serves(10 * time.Minute)
		a, stop, done := started(t, c)
		time.Sleep(9 * time.Minute)
		if strings.Count(told.String(), "READY=1") > 0 || strings.Count(told.String(), "EXTEND_TIMEOUT_USEC=") < 20 {
			t.Errorf("systemd was told %s", told)
		}
		if h := a.health(t.Context()); h.Status != "degraded" {
			t.Errorf("health: %+v", h)
		}
		time.Sleep(2 * time.Minute)
		if strings.Count(told.String(), "READY=1") != 1 || a.health(t.Context()).Status != "ok" {
			t.Errorf("systemd was told %s", told)
		}
		end(t, stop, done, nil)
	})
}

// A service may say late that it serves, from a goroutine of its own. Between two calls of Serve
// that does nothing.
func TestReadyBetweenTwoCalls(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, _, told, _ := alone(t)
		var calls atomic.Int32
		c.Serve = func(ctx context.Context, a *Agent) error {
			if calls.Add(1) > 1 {
				return serves(0)(ctx, a)
			}
			go func() {
				time.Sleep(servePause / 2)
				a.Ready()
				a.Ready()
			}()
			a.Ready()
			return errors.New("the listener was lost")
		}
		a, stop, done := started(t, c)
		time.Sleep(servePause * 3 / 4)
		if s := a.Status(); s.Health != "degraded" || !strings.Contains(s.Problem, "the listener was lost") || !strings.Contains(s.Text, "does not serve") {
			t.Errorf("%+v", s)
		}
		time.Sleep(servePause)
		synctest.Wait()
		if s := a.Status(); s.Health != "ok" || s.Problem != "" || calls.Load() != 2 {
			t.Errorf("after %d calls: %+v; systemd was told %s", calls.Load(), s, told)
		}
		end(t, stop, done, nil)
	})
}

// A service that ends in a stable start is begun again. The node stays up meanwhile: it is
// degraded, and READY=1 does not wait for it.
func TestAServiceThatEndsIsBegunAgain(t *testing.T) {
	for name, ends := range map[string]func() error{
		"an error": func() error { return errors.New("schema 2 is not known") },
		"nothing":  func() error { return nil },
		"a panic":  func() error { panic("nil map") },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c, _, told, log := alone(t)
				var calls atomic.Int32
				c.Serve = func(ctx context.Context, a *Agent) error {
					if calls.Add(1) < 10 {
						return ends()
					}
					return serves(0)(ctx, a)
				}
				a, stop, done := started(t, c)
				time.Sleep(100 * time.Second)
				synctest.Wait()
				if h := a.health(t.Context()); h.Status != "degraded" || strings.Count(told.String(), "READY=1") != 1 || !strings.Contains(told.String(), "does not serve") || calls.Load() != 7 {
					t.Errorf("after %d calls: %+v; systemd was told %s", calls.Load(), h, told)
				}
				time.Sleep(5 * time.Minute)
				synctest.Wait()
				if h := a.health(t.Context()); h.Status != "ok" || calls.Load() != 10 {
					t.Errorf("after %d calls: %+v", calls.Load(), h)
				}
				if name == "a panic" && !strings.Contains(log.String(), "serve_test.go") {
					t.Errorf("no stack: %s", log)
				}
				end(t, stop, done, nil)
			})
		})
	}
}

// On trial the end of the service is a failed start, and READY=1 waits for Agent.Ready.
func TestAServiceOnTrial(t *testing.T) {
	t.Run("ends", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			c, l, told, _ := aloneOnTrial(t)
			c.Serve = func(context.Context, *Agent) error { return errors.New("no such port") }
			_, _, done := started(t, c)
			if err := <-done; !errors.Is(err, ErrTrialFailed) || !strings.Contains(err.Error(), "no such port") || strings.Count(told.String(), "READY=1") > 0 {
				t.Errorf("%v; systemd was told %s", err, told)
			}
			if res, err := l.Read(); err != nil || !strings.Contains(strings.Join(res.State.FailedStarts, ""), "no such port") {
				t.Errorf("%+v, %v", res.State, err)
			}
		})
	})
	t.Run("never serves", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			c, _, told, _ := aloneOnTrial(t)
			c.Serve = func(ctx context.Context, _ *Agent) error { <-ctx.Done(); return nil }
			_, _, done := started(t, c)
			if err := <-done; !errors.Is(err, ErrTrialFailed) || !strings.Contains(err.Error(), errNotServing.Error()) || strings.Count(told.String(), "READY=1") > 0 {
				t.Errorf("%v; systemd was told %s", err, told)
			}
		})
	})
	t.Run("serves", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			c, l, told, _ := aloneOnTrial(t)
			c.Serve = serves(10 * time.Second)
			_, stop, done := started(t, c)
			time.Sleep(10 * time.Minute)
			if res, err := l.Read(); err != nil || res.State.Status != state.Stable || strings.Count(told.String(), "READY=1") != 1 {
				t.Errorf("%+v, %v; systemd was told %s", res.State, err, told)
			}
			end(t, stop, done, nil)
		})
	})
}

// A service that ignores the end of its context is abandoned after drain_secs.
func TestAServiceThatDoesNotStop(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, _, _, log := alone(t)
		hang := make(chan bool)
		c.Serve = func(_ context.Context, a *Agent) error { a.Ready(); <-hang; return nil }
		a, stop, done := started(t, c)
		time.Sleep(time.Minute)
		began := time.Now()
		stop()
		if err := <-done; err != nil || time.Since(began) > a.c.DrainTime+time.Second || !strings.Contains(log.String(), `"callback":"Options.Serve"`) {
			t.Errorf("%v after %v: %s", err, time.Since(began), log)
		}
		close(hang)
		synctest.Wait()
	})
}

// hooked counts the calls of the hooks; each fails once.
type hooked struct{ before, kept, restored hookCalls }

type hookCalls struct {
	mu    sync.Mutex
	calls []Change
}

func (h *hookCalls) call(_ context.Context, c Change) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.calls = append(h.calls, c); len(h.calls) == 1 {
		return errors.New("the first call fails")
	}
	return nil
}

func (h *hookCalls) all() []Change {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Clone(h.calls)
}

func (h *hooked) into(c *node) {
	c.BeforeTrial, c.Kept, c.RolledBack = h.before.call, h.kept.call, h.restored.call
}

// saves has the version 1.0.0 save its data for 1.1.0, in the second attempt.
func saves(t *testing.T, c node, h *hooked) {
	t.Helper()
	a, err := newOf(c)
	if err != nil {
		t.Fatal(err)
	}
	next := release.MustVersion("1.1.0")
	if _, err := a.beforeTrial(t.Context(), next); release.CodeOf(err) != release.DataNotSaved || !strings.Contains(err.Error(), "the first call fails") {
		t.Errorf("the error refuses no upgrade: %v", err)
	}
	if hooks, _ := a.c.Layout.ReadHooks(); hooks.Saved != nil {
		t.Errorf("nothing was saved, but %+v", hooks)
	}
	if _, err := a.beforeTrial(t.Context(), next); err != nil || len(h.before.all()) != 2 || h.before.all()[1].To != next || h.before.all()[1].From != release.MustVersion("1.0.0") {
		t.Errorf("%+v, %v", h.before.all(), err)
	}
}

// failedTrial rolls a trial of 1.1.0 back.
func failedTrial(t *testing.T, c node, l state.Layout) {
	t.Helper()
	installed(t, c, l, "1.1.0")
	if _, err := l.Do(t.Context(), func(s state.State, tr state.Tree, now time.Time) (state.State, state.Tree, error) {
		s = state.Begin(s, state.Trial{ID: "c", CommandID: "c", Target: release.MustVersion("1.1.0"), MaxAttempts: 3}, now)
		tr.Previous, tr.Current = release.MustVersion("1.0.0"), release.MustVersion("1.1.0")
		s, tr = state.Revert(s, tr, "it crashed", now)
		return s, tr, nil
	}); err != nil {
		t.Fatal(err)
	}
}

// A version to which an operator rolls back restores the data that it had saved, also after the
// newer version was kept.
func TestDataIsRestoredAfterAnOperatorsRollback(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, l, _, _ := aloneOnTrial(t)
		var h hooked
		h.into(&c)
		old := c
		old.Version = "1.0.0"
		saves(t, old, &h)
		_, stop, done := started(t, c)
		time.Sleep(10 * time.Minute)
		end(t, stop, done, nil)
		rollBack(t, l, "")
		_, stop, done = started(t, old)
		time.Sleep(time.Minute)
		end(t, stop, done, nil)
		if len(h.restored.all()) != 2 || h.restored.all()[1].To != release.MustVersion("1.1.0") {
			t.Errorf("%+v", h.restored.all())
		}
	})
}

// After a rollback the version that saved its data restores them before it serves, until it
// has, and then not again.
func TestDataIsRestoredAfterARollback(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, l, told, _ := alone(t)
		var h hooked
		h.into(&c)
		var restoredFirst atomic.Bool
		c.Serve = func(ctx context.Context, a *Agent) error {
			restoredFirst.Store(len(h.restored.all()) == 2)
			return serves(0)(ctx, a)
		}
		start := func(restored int) {
			t.Helper()
			_, stop, done := started(t, c)
			time.Sleep(time.Minute)
			synctest.Wait()
			if len(h.restored.all()) != restored || len(h.kept.all()) != 0 {
				t.Errorf("%+v, %+v", h.restored.all(), h.kept.all())
			}
			end(t, stop, done, nil)
		}
		start(0) // nothing was saved
		saves(t, c, &h)
		failedTrial(t, c, l)
		start(2)
		if !restoredFirst.Load() || strings.Count(told.String(), "READY=1") != 2 {
			t.Errorf("it served before it had restored its data; systemd was told %s", told)
		}
		if u := h.restored.all()[1]; u.To != release.MustVersion("1.1.0") || u.From != release.MustVersion("1.0.0") || u.Reason == "" {
			t.Errorf("%+v", u)
		}
		start(2)
	})
}

// The agent calls Kept when the version is kept, or in its next start, until the call succeeds.
func TestAVersionIsToldThatItIsKept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, _, _, _ := aloneOnTrial(t)
		var h hooked
		h.into(&c)
		c.Serve = serves(0)
		a, stop, done := started(t, c)
		time.Sleep(a.c.Hold / 2)
		synctest.Wait()
		if len(h.kept.all()) > 0 {
			t.Error("Kept was called on trial")
		}
		for range 100 {
			time.Sleep(time.Second)
			if synctest.Wait(); len(h.kept.all()) > 0 {
				break
			}
		}
		end(t, stop, done, nil) // before the second call
		for range 2 {
			_, stop, done = started(t, c)
			time.Sleep(time.Minute)
			synctest.Wait()
			if len(h.kept.all()) != 2 || h.kept.all()[1].From != release.MustVersion("1.0.0") || h.kept.all()[1].To != release.MustVersion("1.1.0") {
				t.Errorf("%+v", h.kept.all())
			}
			end(t, stop, done, nil)
		}
		if len(h.restored.all()) > 0 {
			t.Error("there was no rollback")
		}
	})
}

// A damaged record makes no hook due, and is replaced by the next one.
func TestADamagedRecordOfHooks(t *testing.T) {
	for name, text := range map[string]string{"no JSON": "{", "too long": strings.Repeat("x", 5000), "a wrong version": `{"saved":{"from":"../..","to":"1.1.0"}}`} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c, l, _, _ := alone(t)
				var h hooked
				h.into(&c)
				saves(t, c, &h)
				failedTrial(t, c, l)
				if err := l.Disk().WriteFile(l.Root()+"/hooks.json", []byte(text), 0o600); err != nil {
					t.Fatal(err)
				}
				_, stop, done := started(t, c)
				time.Sleep(time.Minute)
				end(t, stop, done, nil)
				if len(h.restored.all()) > 0 {
					t.Errorf("%+v", h.restored.all())
				}
				var again hooked
				again.into(&c)
				saves(t, c, &again)
			})
		})
	}
}

// Events of the service reach the outbox, within limits, and bad ones do not.
func TestEventsOfTheService(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, l, _, _ := alone(t)
		a, err := newOf(c)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range []Event{
			{"fatal", "disk", "x"}, {release.Info, "upgrade", "x"}, {release.Info, "identity", "x"}, {release.Info, "A", "x"}, {release.Info, "", "x"},
			{release.Info, "disk", ""}, {release.Info, "disk", strings.Repeat("x", 1001)},
		} {
			if err := a.Report(t.Context(), e); err == nil {
				t.Errorf("%+v was taken", e)
			}
		}
		taken := 0
		for range 1000 {
			if err := a.Report(t.Context(), Event{release.Warning, "disk", "it is 95 % full\x1b[31m"}); err == nil {
				taken++
			} else if !errors.Is(err, ErrTooManyEvents) {
				t.Fatal(err)
			}
			time.Sleep(time.Second)
		}
		entries, _, err := l.Outbox().List()
		if err != nil || taken != maxOwnEvents || len(entries) != maxOwnEvents {
			t.Fatalf("%d taken, %d entries, %v", taken, len(entries), err)
		}
		if w := event(entries[0]); w.Category != "disk" || w.Severity != release.Warning || strings.Contains(w.Message, "\x1b") || w.Details.ErrorCode != "" {
			t.Errorf("%+v", w)
		}
	})
}
