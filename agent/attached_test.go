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

	"github.com/bilbycast/edge-agent/config"
	"github.com/bilbycast/edge-agent/state"
)

// fakeUnit is a unit without systemd: restart is what a start does, active what
// systemd says of it.
type fakeUnit struct {
	restart func() error
	active  func() (string, error)
}

func (u fakeUnit) Fit(context.Context) error                 { return nil }
func (u fakeUnit) Restart(context.Context) error             { return u.restart() }
func (u fakeUnit) Active(context.Context) (string, error)    { return u.active() }
func (u fakeUnit) Journal(context.Context) ([]string, error) { return []string{"it said this"}, nil }

// attachedRoot is an install root with 1.1.0 on trial and not yet started.
func attachedRoot(t *testing.T) (node, state.Layout) {
	t.Helper()
	c := bareNode(t)
	c.Service.Unit = "app.service"
	c.Manager = config.Manager{URLs: []string{"ws://127.0.0.1:1"}, AllowInsecure: true, RegistrationToken: "t", Proxy: "none"}
	c.Upgrade = config.Upgrade{Enabled: true, BootHealthWindowSecs: 10, MaxBootAttempts: 2}
	l, _ := trialRoot(t, c.Service.InstallRoot, c.Upgrade.MaxBootAttempts)
	return c, l
}

// attend runs Attend until until holds, for at most a simulated hour, and returns
// what the root then is, and how often the unit was restarted.
func attend(t *testing.T, c node, l state.Layout, u fakeUnit, until func(state.Result) bool) (state.Result, int) {
	t.Helper()
	restarts := 0
	inner := u.restart
	u.restart = func() error { restarts++; return inner() }
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
	return res, restarts
}

// Without a watchdog, or if no restart happens, nothing counts starts. Then the agent
// rolls back by itself, one window after as many windows as there are starts.
func TestAttachedRollsBackWithoutAWatchdog(t *testing.T) {
	t.Parallel()
	c, l := attachedRoot(t)
	synctest.Test(t, func(t *testing.T) {
		res, restarts := attend(t, c, l, fakeUnit{
			restart: func() error { return errors.New("the disk is full") },
			active:  func() (string, error) { return "start 1", nil },
		}, func(r state.Result) bool { return r.State.Status != state.PendingHealth })
		if res.State.Status != state.RolledBack || res.Tree.Current.String() != "1.0.0" || !strings.Contains(res.State.Reason, "did not prove healthy in 3 windows") {
			t.Errorf("%+v %+v", res.State, res.Tree)
		}
		if restarts < 2 {
			t.Errorf("%d restarts were asked for", restarts)
		}
	})
}

// count is what the watchdog does before a start.
func count(l state.Layout) error {
	_, err := l.Do(context.Background(), func(s state.State, t state.Tree, _ time.Time) (state.State, state.Tree, error) {
		s, t = state.CountStart(s, t, "", time.Now())
		return s, t, nil
	})
	return err
}

// A unit that stays up in the same start is kept. A unit that restarts again and again
// is not, although it is up at every check.
func TestAttachedTrials(t *testing.T) {
	t.Parallel()
	for name, longSession := range map[string]bool{"longSession": true, "restarting": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c, l := attachedRoot(t)
			if err := count(l); err != nil {
				t.Fatal(err)
			}
			synctest.Test(t, func(t *testing.T) {
				checks := 0
				res, restarts := attend(t, c, l, fakeUnit{
					restart: func() error { return count(l) },
					active: func() (string, error) {
						checks++
						if longSession {
							return "start", nil
						}
						return "start " + time.Now().String(), nil
					},
				}, func(r state.Result) bool { return r.State.Status != state.PendingHealth })
				if longSession && (res.State.Status != state.Stable || res.Tree.LastGood.String() != "1.1.0" || restarts != 0) {
					t.Errorf("%d restarts, %+v", restarts, res.State)
				}
				if !longSession && (res.State.Status != state.RolledBack || res.Tree.Current.String() != "1.0.0" || restarts != 2) {
					t.Errorf("%d restarts, %+v", restarts, res.State)
				}
			})
		})
	}
}

// A service that an operator stopped is neither started nor rolled back.
func TestAttachedWaitsForAStoppedService(t *testing.T) {
	t.Parallel()
	c, l := attachedRoot(t)
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		res, restarts := attend(t, c, l, fakeUnit{
			restart: func() error { return count(l) },
			active:  func() (string, error) { return "", ErrStopped },
		}, func(state.Result) bool { return time.Since(began) > 10*time.Minute })
		if res.State.Status != state.PendingHealth || restarts != 0 {
			t.Errorf("%d restarts, %+v", restarts, res.State)
		}
	})
}

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
	if err := l.AskRestart(); err != nil {
		t.Fatal(err)
	}
	before, err := os.Stat(l.RestartFile())
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(l.RestartFile(), l.RestartSpare()); err != nil { // as systemd does
		t.Fatal(err)
	}
	if err := l.AskRestart(); err != nil {
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
	up := "start 1"
	var down error
	a, err := newAttached(c.Config, c.Options, fakeUnit{active: func() (string, error) { return up, down }})
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
	t.Setenv("INVOCATION_ID", up)
	if err := l.RecordStart(); err != nil {
		t.Fatal(err)
	}
	check("recorded", true)
	up = "start 2"
	check("another start", false)
	down = ErrStopped
	check("it is stopped", true)
	down = nil
	t.Setenv("INVOCATION_ID", up)
	if err := l.RecordStart(); err != nil {
		t.Fatal(err)
	}
	check("recorded again", true)
}
