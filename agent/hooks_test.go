//go:build !sim

package agent

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/bilbycast/edge-agent/internal/state"
	"github.com/bilbycast/edge-agent/release"
)

// died records that the process ended in n calls of each hook that is due.
func died(t *testing.T, l state.Layout, n int) {
	t.Helper()
	if err := l.ChangeHooks(t.Context(), func(h *state.Hooks) { h.RestoreTries, h.KeptTries = n, n }); err != nil {
		t.Fatal(err)
	}
}

// A hook that ends the process is called again after a pause that grows, and meanwhile the node
// is up and says what it lacks.
func TestAHookThatEndsTheProcess(t *testing.T) {
	t.Run("RolledBack", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			c, l, told, _ := alone(t)
			var h hooked
			h.into(&c)
			saves(t, c, &h)
			failedTrial(t, c, l)
			died(t, l, 4)
			c.Serve = serves(0)
			a, stop, done := started(t, c)
			time.Sleep(75 * time.Second) // 5 s, doubled four times, are 80 s
			synctest.Wait()
			if got := a.health(t.Context()); len(h.restored.all()) > 0 || got.Status != "degraded" || !strings.Contains(told.String(), "READY=1") {
				t.Errorf("%d calls, %+v", len(h.restored.all()), got)
			}
			time.Sleep(3 * time.Minute)
			synctest.Wait()
			if got := a.health(t.Context()); len(h.restored.all()) != 2 || got.Status != "ok" {
				t.Errorf("%d calls, %+v", len(h.restored.all()), got)
			}
			end(t, stop, done, nil)
		})
	})
	t.Run("Kept", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			c, l, _, _ := aloneOnTrial(t)
			var h hooked
			h.into(&c)
			c.Kept = func(context.Context, Change) error { return errors.New("not yet") }
			_, stop, done := started(t, c)
			time.Sleep(10 * time.Minute)
			end(t, stop, done, nil)
			died(t, l, 4)
			h.into(&c)
			_, stop, done = started(t, c)
			time.Sleep(75 * time.Second)
			synctest.Wait()
			if n := len(h.kept.all()); n > 0 {
				t.Errorf("%d calls", n)
			}
			time.Sleep(3 * time.Minute)
			synctest.Wait()
			if n := len(h.kept.all()); n != 2 {
				t.Errorf("%d calls", n)
			}
			end(t, stop, done, nil)
		})
	})
}

// A restoration that takes minutes is not ended by systemd, and is no part of the trial of a
// version to which an operator rolled back.
func TestARestorationThatTakesMinutes(t *testing.T) {
	slow := func(ctx context.Context, _ Change) error {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(9 * time.Minute):
			return nil
		}
	}
	t.Run("after a rollback", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			c, l, told, _ := alone(t)
			var h hooked
			h.into(&c)
			saves(t, c, &h)
			failedTrial(t, c, l)
			c.RolledBack, c.Serve = slow, serves(0)
			_, stop, done := started(t, c)
			time.Sleep(8 * time.Minute)
			if n := strings.Count(told.String(), "EXTEND_TIMEOUT_USEC="); n < 20 || strings.Contains(told.String(), "READY=1") {
				t.Errorf("%d extensions", n)
			}
			time.Sleep(2 * time.Minute)
			if !strings.Contains(told.String(), "READY=1") {
				t.Error("it is not ready")
			}
			end(t, stop, done, nil)
		})
	})
	t.Run("after an operator's rollback", func(t *testing.T) {
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
			old.RolledBack, old.Serve = slow, serves(0)
			_, stop, done = started(t, old)
			time.Sleep(20 * time.Minute)
			if res, err := l.Read(); err != nil || res.State.Status != state.Stable || res.State.Good != release.MustVersion("1.0.0") {
				t.Errorf("%+v, %v", res.State, err)
			}
			end(t, stop, done, nil)
		})
	})
}

// Data that are saved and not restored yet are not overwritten by those that the failed version
// left: the next version inherits them, and if its upgrade fails they are restored all the same.
func TestSavedDataAreNotOverwritten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, l, _, _ := alone(t)
		var h hooked
		h.into(&c)
		saves(t, c, &h)
		failedTrial(t, c, l)
		c.RolledBack = func(context.Context, Change) error { return errors.New("the disk is full") }
		a, stop, done := started(t, c)
		time.Sleep(time.Minute)
		synctest.Wait()
		repair := release.MustVersion("1.2.0")
		if _, err := a.beforeTrial(t.Context(), repair); err != nil || len(h.before.all()) != 2 { // the two of saves
			t.Errorf("%+v, %v", h.before.all(), err)
		}
		end(t, stop, done, nil)
		// The repair was refused before the swap: the data of before 1.1.0 are still to be restored.
		h.into(&c)
		_, stop, done = started(t, c)
		time.Sleep(time.Minute)
		synctest.Wait()
		end(t, stop, done, nil)
		if got := h.restored.all(); len(got) != 2 || got[1].To != release.MustVersion("1.1.0") {
			t.Errorf("%+v", got)
		}
	})
}

// A record that cannot be read is reported.
func TestADamagedRecordOfHooksIsReported(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, l, _, log := alone(t)
		var h hooked
		h.into(&c)
		if err := l.Disk().WriteFile(l.Root()+"/hooks.json", []byte("{"), 0o600); err != nil {
			t.Fatal(err)
		}
		a, stop, done := started(t, c)
		time.Sleep(time.Minute)
		synctest.Wait()
		if got := a.health(t.Context()); !strings.Contains(strings.Join(got.Warnings, ""), "which hooks of the service are due cannot be read") || !strings.Contains(log.String(), "hooks.json") {
			t.Errorf("%+v", got)
		}
		end(t, stop, done, nil)
	})
}

// While an abandoned call of BeforeTrial runs, the node says that it takes no upgrade, before it
// downloads one.
func TestABeforeTrialThatHangs(t *testing.T) {
	t.Parallel()
	c := bareNode(t)
	synctest.Test(t, func(t *testing.T) {
		hang := make(chan struct{})
		c.BeforeTrial = func(context.Context, Change) error { <-hang; return nil }
		a, err := newOf(c)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := a.beforeTrial(t.Context(), release.MustVersion("1.1.0")); release.CodeOf(err) != release.DataNotSaved || !strings.Contains(err.Error(), "did not return") {
			t.Errorf("got %v", err)
		}
		if err := a.unavailable(); err == nil || !strings.Contains(err.Error(), "restart the service") {
			t.Errorf("upgrades are withheld for %v", err)
		}
		close(hang)
		synctest.Wait()
		if err := a.unavailable(); err != nil && strings.Contains(err.Error(), "BeforeTrial") {
			t.Errorf("upgrades are withheld for %v", err)
		}
	})
}
