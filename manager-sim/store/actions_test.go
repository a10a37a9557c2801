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

func TestActions(t *testing.T) { each(t, testActions) }

// A command to an action is sent while it is open, its first answer counts, and a node has at
// most api.KeptActions: the oldest that are over make room.
func testActions(t *testing.T, path string) {
	earlier(t, path, 12, 9, `INSERT INTO nodes (id, device_type, secret_hash, version, capabilities, registered_at, last_seen) VALUES ('n', 'edge', 'h', '1.0.0', '[]', 1, 2)`)
	s := open(t, path)
	ctx := t.Context()
	if n, err := s.Node(ctx, "n"); err != nil || len(n.Actions) != 0 {
		t.Errorf("a node of an earlier version: %+v, %v", n, err)
	}
	must(t, s.RecordActions(ctx, "n", []string{"reboot", "set_gain"}))
	if n, err := s.Node(ctx, "n"); err != nil || fmt.Sprint(n.Actions) != "[reboot set_gain]" {
		t.Errorf("%+v, %v", n, err)
	}
	add := func(id string) {
		t.Helper()
		must(t, s.AddAction(ctx, store.Action{ID: id, NodeID: "n", Action: "reboot", Params: json.RawMessage(`{"in":5}`), CreatedAt: now, Life: time.Hour, Actor: "ann", Acting: "user:ann"}, entry("x")))
	}
	is := func(id, state string, sendable bool) store.Action {
		t.Helper()
		a, err := s.Action(ctx, "n", id)
		if must(t, err); a.State != state || a.Open() != sendable || (a.Params != nil) != a.Open() || a.ParamsBytes != 8 {
			t.Errorf("%s: %+v", id, a)
		}
		if err := s.RecordActionSent(ctx, id, now.Add(time.Second)); err == nil != sendable || err != nil && !errors.Is(err, store.ErrNotSendable) {
			t.Errorf("%s is sent: %v", id, err)
		}
		return a
	}
	answer := func(id, node string) bool {
		t.Helper()
		first, err := s.RecordActionAck(ctx, store.Action{ID: id, NodeID: node, AckedAt: now, Success: true, Result: json.RawMessage(`"a\u0000b"`)})
		must(t, err)
		return first
	}
	add("pending")
	if answer("pending", "n") {
		t.Error("a command that was not sent is answered")
	}
	is("pending", api.ActionPending, true) // and sends it
	if err := s.WithdrawAction(ctx, "pending", "ann", "why", entry("x")); !errors.Is(err, store.ErrConflict) {
		t.Errorf("a sent command is withdrawn: %v", err)
	}
	if answer("pending", "other") || !answer("pending", "n") || answer("pending", "n") {
		t.Error("not the first answer of the node counts")
	}
	if a := is("pending", api.ActionEnded, false); !a.Success || string(a.Result) != `"a\u0000b"` || !a.AckedAt.Equal(now) {
		t.Errorf("%+v", a)
	}
	add("withdrawn")
	must(t, s.WithdrawAction(ctx, "withdrawn", "ann", "why", entry("x")))
	if a := is("withdrawn", api.ActionWithdrawn, false); a.DecidedBy != "ann" || a.Reason != "why" {
		t.Errorf("%+v", a)
	}
	add("late")
	must(t, s.RecordActionSent(ctx, "late", now))
	must(t, s.ExpireAction(ctx, "late"))
	is("late", api.ActionExpired, false)
	if !answer("late", "n") {
		t.Error("a late answer does not count")
	}
	if _, err := s.Action(ctx, "other", "late"); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("another node has it: %v", err)
	}

	add("open")
	for i := range api.KeptActions + 5 {
		id := fmt.Sprint(i)
		add(id)
		must(t, s.RecordActionSent(ctx, id, now))
		answer(id, "n")
	}
	all, err := s.Actions(ctx, "n")
	if must(t, err); len(all) != api.KeptActions+1 || all[0].ID != "104" || all[api.KeptActions].ID != "open" {
		t.Errorf("%d, the oldest is %s", len(all), all[len(all)-1].ID)
	}
	if o, err := s.OpenActions(ctx, "n"); err != nil || len(o) != 1 || o[0].ID != "open" {
		t.Errorf("%+v, %v", o, err)
	}
	must(t, s.RemoveNode(ctx, "n", now, entry("x")))
	is("open", api.ActionWithdrawn, false)
}
