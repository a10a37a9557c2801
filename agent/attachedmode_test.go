//go:build !sim

package agent

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/bilbycast/edge-agent/internal/state"
	"github.com/bilbycast/edge-agent/release"
	"github.com/bilbycast/edge-agent/trial"
)

func TestRunAndAttendRefuseEachOthersMode(t *testing.T) {
	t.Parallel()
	c, _ := attachedRoot(t)
	a, err := newOf(c)
	if err != nil {
		t.Fatal(err)
	}
	if err := a.Run(t.Context()); err == nil || !strings.Contains(err.Error(), "use Attend") {
		t.Errorf("Run: %v", err)
	}
	c.Service.Unit = ""
	if err := Attend(t.Context(), c.Config, c.Options, fakeUnit{}); err == nil || !strings.Contains(err.Error(), "service.unit is missing") {
		t.Errorf("Attend: %v", err)
	}
}

// A restart is asked for without a new file, once there was one.
func TestAskRestartNeedsNoSpace(t *testing.T) {
	t.Parallel()
	l, err := state.At(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	if err := l.AskRestart("", true); err != nil {
		t.Fatal(err)
	}
	before, err := os.Stat(l.RestartFile())
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(l.RestartFile(), l.RestartSpare()); err != nil { // as systemd does
		t.Fatal(err)
	}
	if err := l.AskRestart("", true); err != nil {
		t.Fatal(err)
	}
	after, err := os.Stat(l.RestartFile())
	if err != nil || !os.SameFile(before, after) {
		t.Errorf("another file, or none: %v", err)
	}
	if _, err := os.Stat(filepath.Join(l.Root(), ".restart")); err == nil {
		t.Error("the spare file is still there")
	}
}

// If no watchdog ran before this start of the attached service, upgrades are refused. A
// watchdog of an earlier version records nothing; with it they are accepted.
func TestAnAttachedStartWithoutAWatchdog(t *testing.T) {
	c, l := attachedRoot(t)
	start, down := "start 1", false
	a, err := newAttached(c.Config, c.Options, fakeUnit{look: func() (trial.Service, error) {
		if down {
			return trial.Service{State: trial.Stopped, Invocation: start}, nil
		}
		return up(start), nil
	}})
	if err != nil {
		t.Fatal(err)
	}
	a.c.CheckUnit = func(context.Context) error { return nil }
	check := func(what string, want bool) {
		t.Helper()
		a.checkUnit(t.Context())
		if err := a.unavailable(); (err == nil) != want || err != nil && !strings.Contains(err.Error(), "no watchdog ran before the present start of app.service") {
			t.Errorf("%s: %v", what, err)
		}
	}
	check("nothing was ever recorded", true)
	t.Setenv("INVOCATION_ID", start)
	if err := l.RecordStart(); err != nil {
		t.Fatal(err)
	}
	check("recorded", true)
	start = "start 2"
	check("another start", false)
	down = true
	check("it is stopped", true)
	down = false
	t.Setenv("INVOCATION_ID", start)
	if err := l.RecordStart(); err != nil {
		t.Fatal(err)
	}
	check("recorded again", true)
}

// After a rollback for a check, the event waits for what the check of the previous version
// says for one and a half windows, after which a version on trial is condemned, too.
func TestAnAttachedRollbackForACheckIsWatched(t *testing.T) {
	t.Parallel()
	for name, always := range map[string]bool{"the previous version is well": false, "its check fails as well": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c, l := attachedRoot(t)
			if c.Check = failsOn110(&c); always {
				c.Check = func(context.Context) error { return errors.New("it is not well") }
			}
			synctest.Test(t, func(t *testing.T) {
				s := newService(l)
				rolledBack := func() *state.Event {
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
				attend(t, c, l, s.unit(), decided)
				if e := rolledBack(); e == nil || !e.Watch {
					t.Fatalf("%+v", e)
				}
				began := time.Now()
				attend(t, c, l, s.unit(), func(state.Result) bool { return !rolledBack().Watch })
				took := time.Since(began)
				if e := rolledBack(); e.Dependency != always || always != strings.Contains(e.Message, "probably a dependency is down: the check of 1.0.0 fails as well: it is not well") ||
					always != (took >= 40*time.Second) || took > 65*time.Second {
					t.Errorf("after %v: %+v", took, e)
				}
			})
		})
	}
}

// An attached agent tells systemd that it is ready until systemd has read it, and then no more:
// otherwise systemd would end it.
func TestAnAttachedAgentIsReadyForABusySystemd(t *testing.T) {
	t.Parallel()
	c, l := attachedRoot(t)
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		deaf, heard := 3, 0
		c.Notify = func(s string) error {
			mu.Lock()
			defer mu.Unlock()
			if s != "READY=1" {
				return nil
			}
			if deaf--; deaf >= 0 {
				return errors.New("nobody reads")
			}
			heard++
			return nil
		}
		attend(t, c, l, newService(l).unit(), after(time.Minute))
		if mu.Lock(); heard != 1 {
			t.Errorf("systemd read READY=1 %d times", heard)
		}
		mu.Unlock()
	})
}
