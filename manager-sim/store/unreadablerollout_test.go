package store_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/bilbycast/edge-agent/manager-sim/api"
	"github.com/bilbycast/edge-agent/manager-sim/rollout"
	"github.com/bilbycast/edge-agent/manager-sim/server/engine"
	"github.com/bilbycast/edge-agent/manager-sim/store"
)

// A rollout whose columns have values that this program does not write is active as long as it
// keeps others of its group out. It goes on, and can be aborted; then its commands are withdrawn.
// It stops nothing else after its end either.
func TestARolloutWithAnotherActive(t *testing.T) {
	t.Parallel()
	path := t.TempDir() + "/db" // PostgreSQL allows no such value
	d := newDesk(t, path)
	ctx, e, st := t.Context(), d.e, d.st
	d.add(t, "n", "g")
	ann := rollout.Person{Key: "ann", Name: "ann"}
	nodes, err := st.GroupNodes(ctx, "g")
	must(t, err)
	for _, active := range []string{"7", "-1"} {
		plan, err := e.Schedule(ctx, api.Group{ID: "g"}, nodes, api.RolloutRequest{Version: "1.3.0"}, ann)
		must(t, err)
		damage(t, path, "UPDATE rollouts SET active = "+active+" WHERE active", "UPDATE commands SET sent_at = -5 WHERE rollout_id = '"+plan.RolloutID+"'")
		must(t, e.Step(ctx))
		stored, err := st.Rollout(ctx, plan.RolloutID)
		must(t, err)
		if !stored.Active {
			t.Error("it is not active")
		}
		if _, err := e.Schedule(ctx, api.Group{ID: "g"}, nodes, api.RolloutRequest{Version: "1.4.0"}, ann); !errors.Is(err, store.ErrExists) {
			t.Errorf("another one: %v", err)
		}
		damage(t, path, "UPDATE rollouts SET active = "+active+" WHERE active")
		must(t, e.Act(ctx, plan.RolloutID, rollout.Abort{}, "ann", entry("abort")))
		stored, err = st.Rollout(ctx, plan.RolloutID)
		must(t, err)
		r, err := engine.Decode(stored)
		must(t, err)
		cs, err := st.Commands(ctx, "n", 1)
		must(t, err)
		if stored.Active || r.Status != rollout.Aborted || len(cs) != 1 || cs[0].State != store.CommandWithdrawn || cs[0].Reason != store.ReasonAbort {
			t.Errorf("active %t, %s, %+v", stored.Active, r.Status, cs)
		}
	}
}

// A record of an ended rollout that cannot be read does not stop the engine.
func TestAnEndedRolloutThatCannotBeRead(t *testing.T) {
	t.Parallel()
	path := t.TempDir() + "/db"
	d := newDesk(t, path)
	ctx, e, st := t.Context(), d.e, d.st
	d.add(t, "n", "g")
	nodes, err := st.GroupNodes(ctx, "g")
	must(t, err)
	plan, err := e.Schedule(ctx, api.Group{ID: "g"}, nodes, api.RolloutRequest{Version: "1.3.0"}, rollout.Person{Key: "ann", Name: "ann"})
	must(t, err)
	must(t, e.Act(ctx, plan.RolloutID, rollout.Abort{}, "ann", entry("abort")))
	// SQLite checks the types of a table unless its schema says otherwise.
	damage(t, path, "PRAGMA writable_schema = 1; UPDATE sqlite_schema SET sql = replace(sql, 'STRICT', '') WHERE name = 'rollouts'; PRAGMA writable_schema = RESET; UPDATE rollouts SET created_at = 'x'")
	if _, err := st.Rollout(ctx, plan.RolloutID); !errors.Is(err, store.ErrUnreadable) || !strings.Contains(err.Error(), plan.RolloutID) {
		t.Error(err)
	}
	e.NodeChanged("n")
	must(t, e.Step(ctx))
	if list, err := st.EndedRollouts(ctx, "n", 2); err != nil || len(list) != 0 {
		t.Errorf("%d, %v", len(list), err)
	}
}
