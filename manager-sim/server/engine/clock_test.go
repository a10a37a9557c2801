package engine_test

import (
	"database/sql"
	"encoding/json"
	"path/filepath"
	"testing"
	"time"

	"github.com/bilbycast/edge-agent/manager-sim/api"
	"github.com/bilbycast/edge-agent/manager-sim/rollout"
	"github.com/bilbycast/edge-agent/manager-sim/server/engine"
	"github.com/bilbycast/edge-agent/manager-sim/store"
)

// clock returns a Clock over a new store whose last beats were at those times from now.
func clock(t *testing.T, beats ...time.Duration) *engine.Clock {
	t.Helper()
	st, err := store.Open(t.Context(), filepath.Join(t.TempDir(), "clock"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { st.Close() })
	c, err := engine.StartClock(t.Context(), st)
	if err != nil {
		t.Fatal(err)
	}
	for _, b := range beats {
		if err := c.Beat(t.Context(), time.Now().Add(b)); err != nil {
			t.Fatal(err)
		}
	}
	return c
}

// No time limit runs since the last beat if that is too old: the machine was suspended, or
// the database did not answer.
func TestAgeWithoutBeats(t *testing.T) {
	t.Parallel()
	for beat, want := range map[time.Duration]time.Duration{-75 * time.Second: 45 * time.Second, -10 * time.Second: 2 * time.Minute} {
		c := clock(t, beat)
		if age := c.Age(time.Now().Add(-2 * time.Minute)); (age - want).Abs() > 5*time.Second {
			t.Errorf("last beat %v ago: an age of %v, want %v", -beat, age, want)
		}
		if err := c.Beat(t.Context(), time.Now()); err != nil {
			t.Fatal(err)
		}
		if age := c.Age(time.Now().Add(-2 * time.Minute)); (age - want).Abs() > 5*time.Second {
			t.Errorf("last beat %v ago, and another one: an age of %v, want %v", -beat, age, want)
		}
	}
}

// A stored time in the future was stored before the clock was set back: it counts from the
// correction, or from now while that is not noticed.
func TestTimesOfTheFuture(t *testing.T) {
	t.Parallel()
	const year = 365 * 24 * time.Hour
	for name, tt := range map[string]struct {
		c     *engine.Clock
		since time.Duration // from now
		want  time.Duration
	}{
		"corrected a minute ago":              {clock(t, year, -time.Minute, -50*time.Second, -40*time.Second, -30*time.Second, -20*time.Second, -10*time.Second), year / 2, time.Minute},
		"corrected now, and not noticed yet":  {clock(t, year), year / 2, 0},
		"by so little that it is not noticed": {clock(t, -time.Minute, -50*time.Second, -40*time.Second, -30*time.Second, -20*time.Second, -10*time.Second, 0), 3 * time.Second, 0},
		"no clock":                            {nil, year, 0},
	} {
		if age := tt.c.Age(time.Now().Add(tt.since)); (age - tt.want).Abs() > 5*time.Second {
			t.Errorf("%s: an age of %v, want %v", name, age, tt.want)
		}
	}
	c := clock(t, year, -time.Minute)
	at := func(d time.Duration) time.Time { return time.Now().Add(d) }
	for _, tt := range []struct {
		t, u  time.Time
		after bool
	}{
		{at(-time.Second), at(-2 * time.Second), true}, {at(-2 * time.Second), at(-time.Second), false},
		{at(-time.Second), at(year / 2), true},      // stored after the correction
		{at(-2 * time.Minute), at(year / 2), false}, // and before the clock was ahead
		{at(year / 2), at(year / 3), true}, {at(year / 3), at(year / 2), false},
	} {
		if got := c.After(tt.t, tt.u); got != tt.after {
			t.Errorf("%v after %v: %t", tt.t, tt.u, got)
		}
	}
}

// The database does not answer for longer than the limit of a node: the limit does not run
// meanwhile, also for the transition that waited for the database.
func TestALimitWhileTheDatabaseHangs(t *testing.T) {
	t.Parallel()
	for beat, want := range map[time.Duration]rollout.NodeState{-75 * time.Second: rollout.NodeCommanded, 0: rollout.NodeFailed} {
		e, st, f := start(t, "a")
		e.Clock = clock(t, beat)
		f.online["a"] = true
		nodes, err := st.GroupNodes(t.Context(), "g")
		if err != nil {
			t.Fatal(err)
		}
		plan, err := e.Schedule(t.Context(), api.Group{ID: "g"}, nodes, api.RolloutRequest{Version: "1.1.0", LimitSecs: 60}, rollout.Person{Name: "ann"})
		if err != nil {
			t.Fatal(err)
		}
		rolloutIs := func() (stored store.Rollout, r rollout.Rollout) {
			t.Helper()
			if stored, err = st.Rollout(t.Context(), plan.RolloutID); err == nil {
				err = json.Unmarshal(stored.State, &r)
			}
			if err != nil {
				t.Fatal(err)
			}
			return stored, r
		}
		stored, r := rolloutIs()
		begun := api.Event{EventID: "e", NodeID: "a", CommandID: r.CommandID(r.Nodes[0]), Time: time.Now(), ReceivedAt: time.Now(), Severity: "info", Category: "upgrade", ErrorCode: "upgrade_started", Details: []byte("{}")}
		if _, err := st.AddEvent(t.Context(), &begun); err != nil {
			t.Fatal(err)
		}
		r.Nodes[0].Since, r.Nodes[0].SinceUp = time.Now().Add(-80*time.Second), 0 // as in the state of an earlier version
		if stored.State, err = json.Marshal(r); err != nil {
			t.Fatal(err)
		}
		if err := st.SaveRollout(t.Context(), stored, nil, nil); err != nil {
			t.Fatal(err)
		}
		if err := e.Act(t.Context(), plan.RolloutID, rollout.Pause{}, "ann", store.NewAuditEntry(time.Now(), "ann", "test", "", nil)); err != nil {
			t.Fatal(err)
		}
		if _, r := rolloutIs(); r.Nodes[0].State != want {
			t.Errorf("last beat %v ago: %s, want %s", -beat, r.Nodes[0].State, want)
		}
	}
}

// While the store is away no beat is stored, although a part of the database still works: no time
// limit runs.
func TestNoBeatWhileTheStoreIsAway(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "clock")
	st, err := store.Open(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	defer st.Close()
	now := time.Now()
	c, err := engine.StartClockAt(t.Context(), st, now.Add(-time.Minute), func() engine.Boot { return engine.Boot{} })
	if err != nil {
		t.Fatal(err)
	}
	db, err := sql.Open("sqlite", path)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	for _, name := range [][2]string{{"events", "elsewhere"}, {"elsewhere", "events"}} {
		if _, err := db.ExecContext(t.Context(), "ALTER TABLE "+name[0]+" RENAME TO "+name[1]); err != nil {
			t.Fatal(err)
		}
		if name[1] == "elsewhere" {
			if _, err := st.AddEvent(t.Context(), &api.Event{NodeID: "n"}); !store.Unavailable(err) {
				t.Fatalf("got %v", err)
			}
			if err := c.Beat(t.Context(), now); err == nil {
				t.Error("a beat is stored while the store is away")
			}
			if age := c.Age(now.Add(-2 * time.Minute)); age > 70*time.Second {
				t.Errorf("an age of %v", age)
			}
		}
	}
	<-st.Back()
	if err := c.Beat(t.Context(), now); err != nil {
		t.Error(err)
	}
}
