package rollout_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/bilbycast/edge-agent/manager-sim/rollout"
)

var begin = time.Date(2026, 11, 26, 0, 0, 0, 0, time.UTC)

// start returns a rollout to k online nodes, in waves of one node, with a limit of an hour.
func start(t *testing.T, k int) rollout.Rollout {
	t.Helper()
	var ids []string
	online := map[string]bool{}
	for i := range k {
		ids = append(ids, fmt.Sprint("n", i))
		online[ids[i]] = true
	}
	r, _, err := rollout.New(rollout.Plan{ID: "r", Version: "1.1.0", Settle: 10 * time.Minute}, ids, online, begin)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func do(t *testing.T, r rollout.Rollout, after time.Duration, events ...rollout.Event) rollout.Rollout {
	t.Helper()
	for _, e := range events {
		var err error
		if r, _, err = rollout.Step(r, e, begin.Add(after)); err != nil {
			t.Fatal(err)
		}
	}
	return r
}

// A node that kept the version and then falls pauses the rollout, in the settle window and
// in a later wave. The reason names it. It counts as updated again when it is well.
func TestANodeThatFallsPausesTheRollout(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ code, reason string }{
		{rollout.Vanished, "1 node vanished (%s) in wave %d of 3"},
		{rollout.Degraded, "1 node degraded (%s) in wave %d of 3"},
		{rollout.OtherVersion, "1 node running another version again (%s) in wave %d of 3"},
	} {
		for wave := range 2 {
			r := start(t, 3)
			first := r.Nodes[0].ID
			r = do(t, r, time.Minute, rollout.Outcome{NodeID: first, Attempt: 1, State: rollout.NodeUpdated})
			if wave == 1 {
				r = do(t, r, 12*time.Minute, rollout.Tick{})
			}
			if want := []rollout.Status{rollout.Settling, rollout.Running}[wave]; r.Status != want {
				t.Fatalf("%s before the fault", r.Status)
			}
			fell := do(t, r, 13*time.Minute, rollout.Condition{NodeID: first, Attempt: 1, Code: tt.code})
			if want := fmt.Sprintf(tt.reason, first, wave+1); fell.Status != rollout.Paused || fell.PauseReason() != want {
				t.Errorf("%s, %q, want %q", fell.Status, fell.PauseReason(), want)
			}
			well := do(t, fell, 14*time.Minute, rollout.Condition{NodeID: first, Attempt: 1})
			if well.Status != rollout.Paused || well.Count(rollout.NodeUpdated) != 1 || well.PauseReason() != "" {
				t.Errorf("when it is over: %s, %q", well.Status, well.PauseReason())
			}
			// An operator has seen it. Another fault of the same node is new.
			known := do(t, fell, 14*time.Minute, rollout.Resume{}, rollout.Condition{NodeID: first, Attempt: 1, Code: tt.code})
			if known.Status == rollout.Paused {
				t.Error("it pauses again for a fault that is known")
			}
			if known = do(t, known, 15*time.Minute, rollout.Outcome{NodeID: first, Attempt: 1, State: rollout.NodeRolledBack}); known.Status != rollout.Paused {
				t.Error("a rollback after it is not new")
			}
		}
	}
}

// A wave waits for an unproven node until the time limit. Then the rollout pauses, whatever
// the threshold, and after a Resume goes on without it. A late outcome still counts.
func TestAWaveWaitsForUnprovenNodes(t *testing.T) {
	t.Parallel()
	r := start(t, 3)
	r.Threshold = 3
	first := r.Nodes[0].ID
	unproven := rollout.Unproven{NodeID: first, Attempt: 1, Is: true}
	r = do(t, r, time.Minute, unproven)
	if r = do(t, r, 59*time.Minute, rollout.Tick{}); r.Status != rollout.Running || r.Count(rollout.NodeUnproven) != 1 || r.Wave != 0 {
		t.Fatalf("before the limit: %+v", r)
	}
	if kept := do(t, r, 59*time.Minute, rollout.Outcome{NodeID: first, Attempt: 1, State: rollout.NodeUpdated}); kept.Status != rollout.Settling {
		t.Errorf("kept before the limit: %s", kept.Status)
	}
	if over := do(t, r, 59*time.Minute, rollout.Outcome{NodeID: first, Attempt: 1, State: rollout.NodeSkipped}); over.Status != rollout.Settling || over.Count(rollout.NodeSkipped) != 1 {
		t.Errorf("superseded: %+v", over)
	}
	r = do(t, r, time.Hour, rollout.Tick{})
	if want := "1 node unproven (" + first + ") in wave 1 of 3"; r.Status != rollout.Paused || r.PauseReason() != want || r.Count(rollout.NodeFailed) != 0 {
		t.Fatalf("at the limit: %s, %q", r.Status, r.PauseReason())
	}
	resumed := do(t, r, 61*time.Minute, rollout.Resume{}, unproven)
	if resumed.Status != rollout.Settling || resumed.Count(rollout.NodeUnproven) != 1 {
		t.Errorf("resumed: %s", resumed.Status)
	}
	resumed.Threshold = 1
	if bad := do(t, resumed, 62*time.Minute, rollout.Outcome{NodeID: first, Attempt: 1, State: rollout.NodeRolledBack}); bad.Status != rollout.Paused {
		t.Errorf("rolled back later: %s", bad.Status)
	}
	if good := do(t, resumed, 62*time.Minute, rollout.Outcome{NodeID: first, Attempt: 1, State: rollout.NodeUpdated}); good.Count(rollout.NodeUpdated) != 1 {
		t.Errorf("kept later: %+v", good)
	}
	// One whose time limit was over before it reported so is unproven as well.
	late := do(t, start(t, 3), 2*time.Hour, rollout.Tick{}, rollout.Unproven{NodeID: first, Attempt: 1, Is: true})
	if late.Count(rollout.NodeUnproven) != 1 || late.Status != rollout.Paused {
		t.Errorf("reported late: %+v", late)
	}
}

// An unproven node past the time limit, of which an operator knows, is still watched: it
// falls when it runs another version, and nothing else makes it fall or updated.
func TestAnUnprovenNodeThatRunsAnotherVersion(t *testing.T) {
	t.Parallel()
	r := start(t, 3)
	first := r.Nodes[0].ID
	unproven := rollout.Unproven{NodeID: first, Attempt: 1, Is: true}
	other := rollout.Condition{NodeID: first, Attempt: 1, Code: rollout.OtherVersion}
	early := do(t, r, time.Minute, unproven, other)
	if early.Status != rollout.Running || early.Count(rollout.NodeUnproven) != 1 {
		t.Errorf("before the limit: %+v", early)
	}
	r = do(t, r, time.Minute, unproven)
	r = do(t, r, time.Hour, rollout.Tick{}, rollout.Resume{})
	for _, code := range []string{"", rollout.Vanished, rollout.Degraded} {
		if r := do(t, r, 61*time.Minute, rollout.Condition{NodeID: first, Attempt: 1, Code: code}); r.Status != rollout.Settling || r.Count(rollout.NodeUnproven) != 1 {
			t.Errorf("%q: %+v", code, r)
		}
	}
	r = do(t, r, 61*time.Minute, other)
	if want := "1 node running another version again (" + first + ") in wave 1 of 3"; r.Status != rollout.Paused || r.PauseReason() != want {
		t.Errorf("%s, %q, want %q", r.Status, r.PauseReason(), want)
	}
	if back := do(t, r, 62*time.Minute, unproven, rollout.Condition{NodeID: first, Attempt: 1}); back.Count(rollout.NodeUnproven) != 1 {
		t.Errorf("when it runs the version again: %+v", back)
	}
	if newer := do(t, r, 62*time.Minute, rollout.Outcome{NodeID: first, Attempt: 1, State: rollout.NodeSkipped}); newer.Count(rollout.NodeSkipped) != 1 {
		t.Errorf("when a newer version took its place: %+v", newer)
	}
}

// No limit, settle window or lifetime runs while no manager runs.
func TestLimitsDoNotRunInAnOutage(t *testing.T) {
	t.Parallel()
	at := func(d time.Duration) time.Time { return begin.Add(d) }
	outage := rollout.Outages{{Began: at(30 * time.Minute), Ended: at(3 * time.Hour)}}

	r := start(t, 2)
	r.Outages = outage
	if next, ok := r.NextTick(); !ok || !next.Equal(at(3*time.Hour+30*time.Minute)) {
		t.Errorf("the limit ends at %v", next)
	}
	if r := do(t, r, 3*time.Hour+29*time.Minute, rollout.Tick{}); r.Status != rollout.Running {
		t.Errorf("before the limit: %s, %q", r.Status, r.PauseReason())
	}
	if r := do(t, r, 3*time.Hour+30*time.Minute, rollout.Tick{}); r.Status != rollout.Paused || r.Nodes[0].Code != rollout.TimeLimit {
		t.Errorf("at the limit: %s", r.Status)
	}

	r = do(t, start(t, 2), 25*time.Minute, rollout.Outcome{NodeID: start(t, 2).Nodes[0].ID, Attempt: 1, State: rollout.NodeUpdated})
	r.Outages = outage
	if want := at(3*time.Hour + 5*time.Minute); !r.SettleEnd().Equal(want) {
		t.Errorf("the settle window ends at %v, want %v", r.SettleEnd(), want)
	}
	if r := do(t, r, 3*time.Hour+4*time.Minute, rollout.Tick{}); r.Wave != 0 {
		t.Error("the next wave begins early")
	}
	if r := do(t, r, 3*time.Hour+5*time.Minute, rollout.Tick{}); r.Wave != 1 {
		t.Error("the next wave does not begin")
	}
}

// A clock that was a year ahead when a limit, a settle window or a lifetime began, and was
// corrected: each runs from the correction.
func TestLimitsAfterTheClockWasSetBack(t *testing.T) {
	t.Parallel()
	const year = 365 * 24 * time.Hour
	begins := func() rollout.Rollout {
		r, _, err := rollout.New(rollout.Plan{ID: "r", Version: "1.1.0", Settle: 10 * time.Minute}, []string{"n0", "n1"}, map[string]bool{"n0": true, "n1": true}, begin.Add(year))
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	for _, tt := range []struct {
		name   string
		limit  time.Duration
		before []rollout.Event // a year ahead
		is     func(r rollout.Rollout) bool
	}{
		{"limit of a node", rollout.DefaultLimit, nil, func(r rollout.Rollout) bool {
			return r.Status == rollout.Paused && r.Count(rollout.NodeFailed) == 1
		}},
		{"settle window", 10 * time.Minute, []rollout.Event{rollout.Outcome{NodeID: begins().Nodes[0].ID, Attempt: 1, State: rollout.NodeUpdated}},
			func(r rollout.Rollout) bool { return r.Wave == 1 }},
		{"lifetime", rollout.DefaultLife, []rollout.Event{rollout.Outcome{NodeID: begins().Nodes[0].ID, Attempt: 1, State: rollout.NodeUpdated}, rollout.Presence{NodeID: begins().Nodes[1].ID}},
			func(r rollout.Rollout) bool { return r.Status == rollout.Completed }},
	} {
		r := do(t, begins(), year+time.Minute, tt.before...)
		r = do(t, r, time.Hour, rollout.Tick{}) // corrected
		if r = do(t, r, time.Hour+tt.limit-time.Second, rollout.Tick{}); tt.is(r) {
			t.Errorf("%s: over early: %+v", tt.name, r)
		}
		if r = do(t, r, time.Hour+tt.limit, rollout.Tick{}, rollout.Tick{}); !tt.is(r) {
			t.Errorf("%s: does not end: %+v", tt.name, r)
		}
	}
}

func TestOutages(t *testing.T) {
	t.Parallel()
	at := func(minute int) time.Time { return begin.Add(time.Duration(minute) * time.Minute) }
	o := rollout.Outages{{Began: at(10), Ended: at(20)}, {Began: at(30), Ended: at(40)}}
	for _, tt := range []struct{ from, to, elapsed int }{
		{0, 5, 5}, {0, 10, 10}, {0, 15, 10}, {0, 20, 10}, {0, 25, 15}, {15, 25, 5}, {12, 18, 0}, {0, 50, 30}, {20, 30, 10}, {45, 50, 5}, {35, 41, 1},
	} {
		if got := o.Elapsed(at(tt.from), at(tt.to)); got != time.Duration(tt.elapsed)*time.Minute {
			t.Errorf("from %d to %d: %v", tt.from, tt.to, got)
		}
	}
	for _, tt := range []struct{ from, d, end int }{
		{0, 5, 5}, {0, 10, 10}, {0, 11, 21}, {0, 20, 30}, {0, 21, 41}, {15, 5, 25}, {50, 5, 55}, {10, 1, 21}, {20, 10, 30},
	} {
		end := o.After(at(tt.from), time.Duration(tt.d)*time.Minute)
		if !end.Equal(at(tt.end)) {
			t.Errorf("%d minutes after %d: %v", tt.d, tt.from, end)
		}
		if got := o.Elapsed(at(tt.from), end); got != time.Duration(tt.d)*time.Minute {
			t.Errorf("from %d to %v: %v", tt.from, end, got)
		}
	}
	for _, tt := range []struct{ longest, want time.Duration }{{0, 2 * time.Minute}, {time.Minute, 2 * time.Minute}, {time.Hour, 2 * time.Hour}} {
		if got := rollout.Patience(rollout.DefaultPatience, tt.longest); got != tt.want {
			t.Errorf("after %v: %v", tt.longest, got)
		}
	}
}
