package store_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/bilbycast/edge-agent/manager-sim/api"
	"github.com/bilbycast/edge-agent/manager-sim/store"
)

func entry(action string) api.AuditEntry {
	return api.AuditEntry{Time: now, Actor: "admin", Action: action, Target: "a", Details: json.RawMessage(`{}`)}
}

// A removed node has no secret, is in no list, and keeps its history. No late change
// restores it.
func TestARemovedNode(t *testing.T) { each(t, testARemovedNode) }

func testARemovedNode(t *testing.T, path string) {
	s := open(t, path)
	ctx := t.Context()
	must(t, s.AddToken(ctx, "t"))
	must(t, s.AddGroup(ctx, api.Group{ID: "g", Name: "site", CreatedAt: now}, entry("x")))
	for _, id := range []string{"a", "b"} {
		must(t, s.Register(ctx, "t", store.Node{ID: id, SecretHash: "h", Address: "192.0.2.1", RegisteredAt: now, LastSeen: now}))
		must(t, s.SetGroup(ctx, id, "g", entry("x")))
	}
	must(t, s.RemoveNode(ctx, "a", now, entry("node.remove")))
	if err := s.RemoveNode(ctx, "a", now, entry("node.remove")); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("again: %v", err)
	}
	must(t, s.RecordHealth(ctx, store.Node{ID: "a", Version: "9.9.9", Capabilities: []string{"upgrade"}, LastSeen: now}))
	if err := s.SetGroup(ctx, "a", "g", entry("x")); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("moved: %v", err)
	}
	n, err := s.Node(ctx, "a")
	if err != nil || n.SecretHash != "" || n.RemovedAt.IsZero() || len(n.Capabilities) != 0 || n.GroupID != "g" {
		t.Errorf("got %+v, %v", n, err)
	}
	for name, list := range map[string]func() ([]store.Node, error){
		"nodes": func() ([]store.Node, error) { return s.Nodes(ctx) },
		"group": func() ([]store.Node, error) { return s.GroupNodes(ctx, "g") },
	} {
		if got, err := list(); err != nil || len(got) != 1 || got[0].ID != "b" || got[0].Address != "192.0.2.1" {
			t.Errorf("%s: %+v, %v", name, got, err)
		}
	}
	if got, err := s.RemovedNodes(ctx); err != nil || len(got) != 1 || got[0].ID != "a" {
		t.Errorf("removed: %+v, %v", got, err)
	}
}

// A node is marked as a duplicate once, and cleared once.
func TestDuplicates(t *testing.T) { each(t, testDuplicates) }

func testDuplicates(t *testing.T, path string) {
	s := open(t, path)
	ctx := t.Context()
	must(t, s.AddToken(ctx, "t"))
	must(t, s.Register(ctx, "t", store.Node{ID: "a"}))
	d := api.Duplicate{Addresses: []string{"192.0.2.1", "192.0.2.2"}, Since: now}
	for i := range 2 {
		if marked, err := s.MarkDuplicate(ctx, "a", d); err != nil || marked != (i == 0) {
			t.Errorf("mark %d: %t, %v", i, marked, err)
		}
	}
	if n, err := s.Node(ctx, "a"); err != nil || fmt.Sprint(n.Duplicate) != fmt.Sprint(d) {
		t.Errorf("got %+v, %v", n.Duplicate, err)
	}
	must(t, s.ClearDuplicate(ctx, "a", entry("x")))
	if err := s.ClearDuplicate(ctx, "a", entry("x")); !errors.Is(err, store.ErrNotMarked) {
		t.Errorf("cleared again: %v", err)
	}
}

// Only a command that was not sent can be replaced.
func TestReplacedCommands(t *testing.T) { each(t, testReplacedCommands) }

func testReplacedCommands(t *testing.T, path string) {
	s := open(t, path)
	ctx := t.Context()
	must(t, s.AddToken(ctx, "t"))
	must(t, s.Register(ctx, "t", store.Node{ID: "a"}))
	add := func(id, replaces string) error {
		return s.AddCommand(ctx, store.Command{ID: id, NodeID: "a", Version: "1.1.0", Channel: "stable", Action: json.RawMessage(`{}`), CreatedAt: now, Actor: "alice", Replaces: replaces}, entry("x"))
	}
	must(t, add("c1", ""))
	must(t, add("c2", "c1"))
	must(t, s.RecordSent(ctx, "c2", now))
	if err := add("c3", "c2"); !errors.Is(err, store.ErrConflict) {
		t.Errorf("a command that was sent: %v", err)
	}
	cs, err := s.Commands(ctx, "a", -1)
	if err != nil || len(cs) != 2 || cs[0].ID != "c2" || cs[0].Actor != "alice" || cs[1].ErrorCode != api.CodeReplaced || cs[1].AckedAt.IsZero() {
		t.Errorf("got %+v, %v", cs, err)
	}
}

// Each node's events are bounded by number and by size; the oldest are deleted. The
// events that decide a command are read without the others.
func TestEventsHaveABound(t *testing.T) { each(t, testEventsHaveABound) }

func testEventsHaveABound(t *testing.T, path string) {
	s := open(t, path)
	ctx := t.Context()
	must(t, s.AddToken(ctx, "t"))
	for _, id := range []string{"a", "b"} {
		must(t, s.Register(ctx, "t", store.Node{ID: id}))
	}
	add := func(node, id, code string, size int) {
		t.Helper()
		e := api.Event{EventID: id, NodeID: node, ReceivedAt: now, Severity: "info", Category: "upgrade", Message: strings.Repeat("m", size/2), ErrorCode: code, CommandID: "c",
			Details: json.RawMessage(`{"from_version":"1.1.0","journal":"` + strings.Repeat("j", size/2) + `"}`)}
		if added, err := s.AddEvent(ctx, &e); err != nil || !added {
			t.Fatal(added, err)
		}
	}
	add("b", "first", "upgrade_started", 10)
	for i := range 24 {
		add("a", fmt.Sprint("e", i), "upgrade_started", 1<<20)
	}
	add("a", "last", "upgrade_rolled_back", 3*store.EventBytesKept)
	events, total, err := s.Events(ctx, store.EventFilter{NodeID: "a", Page: 1, PerPage: 200})
	if err != nil || total != 1 || events[0].EventID != "last" {
		t.Errorf("%d events are left, %v", total, err)
	}
	if _, total, _ := s.Events(ctx, store.EventFilter{NodeID: "b", Page: 1, PerPage: 1}); total != 1 {
		t.Errorf("of the other node %d are left", total)
	}
	outcomes, err := s.Outcomes(ctx, "a", "c")
	if err != nil || len(outcomes) != 1 || outcomes[0].Code != "upgrade_rolled_back" || len(outcomes[0].Message) > 1000 || !outcomes[0].ReceivedAt.Equal(now) {
		t.Errorf("%d outcomes, %v", len(outcomes), err)
	}
	e := api.Event{NodeID: "b", ReceivedAt: now, Category: "upgrade", ErrorCode: "upgrade_rolled_back", Message: "an operator rolled back", Details: json.RawMessage(`{}`)}
	if _, err := s.AddEvent(ctx, &e); err != nil {
		t.Fatal(err)
	}
	e = api.Event{NodeID: "b", ReceivedAt: now, Category: "x", Message: "of no upgrade", Details: json.RawMessage(`{}`)}
	if _, err := s.AddEvent(ctx, &e); err != nil {
		t.Fatal(err)
	}
	if got, err := s.Outcomes(ctx, "b", ""); err != nil || len(got) != 1 || got[0].Message != "an operator rolled back" {
		t.Errorf("rollbacks without a command: %+v, %v", got, err)
	}
}

// CheckConnect fails where RecordConnect would, and changes nothing.
func TestCheckConnect(t *testing.T) { each(t, testCheckConnect) }

func testCheckConnect(t *testing.T, path string) {
	s := open(t, path)
	ctx := t.Context()
	must(t, s.AddToken(ctx, "t"))
	must(t, s.Register(ctx, "t", store.Node{ID: "a", RegisteredAt: now, LastSeen: now}))
	must(t, s.RecordConnect(ctx, "a", "1.0.0", "192.0.2.1", now))
	node, err := s.Node(ctx, "a")
	must(t, err)
	connections, err := s.Connections(ctx, "a")
	must(t, err)
	must(t, s.CheckConnect(ctx, "a"))
	if got, err := s.Node(ctx, "a"); err != nil || fmt.Sprint(got) != fmt.Sprint(node) {
		t.Errorf("%+v, %v", got, err)
	}
	if got, err := s.Connections(ctx, "a"); err != nil || len(connections) == 0 || fmt.Sprint(got) != fmt.Sprint(connections) {
		t.Errorf("%+v, %v, want %+v", got, err, connections)
	}
	if err := s.CheckConnect(ctx, "unknown"); err == nil {
		t.Error("an unknown node")
	}
	must(t, s.Close())
	if err := s.CheckConnect(ctx, "a"); err == nil {
		t.Error("a store that is closed")
	}
}
