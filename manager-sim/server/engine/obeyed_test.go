package engine_test

import (
	"testing"
	"time"

	"github.com/bilbycast/edge-agent/manager-sim/api"
	"github.com/bilbycast/edge-agent/manager-sim/rollout"
	"github.com/bilbycast/edge-agent/manager-sim/store"
	"github.com/bilbycast/edge-agent/wire"
)

// A command that the node obeyed the withdrawal of has not begun, also if the node comes to run
// its version in another way. When the rollout resumes, the node counts as updated.
func TestAnObeyedWithdrawalIsNotBegun(t *testing.T) {
	t.Parallel()
	s := startRollout(t, "", api.RolloutRequest{}, "a")
	s.must(s.st.RecordConnect(t.Context(), "a", "1.0.0", "192.0.2.1", time.Now(), wire.FeatureWithdraw))
	c := s.newest("a")
	s.must(s.st.RecordSent(t.Context(), c.ID, time.Now()))
	s.act(rollout.Pause{Reason: "x"})
	_, err := s.st.RecordAck(t.Context(), store.Command{ID: c.ID, NodeID: "a", AckedAt: time.Now(), ErrorCode: "upgrade_withdrawn"})
	s.must(err)
	s.health("a", "1.1.0", "")
	s.must(s.e.Step(t.Context()))
	if n := s.state().Nodes[0]; n.State != rollout.NodeWaiting || n.Hold != rollout.Recalled {
		t.Errorf("paused: %+v", n)
	}
	s.act(rollout.Resume{By: rollout.Person{Key: "ann", Name: "ann"}})
	if r := s.state(); r.Status != rollout.Completed || r.Nodes[0].State != rollout.NodeUpdated {
		t.Errorf("resumed: %s, %+v", r.Status, r.Nodes[0])
	}
}
