//go:build !sim

package agent

import (
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/bilbycast/edge-agent/internal/state"
)

// A version on trial is not kept while systemd, which would end it, does not know that it is
// ready. The trial fails, and tells why; the start counts as one that was never ready.
func TestAVersionWhoseReadyFailsIsNotKept(t *testing.T) {
	misbehave(t, func(t *testing.T, bad func() error) {
		c, l, _, _ := aloneOnTrial(t)
		c.Notify = func(s string) error {
			if s == "READY=1" {
				return bad()
			}
			return nil
		}
		a, stop, done := started(t, c)
		defer time.AfterFunc(10*time.Minute, stop).Stop()
		time.Sleep(10 * time.Second)
		synctest.Wait()
		if res, err := l.Read(); err != nil || l.ReadJudge(res.State).Ready {
			t.Errorf("the start counts as ready: %+v, %v", res.State, err)
		}
		if s := a.Status(); s.Trial == nil || !strings.Contains(s.Trial.Waits, "READY=1") {
			t.Errorf("status: %+v", s.Trial)
		}
		if err := <-done; !errors.Is(err, ErrTrialFailed) || !strings.Contains(err.Error(), "READY=1") || !strings.Contains(err.Error(), "Options.Notify") {
			t.Errorf("it ends with: %v", err)
		}
		res, err := l.Read()
		if err != nil || res.State.Status != state.PendingHealth || !strings.Contains(strings.Join(res.State.FailedStarts, ""), "READY=1") {
			t.Errorf("%+v, %v", res.State, err)
		}
	})
}

// A later READY=1 that systemd gets heals the trial, and the hold begins then.
func TestALaterReadyHealsATrial(t *testing.T) {
	for name, first := range map[string]func(){"fails": func() {}, "hangs": func() { time.Sleep(5 * time.Second) }} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c, l, told, _ := aloneOnTrial(t)
				var calls atomic.Int64
				notify := c.Notify
				c.Notify = func(s string) error {
					if s == "READY=1" && calls.Add(1) < 4 {
						first()
						return errors.New("nobody reads")
					}
					return notify(s)
				}
				_, stop, done := started(t, c)
				time.Sleep(10 * time.Minute)
				res, err := l.Read()
				if n := strings.Count(told.String(), "READY=1"); err != nil || res.State.Status != state.Stable || n != 1 {
					t.Errorf("%+v, %v; READY=1 was sent %d times", res.State, err, n)
				}
				end(t, stop, done, nil)
			})
		})
	}
}

// What the judge of a trial does while systemd was not told READY=1.
func TestTheJudgeWaitsForReady(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, l, _, _ := aloneOnTrial(t)
		deaf := true
		c.Notify = func(s string) error {
			if deaf && s == "READY=1" {
				return errors.New("nobody reads")
			}
			return nil
		}
		a, err := newOf(c)
		if err != nil {
			t.Fatal(err)
		}
		res, err := l.Read()
		if err != nil {
			t.Fatal(err)
		}
		j := &judge{a: a, res: res, log: a.log, record: l.ReadJudge(res.State).InStart(1)}
		for range 3 {
			j.check(t.Context())
			if j.passed || !j.well.IsZero() || j.record.Ready || j.record.Passed || !strings.Contains(j.why, "READY=1") {
				t.Fatalf("passed %t, well %v, record %+v: %s", j.passed, j.well, j.record, j.why)
			}
		}
		deaf = false
		a.notify("READY=1") // as notifyAgain does
		j.check(t.Context())
		if !j.passed || j.well.IsZero() || !j.record.Ready || !j.record.Passed {
			t.Errorf("passed %t, well %v, record %+v: %s", j.passed, j.well, j.record, j.why)
		}
	})
}

// An Options.Verified that panics or hangs is logged, and not called again while it hangs.
func TestAVerifiedThatMisbehaves(t *testing.T) {
	misbehave(t, func(t *testing.T, bad func() error) {
		c, _, _, log := alone(t)
		c.Verified = func() { bad() }
		a, err := newOf(c)
		if err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		for range 3 {
			a.callVerified()
		}
		if took := time.Since(began); took > verifiedLimit+callbackGrace || !strings.Contains(log.String(), `"callback":"Options.Verified"`) {
			t.Errorf("after %v, log: %s", took, log)
		}
	})
}
