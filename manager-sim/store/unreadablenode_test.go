package store_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/bilbycast/edge-agent/manager-sim/api"
	"github.com/bilbycast/edge-agent/manager-sim/rollout"
	"github.com/bilbycast/edge-agent/manager-sim/server/engine"
	"github.com/bilbycast/edge-agent/manager-sim/store"
)

// A node whose record cannot be read gets no command, and stops no decision about the other
// nodes of its rollout. It can be moved and removed.
func TestARolloutWithAnUnreadableNode(t *testing.T) { each(t, testRolloutWithUnreadableNode) }

func testRolloutWithUnreadableNode(t *testing.T, path string) {
	d := newDesk(t, path)
	ctx, e, st := t.Context(), d.e, d.st
	d.add(t, "bad", "g")
	d.add(t, "good", "g2")
	must(t, st.SetGroup(ctx, "good", "g", entry("group")))
	nodes, err := st.GroupNodes(ctx, "g")
	must(t, err)
	plan, err := e.Schedule(ctx, api.Group{ID: "g"}, nodes, api.RolloutRequest{Version: "1.3.0", Strategy: rollout.Immediate}, rollout.Person{Key: "ann", Name: "ann"})
	must(t, err)
	damage(t, path, "UPDATE nodes SET features = 'nope' WHERE id = 'bad'")
	if s, err := st.NodeScope(ctx, "bad"); err != nil || s.GroupID != "g" || !s.RemovedAt.IsZero() {
		t.Errorf("%+v, %v", s, err)
	}
	read := func() rollout.Rollout {
		t.Helper()
		stored, err := st.Rollout(ctx, plan.RolloutID)
		must(t, err)
		r, err := engine.Decode(stored)
		must(t, err)
		return r
	}
	must(t, e.Act(ctx, plan.RolloutID, rollout.Pause{Reason: "x"}, "ann", entry("pause")))
	must(t, e.Act(ctx, plan.RolloutID, rollout.Resume{By: rollout.Person{Key: "ann", Name: "ann"}}, "ann", entry("resume")))
	for _, n := range read().Nodes {
		if want := map[string]rollout.NodeState{"good": rollout.NodeCommanded, "bad": rollout.NodeWaiting}[n.ID]; n.State != want {
			t.Errorf("%+v", n)
		}
	}
	must(t, e.Step(ctx)) // which looks for the outcome of its command
	if r := read(); r.Status != rollout.Paused || !strings.Contains(r.Reason, `node "bad": its record cannot be read`) {
		t.Errorf("%s: %s", r.Status, r.Reason)
	}
	must(t, st.SetGroup(ctx, "bad", "", entry("group")))
	must(t, e.Step(ctx))
	for _, n := range read().Nodes {
		if skipped := n.State == rollout.NodeSkipped; skipped != (n.ID == "bad") {
			t.Errorf("%+v", n)
		}
	}
	must(t, st.RemoveNode(ctx, "bad", time.Now(), entry("remove")))
	if n, err := st.Node(ctx, "bad"); err != nil || n.RemovedAt.IsZero() {
		t.Errorf("%+v, %v", n, err)
	}
	if _, err := st.NodeScope(ctx, "other"); !errors.Is(err, store.ErrNotFound) {
		t.Error(err)
	}
}
