package rollout

import (
	"encoding/json"
	"testing"
	"time"
)

// wall is a rollout whose caller has an uptime beside a wall clock that jumps.
type wall struct {
	t   *testing.T
	r   Rollout
	now time.Time
	up  time.Duration
}

func (w *wall) step(e Event) {
	w.t.Helper()
	b, err := json.Marshal(w.r) // as after a restart
	if err == nil {
		online := map[string]bool{}
		for _, n := range w.r.Nodes {
			online[n.ID] = n.Online
		}
		w.r = Rollout{}
		err = json.Unmarshal(b, &w.r)
		for i, n := range w.r.Nodes {
			w.r.Nodes[i].Online = online[n.ID]
		}
	}
	w.r.Uptime = Uptime{w.now, w.up}
	if err == nil {
		w.r, _, err = Step(w.r, e, w.now)
	}
	if err != nil {
		w.t.Fatal(err)
	}
}

func (w *wall) is(what string, s Status) {
	w.t.Helper()
	if w.r.Status != s {
		w.t.Errorf("%s: %s, want %s", what, w.r.Status, s)
	}
}

// No jump of the wall clock, in either direction, ends a settle window, a limit or a lifetime
// early, or makes it longer: they need that much uptime.
func TestJumpsOfTheWallClock(t *testing.T) {
	t.Parallel()
	for _, jump := range []time.Duration{-365 * 24 * time.Hour, -time.Hour, 0, time.Hour, 365 * 24 * time.Hour} {
		w := &wall{t: t, now: epoch, up: 1000 * time.Hour}
		var err error
		w.r, _, err = New(Plan{ID: "r", Version: "1.1.0", Settle: 10 * time.Minute, Limit: 30 * time.Minute, Life: 50 * time.Minute}, []string{"a", "b"}, map[string]bool{"a": true, "b": true}, w.now)
		if err != nil {
			t.Fatal(err)
		}
		w.r.Begin(Uptime{w.now, w.up})
		pass := func(d time.Duration) { w.now, w.up = w.now.Add(d), w.up+d }
		first := w.r.Nodes[0].ID
		w.now = w.now.Add(jump)
		pass(29 * time.Minute)
		w.step(Tick{})
		w.is("the limit has not passed", Running)
		w.step(Outcome{NodeID: first, Attempt: 1, State: NodeUpdated})
		w.is("settle", Settling)
		w.now = w.now.Add(jump)
		pass(9 * time.Minute)
		w.step(Tick{})
		w.is("the window has not passed", Settling)
		if at, ok := w.r.NextTick(); !ok || !at.Equal(w.now.Add(time.Minute)) || !w.r.SettleEnd().Equal(at) {
			t.Errorf("%v: the next tick is %v after now, %t", jump, at.Sub(w.now), ok)
		}
		pass(time.Minute)
		w.step(Tick{})
		w.is("the window has passed", Running)
		second := w.r.Nodes[1].ID
		w.step(Presence{second, false})
		if w.r.Wave != 1 || w.r.Nodes[1].State != NodeCommanded {
			t.Errorf("%v: %+v", jump, w.r)
		}
		w.now = w.now.Add(jump)
		pass(30*time.Minute - 1)
		w.step(Tick{})
		w.is("the second limit has not passed", Running)
		pass(1)
		w.step(Tick{})
		w.is("the second limit has passed", Paused)
		w.step(Resume{})
		w.is("the lifetime is over", Completed)
	}
}

// The lifetime also needs the uptime, and the result says what happened.
func TestResult(t *testing.T) {
	t.Parallel()
	w := &wall{t: t, now: epoch, up: time.Hour}
	var err error
	w.r, _, err = New(Plan{ID: "r", Version: "1.1.0", Life: time.Hour}, []string{"a", "b", "c"}, nil, w.now)
	if err != nil {
		t.Fatal(err)
	}
	w.r.Begin(Uptime{w.now, w.up})
	w.now = w.now.Add(1000 * time.Hour)
	w.step(Tick{})
	if w.r.Status.Final() || w.r.Result() != "" {
		t.Errorf("after a jump: %s %q", w.r.Status, w.r.Result())
	}
	w.up += time.Hour
	w.step(Tick{})
	if w.r.Result() != "ended: 3 nodes never came" {
		t.Error(w.r.Status, w.r.Result())
	}
	w.r.Nodes[0].State, w.r.Nodes[1].State = NodeUpdated, NodeUpdated
	if w.r.Result() != "ended: 1 node never came" {
		t.Error(w.r.Result())
	}
	w.r.Nodes[2].State = NodeSkipped
	if w.r.Result() != "completed" {
		t.Error(w.r.Result())
	}
}

// A manager that is killed loses some seconds of its uptime. The wall clock, which jumped, does
// not decide then.
func TestAnUptimeThatIsBehind(t *testing.T) {
	t.Parallel()
	w := &wall{t: t, now: epoch, up: 1000 * time.Hour}
	var err error
	if w.r, _, err = New(Plan{ID: "r", Version: "1.1.0"}, []string{"a"}, map[string]bool{"a": true}, w.now); err != nil {
		t.Fatal(err)
	}
	w.r.Begin(Uptime{w.now, w.up})
	w.now, w.up = w.now.Add(30*24*time.Hour), w.up-5*time.Second
	w.step(Tick{})
	w.is("just after the restart", Running)
	if at, ok := w.r.NextTick(); !ok || at.Sub(w.now) != DefaultLimit {
		t.Errorf("the limit ends at %v, %v from now", at, at.Sub(w.now))
	}
	w.up += DefaultLimit + 5*time.Second
	w.step(Tick{})
	w.is("at the limit", Paused)
}
