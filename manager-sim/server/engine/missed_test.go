package engine_test

import (
	"testing"
	"time"

	"github.com/bilbycast/edge-agent/manager-sim/rollout"
	"github.com/bilbycast/edge-agent/manager-sim/store"
	"github.com/bilbycast/edge-agent/wire"
)

// The rollout ended without a node whose command was held or withdrawn. The node obeyed that
// command all the same: the outcome is recorded, and the result counts the node no more.
func TestALateOutcomeOfAMissedNode(t *testing.T) {
	t.Parallel()
	for code, want := range map[string]rollout.NodeState{"upgrade_completed": rollout.NodeUpdated, "upgrade_rolled_back": rollout.NodeRolledBack, "upgrade_superseded": rollout.NodeSkipped} {
		for _, withdraws := range []bool{true, false} {
			s := startSite(t, withdraws)
			s.must(s.st.RecordSent(t.Context(), s.command().ID, time.Now()))
			s.act(rollout.Pause{Reason: "x"})
			s.fleet.online["a"] = false
			s.age(true)
			s.act(rollout.Resume{By: rollout.Person{Key: "ann", Name: "ann"}})
			if _, r := s.rollout(); r.Status != rollout.Completed || r.Nodes[0].State != rollout.NodeMissed || r.Result() != "ended: 1 node never came" {
				t.Fatalf("%s: %s %s %q", code, r.Status, r.Nodes[0].State, r.Result())
			}
			s.event("upgrade_started")
			s.event(code)
			if code == "upgrade_completed" {
				s.must(s.st.RecordHealth(t.Context(), store.Node{ID: "a", Version: "1.1.0", LastSeen: time.Now(), Health: wire.StatusOK}))
			}
			s.e.NodeChanged("a")
			s.must(s.e.Step(t.Context()))
			if _, r := s.rollout(); r.Nodes[0].State != want || r.Status != rollout.Completed || r.Result() != "completed" {
				t.Errorf("%s, withdraws %t: %s %s, %q; want %s", code, withdraws, r.Status, r.Nodes[0].State, r.Result(), want)
			}
		}
	}
}
