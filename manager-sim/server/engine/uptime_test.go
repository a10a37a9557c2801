package engine_test

import (
	"context"
	"encoding/json"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/bilbycast/edge-agent/manager-sim/api"
	"github.com/bilbycast/edge-agent/manager-sim/rollout"
	"github.com/bilbycast/edge-agent/manager-sim/server/engine"
	"github.com/bilbycast/edge-agent/manager-sim/store"
)

// machine is a machine whose wall clock is set, and which is booted again.
type machine struct {
	t    *testing.T
	st   *store.Store
	wall time.Time
	boot engine.Boot
	c    *engine.Clock
}

func newMachine(t *testing.T) *machine {
	t.Helper()
	st, err := store.Open(t.Context(), filepath.Join(t.TempDir(), "clock"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { st.Close() })
	return &machine{t: t, st: st, wall: time.Now(), boot: engine.Boot{ID: "one", Since: time.Hour}}
}

func (m *machine) start() {
	m.t.Helper()
	var err error
	if m.c, err = engine.StartClockAt(m.t.Context(), m.st, m.wall, func() engine.Boot { return m.boot }); err != nil {
		m.t.Fatal(err)
	}
}

// passes lets time pass; jump is how far the wall clock is set meanwhile.
func (m *machine) passes(d, jump time.Duration) {
	m.wall, m.boot.Since = m.wall.Add(d+jump), m.boot.Since+d
}

// beats is passes in a manager that runs.
func (m *machine) beats(d, jump time.Duration) {
	m.t.Helper()
	m.passes(d, jump)
	if err := m.c.Beat(m.t.Context(), m.wall); err != nil {
		m.t.Fatal(err)
	}
}

func (m *machine) jumped(what string, want bool) {
	m.t.Helper()
	j := m.c.Jump()
	if (j != nil) != want {
		m.t.Errorf("%s: %+v", what, j)
	}
	m.c.ForgetJump(j)
}

// The wall clock is compared with one that nobody sets, while the manager runs and across its
// restarts. A clock that is set at boot does not jump.
func TestJumps(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	m.start()
	m.jumped("the first start", false)
	m.beats(5*time.Second, 0)
	m.beats(5*time.Second, 50*time.Second)
	m.jumped("a small correction", false)
	m.beats(5*time.Second, time.Hour)
	m.jumped("an hour ahead", true)
	m.beats(5*time.Second, -time.Hour)
	m.jumped("set back", true)
	m.beats(3*time.Hour, 0)
	m.jumped("the machine was suspended", false)
	m.passes(2*time.Hour, 0)
	m.start()
	m.jumped("the manager was stopped for two hours", false)
	m.passes(time.Minute, 2*time.Hour)
	m.start()
	if j := m.c.Jump(); j == nil || !j.Start || !strings.Contains(j.Reason(), "jumped by +7200 s while no manager ran") {
		t.Errorf("a jump while no manager ran: %+v", j)
	}
	m.jumped("a jump while no manager ran", true)
	// The machine has no battery: after a boot its clock begins in 1970, and is set later.
	right := m.wall
	m.boot, m.wall = engine.Boot{ID: "two", Since: 10 * time.Second}, time.Unix(20, 0)
	m.start()
	m.jumped("a clock that is not set", false)
	m.beats(5*time.Second, 0)
	m.beats(5*time.Second, right.Sub(m.wall))
	m.jumped("a clock that is set at boot", false)
	m.beats(5*time.Second, time.Hour)
	m.jumped("a jump afterwards", true)
	m.boot.ID = ""
	m.beats(5*time.Second, time.Hour)
	m.jumped("no boot is known", false)
}

// The uptime is summed over restarts. Neither a jump, nor the time without beats, nor the time
// without a manager adds to it.
func TestUptimeIsSummed(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	m.start()
	began := m.c.Uptime(m.wall).Sum
	if began <= 0 {
		t.Error("the uptime is not known")
	}
	for range 6 {
		m.beats(5*time.Second, 0)
	}
	m.passes(time.Hour, 0)
	m.start()
	for range 6 {
		m.beats(5*time.Second, 0)
	}
	if got := m.c.Uptime(m.wall).Sum - began; (got - time.Minute).Abs() > time.Second {
		t.Errorf("an uptime of %v, want a minute", got)
	}
	m.beats(time.Hour, 0) // the database did not answer
	if got := m.c.Uptime(m.wall).Sum - began; got > 76*time.Second {
		t.Errorf("an uptime of %v after an hour without beats", got)
	}
}

// A jump pauses the rollouts that run, with the reason; nothing else moves them.
func TestAJumpPauses(t *testing.T) {
	t.Parallel()
	e, st, f := start(t, "a")
	m := &machine{t: t, st: st, wall: time.Now().Add(-time.Minute), boot: engine.Boot{ID: "one", Since: time.Hour}}
	m.start()
	e.Clock = m.c
	f.online["a"] = true
	nodes, err := st.GroupNodes(t.Context(), "g")
	if err != nil {
		t.Fatal(err)
	}
	plan, err := e.Schedule(t.Context(), api.Group{ID: "g"}, nodes, api.RolloutRequest{Version: "1.1.0"}, rollout.Person{Key: "ann", Name: "ann"})
	if err != nil {
		t.Fatal(err)
	}
	m.beats(5*time.Second, -time.Hour)
	ctx, stop := context.WithCancel(t.Context())
	ran := make(chan struct{})
	go func() { e.Run(ctx); close(ran) }()
	defer func() { stop(); <-ran }()
	for end := time.Now().Add(30 * time.Second); ; time.Sleep(time.Millisecond) {
		stored, err := st.Rollout(t.Context(), plan.RolloutID)
		var r rollout.Rollout
		if err == nil {
			err = json.Unmarshal(stored.State, &r)
		}
		if err != nil {
			t.Fatal(err)
		}
		if r.Status == rollout.Paused && strings.Contains(r.PauseReason(), "the clock of the manager jumped by") {
			break
		}
		if time.Now().After(end) {
			t.Fatalf("%s %q", r.Status, r.PauseReason())
		}
	}
}

// The limit of a single upgrade can be set, and begins again with the progress of the node.
func TestTheLimitOfAnUpgrade(t *testing.T) {
	t.Parallel()
	now := time.Now()
	age := func(since time.Time) time.Duration { return now.Sub(since) }
	ago := func(d time.Duration) time.Time { return now.Add(-d) }
	for name, tt := range map[string]struct {
		limit, sent, progress time.Duration
		want                  api.UpgradeState
	}{
		"the default":           {0, 59 * time.Minute, 0, api.Sent},
		"the default is over":   {0, time.Hour, 0, api.Failed},
		"a short one is over":   {time.Minute, 61 * time.Second, 0, api.Failed},
		"a long one":            {3 * time.Hour, 2 * time.Hour, 0, api.Sent},
		"progress renews":       {time.Hour, 5 * time.Hour, 59 * time.Minute, api.Sent},
		"progress that stopped": {time.Hour, 5 * time.Hour, 61 * time.Minute, api.Failed},
		"earlier progress":      {time.Hour, 61 * time.Minute, 3 * time.Hour, api.Failed},
	} {
		n := store.Node{Version: "1.0.0"}
		if tt.progress > 0 {
			n.ProgressAt = ago(tt.progress)
		}
		c := store.Command{Version: "1.1.0", Limit: tt.limit, CreatedAt: ago(tt.sent), SentAt: ago(tt.sent)}
		if got, _ := engine.StateOf(c, nil, n, age); got != tt.want {
			t.Errorf("%s: %s, want %s", name, got, tt.want)
		}
	}
}
