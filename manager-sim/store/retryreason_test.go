package store_test

import (
	"testing"
	"time"

	"github.com/bilbycast/edge-agent/manager-sim/api"
	"github.com/bilbycast/edge-agent/manager-sim/rollout"
	"github.com/bilbycast/edge-agent/manager-sim/store"
)

// A withdrawal keeps its own reason if a new command of the node is stored with it.
func TestTheReasonOfARetry(t *testing.T) { each(t, testReasonOfRetry) }

func testReasonOfRetry(t *testing.T, path string) {
	d := newDesk(t, path)
	ctx, st := t.Context(), d.st
	d.add(t, "n", "g")
	nodes, err := st.GroupNodes(ctx, "g")
	must(t, err)
	plan, err := d.e.Schedule(ctx, api.Group{ID: "g"}, nodes, api.RolloutRequest{Version: "1.3.0"}, rollout.Person{Key: "ann", Name: "ann"})
	must(t, err)
	stored, err := st.Rollout(ctx, plan.RolloutID)
	must(t, err)
	cs, err := st.Commands(ctx, "n", 1)
	must(t, err)
	must(t, st.RecordSent(ctx, cs[0].ID, time.Now()))
	stored.Changes = []store.CommandChange{{ID: cs[0].ID, State: store.CommandWithdrawn, At: time.Now(), By: "ann", Reason: store.ReasonRetry}}
	must(t, st.SaveRollout(ctx, stored, []store.Command{{ID: "new", NodeID: "n", Version: "1.3.0", Action: []byte("{}"), CreatedAt: time.Now(), Actor: "ann", RolloutID: stored.ID}}, nil))
	old, err := st.Command(ctx, cs[0].ID)
	must(t, err)
	next, err := st.Command(ctx, "new")
	must(t, err)
	if old.State != store.CommandWithdrawn || old.Reason != store.ReasonRetry || next.State != store.CommandPending {
		t.Errorf("%s %s, then %s", old.State, old.Reason, next.State)
	}
}
