package store_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/bilbycast/edge-agent/manager-sim/api"
	"github.com/bilbycast/edge-agent/manager-sim/store"
)

func TestOldCommands(t *testing.T) { each(t, testOldCommands) }

// The commands of an earlier version get their state from what was recorded, and of several
// open commands of a node only the newest stays open.
func testOldCommands(t *testing.T, path string) {
	const command = `INSERT INTO commands (id, node_id, version, channel, action, created_at, sent_at, acked_at, error_code) VALUES ('%s', '%s', '1.1.0', 'stable', '{}', 5, %d, %d, '%s')`
	earlier(t, path, 9, 6, `INSERT INTO nodes (id, device_type, secret_hash, version, capabilities, registered_at, last_seen) VALUES ('a', 'edge', 'h', '1.0.0', '[]', 1, 2), ('b', 'edge', 'h', '1.0.0', '[]', 1, 2)`,
		fmt.Sprintf(command, "replaced", "a", 0, 7, "replaced"), fmt.Sprintf(command, "ended", "a", 6, 7, ""), fmt.Sprintf(command, "withdrawn", "a", 6, 0, ""), fmt.Sprintf(command, "sent", "a", 6, 0, ""),
		fmt.Sprintf(command, "pending", "b", 0, 0, ""))
	s := open(t, path)
	for id, want := range map[string]store.CommandState{"replaced": store.CommandSuperseded, "ended": store.CommandEnded, "withdrawn": store.CommandWithdrawn, "sent": store.CommandSent, "pending": store.CommandPending} {
		c, err := s.Command(t.Context(), id)
		if must(t, err); c.State != want || c.RolloutID != "" || c.Acting != "" || c.WithdrawnAt.IsZero() != (id != "withdrawn") {
			t.Errorf("%s: %+v", id, c)
		}
		if sendable := s.RecordSent(t.Context(), id, now) == nil; sendable != (id == "sent" || id == "pending") {
			t.Errorf("%s is sent: %t", id, sendable)
		}
	}
	if n, err := s.Node(t.Context(), "a"); err != nil || len(n.Features) != 0 {
		t.Errorf("%+v, %v", n, err)
	}
}

func TestCommandStates(t *testing.T) { each(t, testCommandStates) }

// What sends asks the state of the command, and the group of the node, in one statement.
func testCommandStates(t *testing.T, path string) {
	s := open(t, path)
	ctx := t.Context()
	must(t, s.AddToken(ctx, "t"))
	must(t, s.Register(ctx, "t", store.Node{ID: "a", Features: []string{"upgrade_withdraw"}}))
	for _, id := range []string{"g", "h"} {
		must(t, s.AddGroup(ctx, api.Group{ID: id, Name: id}, entry("x")))
	}
	must(t, s.SetGroup(ctx, "a", "g", entry("x")))
	if n, err := s.Node(ctx, "a"); err != nil || len(n.Features) != 1 {
		t.Errorf("%+v, %v", n, err)
	}
	r := store.Rollout{ID: "r", GroupID: "g", Active: true, State: json.RawMessage(`{}`)}
	save := func(c []store.Command, changes ...store.CommandChange) {
		t.Helper()
		r.Changes = changes
		must(t, s.SaveRollout(ctx, r, c, nil))
		r.Revision++
	}
	is := func(id string, want store.CommandState, sendable bool) {
		t.Helper()
		c, err := s.Command(ctx, id)
		must(t, err)
		err = s.RecordSent(ctx, id, now)
		if c.State != want || (err == nil) != sendable || err != nil && !errors.Is(err, store.ErrNotSendable) {
			t.Errorf("%s is %s, want %s; sending it: %v", id, c.State, want, err)
		}
	}
	change := func(id string, to store.CommandState) store.CommandChange {
		return store.CommandChange{ID: id, State: to, At: now, By: "ann", Reason: "pause"}
	}
	save([]store.Command{{ID: "c1", NodeID: "a", RolloutID: "r", Action: json.RawMessage(`{}`), CreatedAt: now}}, change("c1", store.CommandHeld))
	is("c1", store.CommandHeld, false)
	save(nil, change("c1", store.CommandPending))
	is("c1", store.CommandPending, true)
	save(nil, change("c1", store.CommandHeld))
	is("c1", store.CommandHeld, false)
	save(nil, change("c1", store.CommandPending)) // it was sent before
	is("c1", store.CommandSent, true)
	must(t, s.SetGroup(ctx, "a", "h", entry("x")))
	is("c1", store.CommandSent, false) // the node is in another group
	must(t, s.SetGroup(ctx, "a", "g", entry("x")))
	// A new command takes the place of one that is over for the manager.
	save([]store.Command{{ID: "c2", NodeID: "a", RolloutID: "r", Action: json.RawMessage(`{}`), CreatedAt: now}})
	is("c1", store.CommandWithdrawn, false)
	must(t, s.RecordWithdrawSent(ctx, "c1", now))
	if ok, err := s.RecordWithdrawAck(ctx, "a", "c1", false, now); err != nil || ok {
		t.Errorf("a refusal without an outcome: %t, %v", ok, err)
	}
	if ok, err := s.RecordWithdrawAck(ctx, "a", "c1", true, now); err != nil || !ok {
		t.Errorf("the answer: %t, %v", ok, err)
	}
	if err := s.RecordWithdrawSent(ctx, "c1", now); !errors.Is(err, store.ErrNotSendable) {
		t.Errorf("after the answer: %v", err)
	}
	// A move withdraws what was never sent, in its transaction.
	must(t, s.SetGroup(ctx, "a", "h", entry("x")))
	is("c2", store.CommandWithdrawn, false)
	must(t, s.SetGroup(ctx, "a", "g", entry("x")))
	is("c2", store.CommandWithdrawn, false)
	save([]store.Command{{ID: "c3", NodeID: "a", RolloutID: "r", Action: json.RawMessage(`{}`), CreatedAt: now}})
	must(t, s.RemoveNode(ctx, "a", time.Now(), entry("x")))
	is("c3", store.CommandWithdrawn, false)
	if c, err := s.Command(ctx, "c3"); err != nil || c.Reason != store.ReasonRemoved {
		t.Errorf("%+v, %v", c, err)
	}
}
