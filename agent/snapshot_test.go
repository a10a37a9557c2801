//go:build !sim

package agent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/bilbycast/edge-agent/internal/state"
	"github.com/bilbycast/edge-agent/release"
	"github.com/bilbycast/edge-agent/wire"
)

// until reads changes until one is as it should be, for limit at most.
func until(t *testing.T, what string, limit time.Duration, changes <-chan Status, is func(Status) bool) Status {
	t.Helper()
	var s Status
	for end := time.After(limit); ; {
		select {
		case s = <-changes:
			if is(s) {
				return s
			}
		case <-end:
			t.Fatalf("no change: %s; the last: %+v", what, s)
		}
	}
}

// The status has the link to the manager, since when, and the failed upgrade.
func TestStatusOfTheLink(t *testing.T) {
	t.Parallel()
	hangUp := make(chan struct{})
	url := manager(t, func(p peer) {
		p.welcome()
		if p.auth.NodeID == "" {
			return
		}
		p.send(upgradeTo("c", "0.1.0")) // it is refused
		p.ack("c")
		<-hangUp
	})
	c := rootWith(t, url)
	before, err := newOf(c)
	if err != nil {
		t.Fatal(err)
	}
	if s := before.Status(); s.Version != "1.0.0" || s.Connection != (Connection{}) || s.NoManager || s.Trial != nil || s.Upgrade != nil || s.LastResult != nil {
		t.Errorf("before Run: %+v", s)
	}
	began := time.Now()
	a := runAgent(t, c)
	changes := a.Changes(t.Context())
	s := until(t, "connected", 20*time.Second, changes, func(s Status) bool { return s.Connection.Connected })
	if s.Connection.URL != a.c.URLs[0] || s.Connection.Since.Before(began) || s.Withheld != "" || !strings.Contains(s.Text, "1.0.0 runs") {
		t.Errorf("connected: %+v", s)
	}
	s = until(t, "the refusal", 20*time.Second, changes, func(s Status) bool { return s.LastResult != nil })
	if r := s.LastResult; r.Outcome != Failed || r.Version != "0.1.0" || r.CommandID != "c" || r.Code == "" || r.Reason == "" {
		t.Errorf("the refusal: %+v", r)
	}
	close(hangUp)
	s = until(t, "lost", 20*time.Second, changes, func(s Status) bool { return !s.Connection.Connected })
	if s.Connection.Problem == "" || s.Connection.Since.Before(began) {
		t.Errorf("lost: %+v", s.Connection)
	}
	b, err := json.Marshal(a.Status())
	if err != nil || !strings.Contains(string(b), `"error_code":`) || !strings.Contains(string(b), `"connection":{"connected":`) {
		t.Errorf("%s, %v", b, err)
	}
}

// The status has the trial and its evidence, and then how the upgrade ended.
func TestStatusOfATrial(t *testing.T) {
	for _, kept := range []bool{true, false} {
		c, l, _, _ := aloneOnTrial(t)
		well := make(chan struct{})
		c.Check = func(context.Context) error {
			select {
			case <-well:
				return nil
			default:
				return errors.New("no disk")
			}
		}
		synctest.Test(t, func(t *testing.T) {
			a, stop, done := started(t, c)
			changes := a.Changes(t.Context())
			s := until(t, "the check fails", 20*time.Second, changes, func(s Status) bool { return s.Trial != nil && strings.Contains(s.Trial.Waits, "no disk") })
			if got := s.Trial; got.Version != "1.1.0" || got.Previous != "1.0.0" || got.Start != 1 || got.MaxStarts != 3 || got.Stage != state.OnTrial || got.CheckPassed || s.LastResult != nil || !s.NoManager {
				t.Errorf("%+v, %+v", s, got)
			}
			if !kept {
				if err := <-done; !errors.Is(err, ErrTrialFailed) {
					t.Error(err)
				}
				return
			}
			close(well)
			if s = a.Status(); s.Trial == nil {
				t.Errorf("%+v", s)
			}
			until(t, "the trial goes on", 5*time.Minute, changes, func(s Status) bool { return s.Trial != nil && s.Trial.CheckPassed })
			until(t, "the trial goes on", 5*time.Minute, changes, func(s Status) bool { return s.Trial == nil })
			end(t, stop, done, nil)
		})
		if res, err := l.Read(); err != nil || (res.State.Status == state.Stable) != kept {
			t.Errorf("%+v, %v", res.State, err)
		}
	}
}

// The status shows how far an upgrade is, what it waits for, and that it waits for the restart.
func TestStatusOfAnUpgrade(t *testing.T) {
	c, _, _, _ := alone(t)
	a, err := newOf(c)
	if err != nil {
		t.Fatal(err)
	}
	if s := a.Status(); s.Upgrade != nil {
		t.Errorf("%+v", s.Upgrade)
	}
	a.busy, a.staged, a.stagingNow, a.target = true, release.MustVersion("1.1.0"), &stagingRun{id: "c"}, "1.1.0"
	want := func(want Upgrade) {
		t.Helper()
		if got := a.Status().Upgrade; got == nil || *got != want {
			t.Errorf("got %+v, want %+v", got, want)
		}
	}
	want(Upgrade{Version: "1.1.0", CommandID: "c", Phase: PhaseStart})
	a.report("download", 3, 9)
	want(Upgrade{Version: "1.1.0", CommandID: "c", Phase: PhaseDownload, BytesDone: 3, BytesTotal: 9})
	a.showWait(&wire.Hold{Reason: "the release host"})
	want(Upgrade{Version: "1.1.0", CommandID: "c", Phase: PhaseDownload, BytesDone: 3, BytesTotal: 9, Waits: "the release host"})
	a.progress.Store(nil)
	a.showWait(nil)
	a.closeSwap()
	want(Upgrade{Version: "1.1.0", CommandID: "c", Phase: PhaseRestart})
}

// A reader that does not read delays nobody, and then gets the newest status.
func TestASlowReaderGetsTheNewestStatus(t *testing.T) {
	t.Parallel()
	c, _, _, _ := alone(t)
	a, err := newOf(c)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	slow, quick := a.Changes(ctx), a.Changes(t.Context())
	for i := range 1000 {
		a.setStatus(func(w *statusText) { w.service = fmt.Sprint(i) })
		a.publish() // nothing changed
	}
	if s := <-slow; s.Text != "999" {
		t.Errorf("got %q", s.Text)
	}
	select {
	case s := <-slow:
		t.Errorf("a second value: %+v", s)
	default:
	}
	cancel()
	if _, ok := <-slow; ok {
		t.Error("a value after the end")
	}
	a.setStatus(func(w *statusText) { w.service = "on" })
	if s := <-quick; s.Text != "on" {
		t.Errorf("got %q", s.Text)
	}
}

// The last result is the newest of what the node remembers.
func TestTheLastResult(t *testing.T) {
	t.Parallel()
	v1, v2, v3 := release.MustVersion("1.0.0"), release.MustVersion("1.1.0"), release.MustVersion("1.2.0")
	staged := state.Command{ID: "a", Version: v2, From: v1, Done: true, Status: "staged"}
	failed := state.Command{ID: "b", Version: v3, From: v2, Done: true, Code: release.DiskFull, Error: "no space"}
	running := state.Command{ID: "c", Version: v3, From: v2}
	at := time.Now()
	before := failed // it failed before the status was reached
	before.StatusSince = at.Add(time.Hour)
	after := failed
	after.StatusSince = at
	for name, tt := range map[string]struct {
		s       state.State
		outcome Outcome
		id      string
	}{
		"none":                             {state.State{Status: state.Stable, Good: v1}, "", ""},
		"kept":                             {state.State{Status: state.Stable, Good: v2, Since: at, Commands: []state.Command{staged}}, Completed, "a"},
		"kept, and another one runs":       {state.State{Status: state.Stable, Good: v2, Commands: []state.Command{staged, running}}, Completed, "a"},
		"kept, and another one failed":     {state.State{Status: state.Stable, Good: v2, Commands: []state.Command{staged, failed}}, Failed, "b"},
		"on trial":                         {state.State{Status: state.PendingHealth, Target: v2, Commands: []state.Command{staged}}, "", ""},
		"rolled back":                      {state.State{Status: state.RolledBack, Target: v2, Good: v1, CommandID: "a", Commands: []state.Command{failed, staged}}, RolledBack, "a"},
		"rolled back, then another failed": {state.State{Status: state.RolledBack, Target: v2, Good: v1, CommandID: "a", Commands: []state.Command{staged, failed}}, Failed, "b"},
		"rolled back by an operator":       {state.State{Status: state.RolledBack, Target: v2, Good: v1}, RolledBack, ""},

		"an operator's rollback failed, after a failure and an upgrade": {state.State{Status: state.RolledBack, Since: at, TrialID: "rollback-x", Target: v1, Good: v2, Commands: []state.Command{before, staged}}, RolledBack, ""},
		"and after a failure":                       {state.State{Status: state.RolledBack, Since: at, TrialID: "rollback-x", Target: v1, Good: v2, Commands: []state.Command{staged, before}}, RolledBack, ""},
		"and after one that an earlier agent wrote": {state.State{Status: state.RolledBack, Since: at, TrialID: "rollback-x", Target: v1, Good: v2, Commands: []state.Command{staged, failed}}, RolledBack, ""},
		"and before a failure":                      {state.State{Status: state.RolledBack, Since: at, TrialID: "rollback-x", Target: v1, Good: v2, Commands: []state.Command{staged, after}}, Failed, "b"},
		"an operator's rollback was kept":           {state.State{Status: state.Stable, Since: at, Good: v1, Commands: []state.Command{before, staged}}, "", ""},
		"kept, after another one failed":            {state.State{Status: state.Stable, Since: at, Good: v2, Commands: []state.Command{staged, before}}, Completed, "a"},
		"kept, before another one failed":           {state.State{Status: state.Stable, Since: at, Good: v2, Commands: []state.Command{staged, after}}, Failed, "b"},
	} {
		r := lastResult(tt.s)
		if r == nil {
			r = &LastResult{}
		}
		if r.Outcome != tt.outcome || r.CommandID != tt.id || r.Outcome == RolledBack && r.Version != tt.s.Target.String() {
			t.Errorf("%s: %+v", name, r)
		}
	}
}

// The last result is what happened last, as the node records it.
func TestTheLastResultOfANode(t *testing.T) {
	t.Parallel()
	s := state.State{Status: state.Stable, Good: release.MustVersion("1.0.0")}
	now := time.Now()
	next := func() time.Time { now = now.Add(time.Minute); return now }
	command := func(id, to string) {
		s = state.Start(s, state.Command{ID: id, Version: release.MustVersion(to), From: s.Good}, next())
	}
	want := func(what string, outcome Outcome, version string) {
		t.Helper()
		b, err := json.Marshal(s)
		if err == nil {
			err = json.Unmarshal(b, &s) // as a process reads it
		}
		if r := lastResult(s); err != nil || r == nil || r.Outcome != outcome || r.Version != version {
			t.Errorf("%s: %+v, %v; want %s %s", what, r, err, outcome, version)
		}
	}
	tree := state.Tree{Current: s.Good, LastGood: s.Good, Versions: []release.Version{release.MustVersion("1.2.0"), s.Good}}

	command("a", "1.1.0")
	s = state.Fail(s, "a", release.DiskFull, "no space", next())
	want("a failure", Failed, "1.1.0")

	command("b", "1.2.0")
	s = state.Begin(state.Succeed(s, "b", "staged", next()), state.Trial{ID: "b", CommandID: "b", Target: release.MustVersion("1.2.0")}, next())
	tree.Previous, tree.Current = tree.Current, s.Target
	s, tree = state.Keep(s, tree, s.Target, "", next())
	want("an upgrade", Completed, "1.2.0")

	command("c", "1.3.0")
	s = state.Fail(s, "c", release.DiskFull, "no space", next())
	want("another failure", Failed, "1.3.0")

	s, tree, err := state.RollBack(s, tree, release.Version{}, next())
	if err != nil {
		t.Fatal(err)
	}
	s, _ = state.Revert(s, tree, "it crashed", next())
	want("an operator's rollback that failed", RolledBack, "1.0.0")

	command("d", "1.4.0")
	s = state.Fail(s, "d", release.DiskFull, "no space", next())
	want("a last failure", Failed, "1.4.0")
}
