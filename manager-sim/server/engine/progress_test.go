package engine_test

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/bilbycast/edge-agent/manager-sim/rollout"
	"github.com/bilbycast/edge-agent/manager-sim/store"
	"github.com/bilbycast/edge-agent/wire"
)

// A node that reports since the sending that it has the version on trial, or runs it, has begun
// its command. One that reports the version as the target of an earlier upgrade, which was rolled
// back or staged, has not: every decision reaches its command.
func TestWhatANodeReportsAfterTheSending(t *testing.T) {
	t.Parallel()
	report := func(status, version, target string) *store.Node {
		up, _ := json.Marshal(wire.Upgrade{Status: status, CurrentVersion: version, TargetVersion: target, Channels: []string{"stable"}})
		return &store.Node{ID: "a", Version: version, Health: wire.StatusOK, Capabilities: []string{wire.CapabilityUpgrade}, Upgrade: up}
	}
	reports := map[string]struct {
		report *store.Node
		before bool // the command was sent
		begun  bool
	}{
		"an earlier rollback from it":                     {report: report("rolled_back", "1.0.0", "1.1.0")},
		"an earlier rollback from it, before the sending": {report: report("rolled_back", "1.0.0", "1.1.0"), before: true},
		"an earlier trial of it":                          {report: report(wire.StatusPendingHealth, "1.0.0", "1.1.0"), before: true},
		"an earlier stable target":                        {report: report("stable", "1.0.0", "1.1.0")},
		"it waits for an operator since earlier":          {report: report("staged_manual", "1.0.0", "1.1.0")},
		"a trial of another version":                      {report: report(wire.StatusPendingHealth, "1.2.0", "1.2.0")},
		"its trial":                                       {report: report(wire.StatusPendingHealth, "1.0.0", "1.1.0"), begun: true},
	}
	decisions := map[string]struct {
		decide func(*site)
		state  store.CommandState
	}{
		"pause":      {func(s *site) { s.act(rollout.Pause{Reason: "x"}) }, store.CommandHeld},
		"skip":       {func(s *site) { s.act(rollout.Skip{NodeID: "a"}) }, store.CommandWithdrawn},
		"abort":      {func(s *site) { s.act(rollout.Abort{}) }, store.CommandWithdrawn},
		"time limit": {func(s *site) { s.age(false); s.must(s.e.Step(s.t.Context())) }, store.CommandWithdrawn},
		"lost right": {func(s *site) { s.rights(scoped{}); s.must(s.e.Step(s.t.Context())) }, store.CommandHeld},
	}
	for reported, r := range reports {
		for what, d := range decisions {
			t.Run(reported+", "+what, func(t *testing.T) {
				t.Parallel()
				s := startSite(t, false)
				sent := time.Now()
				n := *r.report
				if n.LastSeen = sent.Add(time.Second); r.before {
					n.LastSeen = sent.Add(-time.Second)
				}
				s.must(s.st.RecordSent(t.Context(), s.command().ID, sent))
				s.must(s.st.RecordHealth(t.Context(), n))
				d.decide(s)
				c, ro := s.command(), s.state()
				if what == "abort" && r.begun {
					return // its withdrawal comes too late; only an event of the node keeps the manager from trying
				}
				if reached := c.State == d.state; reached == r.begun {
					t.Errorf("the command is %s, want %s: %t; the rollout is %s (%s), the node %s", c.State, d.state, !r.begun, ro.Status, ro.Reason, ro.Nodes[0].State)
				}
			})
		}
	}
}
