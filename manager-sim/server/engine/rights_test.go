package engine_test

import (
	"encoding/json"
	"errors"
	"testing"
	"time"

	"github.com/bilbycast/edge-agent/manager-sim/rollout"
	"github.com/bilbycast/edge-agent/manager-sim/server/engine"
	"github.com/bilbycast/edge-agent/manager-sim/store"
)

// A person without the right resumes and retries nothing. The right of the person before, which
// is lost as well, does not matter: a person who has it continues, in the same step in which that
// loss would pause the rollout.
func TestWhoContinuesAfterALostRight(t *testing.T) {
	t.Parallel()
	for _, paused := range []bool{true, false} {
		s := startSite(t, false)
		s.must(s.st.RecordSent(t.Context(), s.command().ID, time.Now()))
		if paused {
			s.act(rollout.Pause{Reason: "x"})
		} else { // the node failed, and the threshold is not reached
			stored, r := s.rollout()
			r.Threshold, r.Nodes[0].State, r.Nodes[0].Code = 2, rollout.NodeFailed, "upgrade_internal"
			s.save(stored, r)
			_, err := s.st.RecordAck(t.Context(), store.Command{ID: s.command().ID, NodeID: "a", AckedAt: time.Now(), ErrorCode: "upgrade_internal"})
			s.must(err)
		}
		s.e.Rights = rights{"bob": true} // and not ann, who started it
		continues := func(by string) rollout.Event {
			if paused {
				return rollout.Resume{By: rollout.Person{Key: by, Name: by}}
			}
			return rollout.Retry{By: rollout.Person{Key: by, Name: by}}
		}
		err := s.e.Act(t.Context(), s.id, continues("eve"), "eve", entryOf("act"))
		if _, r := s.rollout(); !errors.Is(err, engine.ErrNoRight) || r.Nodes[0].State == rollout.NodeCommanded || r.Acting.Name != "ann" {
			t.Errorf("paused %t: eve: %v, %s, acting %s", paused, err, r.Nodes[0].State, r.Acting.Name)
		}
		s.act(continues("bob"))
		if _, r := s.rollout(); r.Status != rollout.Running || r.Nodes[0].State != rollout.NodeCommanded || r.Acting.Name != "bob" {
			t.Errorf("paused %t: bob: %s %q, %s, acting %s", paused, r.Status, r.Reason, r.Nodes[0].State, r.Acting.Name)
		}
	}
}

// save stores a state of the rollout.
func (s *site) save(stored store.Rollout, r rollout.Rollout) {
	s.t.Helper()
	var err error
	stored.State, err = json.Marshal(r)
	s.must(err)
	s.must(s.st.SaveRollout(s.t.Context(), stored, nil, nil))
}
