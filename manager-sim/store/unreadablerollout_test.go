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

// Whatever the columns of a rollout have, it stops nothing else, and it can be aborted: its commands
// are withdrawn, and its group is free.
func TestARolloutWithDamagedColumns(t *testing.T) {
	t.Parallel()
	for _, damaged := range []string{
		"created_at = 'x'", "created_at = NULL", "created_at = x'00ff'", "created_at = 1e300",
		"revision = 'x'", "revision = NULL", "revision = x'00ff'", "revision = 1e300",
		"active = '1x'", "active = 0.5", "active = x'31'",
		"group_id = x'6700'", "group_id = NULL", "group_id = 7",
		"state = x'00ff'", "state = NULL", "state = 7", "state = '{}'", "state = replace(state, '1.3.0', '')",
	} {
		t.Run(damaged, func(t *testing.T) {
			t.Parallel()
			path := t.TempDir() + "/db" // PostgreSQL's columns allow none of these values
			d := newDesk(t, path)
			ctx, e, st := t.Context(), d.e, d.st
			ann := rollout.Person{Key: "ann", Name: "ann"}
			schedule := func(node, group string) string {
				d.add(t, node, group)
				nodes, err := st.GroupNodes(ctx, group)
				must(t, err)
				plan, err := e.Schedule(ctx, api.Group{ID: group}, nodes, api.RolloutRequest{Version: "1.3.0"}, ann)
				must(t, err)
				return plan.RolloutID
			}
			id := schedule("n", "g")
			// SQLite checks the types of a table unless its schema says otherwise.
			damage(t, path, "PRAGMA writable_schema = 1; UPDATE sqlite_schema SET sql = replace(replace(sql, 'STRICT', ''), 'NOT NULL', '') WHERE name = 'rollouts'; PRAGMA writable_schema = RESET; PRAGMA schema_version = 1000; UPDATE rollouts SET "+damaged+" WHERE id = '"+id+"'")
			other := schedule("m", "h")
			e.NodeChanged("n")
			must(t, e.Step(ctx))
			if cs, err := st.Commands(ctx, "m", 1); err != nil || len(cs) != 1 || cs[0].RolloutID != other {
				t.Errorf("the other rollout: %+v, %v", cs, err)
			}
			if list, err := st.Rollouts(ctx, "", false, -1); err != nil || len(list) != 2 {
				t.Errorf("%d rollouts, %v", len(list), err)
			}
			// Without its group it has ended by itself: the node is in another one.
			if err := e.Act(ctx, id, rollout.Abort{}, "ann", entry("abort")); err != nil && !(errors.Is(err, rollout.ErrFinal) && strings.HasPrefix(damaged, "group_id")) {
				t.Error(err)
			}
			if stored, err := st.Rollout(ctx, id); err != nil || stored.Active {
				t.Errorf("after its end: %+v, %v", stored, err)
			}
			if cs, err := st.Commands(ctx, "n", 1); err != nil || len(cs) != 1 || cs[0].State != store.CommandWithdrawn {
				t.Errorf("%+v, %v", cs, err)
			}
			must(t, e.Step(ctx))
			if list, err := st.EndedRollouts(ctx, "n", 2); err != nil || len(list) != 1 {
				t.Errorf("%d, %v", len(list), err)
			}
		})
	}
}
