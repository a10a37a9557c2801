package engine_test

import (
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/bilbycast/edge-agent/manager-sim/api"
	"github.com/bilbycast/edge-agent/manager-sim/rollout"
	"github.com/bilbycast/edge-agent/manager-sim/server/engine"
	"github.com/bilbycast/edge-agent/manager-sim/store"
	"github.com/bilbycast/edge-agent/wire"
	"github.com/rs/zerolog"
)

// A restart of the manager does not make a jump one that is forgiven: only the clock of a machine
// on which no node was seen since its boot is being set.
func TestAJumpAfterARestart(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		since  time.Duration // the boot, when the manager before ran
		seen   time.Duration // how long ago the node was seen
		boots  bool          // the machine boots between the two managers
		pauses bool
	}{
		"the node was seen in this boot":                  {since: time.Hour, seen: time.Minute, pauses: true},
		"the node was seen before the boot":               {since: 10 * time.Second, seen: time.Minute},
		"the clock was wrong when the manager before ran": {since: 10 * time.Second, seen: -time.Hour},
		"the machine was booted":                          {since: time.Hour, seen: time.Minute, boots: true},
	} {
		for _, running := range []bool{true, false} {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				s := startRollout(t, "", api.RolloutRequest{}, "a")
				s.must(s.st.RecordHealth(t.Context(), store.Node{ID: "a", Version: "1.0.0", LastSeen: time.Now().Add(-tt.seen), Health: wire.StatusOK, Capabilities: []string{wire.CapabilityUpgrade}}))
				boot := engine.Boot{ID: "one", Since: tt.since}
				restart := func() *engine.Clock {
					c, err := engine.StartClockAt(t.Context(), s.st, time.Now(), func() engine.Boot { return boot })
					s.must(err)
					return c
				}
				restart()
				if tt.boots {
					boot = engine.Boot{ID: "two", Since: time.Minute}
				}
				jump := func() { boot.Since -= 2 * time.Hour } // the wall clock is ahead by that
				if !running {
					jump()
				}
				s.fleet.online["a"] = false
				s.e = engine.New(engine.Config{Store: s.st, Rollouts: s.st, Log: zerolog.Nop(), Nodes: s.fleet, CommandLock: new(sync.Mutex), Publish: func(any) {}, Clock: restart()})
				if running {
					jump()
					s.must(s.e.Clock.Stop(t.Context())) // which records a beat
				}
				s.must(s.e.Step(t.Context()))
				if r := s.state(); (r.Status == rollout.Paused) != tt.pauses || tt.pauses && !strings.Contains(r.Reason, "jumped by +7200 s") {
					t.Errorf("the manager runs %t: %s %q", running, r.Status, r.Reason)
				}
				if j := s.e.Clock.Jump(); j != nil {
					t.Errorf("it is not over: %+v", j)
				}
			})
		}
	}
}
