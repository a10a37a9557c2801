package engine_test

import (
	"testing"
	"time"

	"github.com/bilbycast/edge-agent/manager-sim/api"
	"github.com/bilbycast/edge-agent/manager-sim/rollout"
	"github.com/bilbycast/edge-agent/manager-sim/store"
)

// A node that has just moved takes part in the rollout of its new group, although the rollout of
// the old group has not looked at it since: whether it waited there, got a command that was not
// sent, or has not begun one that was. It gets one command.
func TestANodeThatJustMovedTakesPart(t *testing.T) {
	t.Parallel()
	for _, before := range []string{"waiting", "not sent", "sent"} {
		s := startSite(t, false)
		old := s.command()
		switch before {
		case "waiting":
			s.act(rollout.Pause{Reason: "x"})
		case "sent":
			s.must(s.st.RecordSent(t.Context(), old.ID, time.Now()))
		}
		s.must(s.st.SetGroup(t.Context(), "a", "h", entryOf("move")))
		nodes, err := s.st.GroupNodes(t.Context(), "h")
		s.must(err)
		plan, err := s.e.Schedule(t.Context(), api.Group{ID: "h"}, nodes, api.RolloutRequest{Version: "1.3.0"}, rollout.Person{Key: "ann", Name: "ann"})
		if err != nil || plan.NodeCount != 1 || len(plan.LeftOut) > 0 {
			t.Errorf("%s: %+v, %v", before, plan, err)
			continue
		}
		s.must(s.e.Step(t.Context()))
		s.must(s.e.Step(t.Context()))
		if n := s.state().Nodes[0]; n.State != rollout.NodeSkipped || n.Code != rollout.Moved {
			t.Errorf("%s: the rollout of the old group: %+v", before, n)
		}
		if c := s.newest("a"); c.RolloutID != plan.RolloutID || c.State != store.CommandPending {
			t.Errorf("%s: its newest command is of %s, %s", before, c.RolloutID, c.State)
		}
		if c, err := s.st.Command(t.Context(), old.ID); err != nil || c.State != store.CommandWithdrawn {
			t.Errorf("%s: the command of the old group is %s, %v", before, c.State, err)
		}
	}
}
