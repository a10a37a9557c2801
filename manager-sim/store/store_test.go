package store_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"testing"
	"time"

	"github.com/bilbycast/edge-agent/manager-sim/store"
)

var now = time.Date(2026, 11, 24, 3, 0, 0, 0, time.UTC)

func open(t *testing.T, path string) store.Store {
	t.Helper()
	s, err := store.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func TestNodes(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "db")
	s := open(t, path)
	ctx := t.Context()
	if err := s.Register(ctx, "token", store.Node{ID: "a"}); !errors.Is(err, store.ErrDenied) {
		t.Errorf("an unknown token: %v", err)
	}
	for range 2 {
		must(t, s.AddToken(ctx, "token"))
	}
	for _, id := range []string{"b", "a"} {
		must(t, s.Register(ctx, "token", store.Node{ID: id, DeviceType: "edge", SecretHash: "h" + id, RegisteredAt: now, LastSeen: now}))
	}
	must(t, s.Seen(ctx, store.Node{ID: "a", Version: "1.0.0", Capabilities: []string{"upgrade"}, Upgrade: json.RawMessage(`{"status":"stable"}`), LastSeen: now}))
	must(t, s.Seen(ctx, store.Node{ID: "a", Version: "1.1.0", LastSeen: now.Add(time.Second)}))
	must(t, s.Close())

	s = open(t, path) // as after a restart
	nodes, err := s.Nodes(ctx)
	if err != nil || len(nodes) != 2 || nodes[0].ID != "a" {
		t.Fatalf("got %+v, %v", nodes, err)
	}
	n := nodes[0]
	if n.Version != "1.1.0" || len(n.Capabilities) != 1 || string(n.Upgrade) != `{"status":"stable"}` || n.SecretHash != "ha" || !n.LastSeen.Equal(now.Add(time.Second)) {
		t.Errorf("got %+v", n)
	}
	if _, err := s.Node(ctx, "c"); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("got %v", err)
	}
}

func TestCommandsAreAckedOnce(t *testing.T) {
	t.Parallel()
	s := open(t, filepath.Join(t.TempDir(), "db"))
	ctx := t.Context()
	must(t, s.AddToken(ctx, "t"))
	must(t, s.Register(ctx, "t", store.Node{ID: "a"}))
	for i := range 3 {
		c := store.Command{ID: fmt.Sprint("c", i), NodeID: "a", Version: "1.1.0", Channel: "stable", Action: json.RawMessage(`{}`), CreatedAt: now.Add(time.Duration(i))}
		must(t, s.AddCommand(ctx, c, store.Audit{Time: now, Actor: "admin", Action: "x", Target: "a", Details: json.RawMessage(`{}`)}))
	}
	must(t, s.Sent(ctx, "c0", now))
	ack := store.Command{ID: "c0", NodeID: "a", AckedAt: now, Success: true}
	if first, err := s.Acked(ctx, ack); err != nil || !first {
		t.Errorf("the first ack: %v, %v", first, err)
	}
	ack.Success, ack.ErrorCode = false, "changed"
	if again, err := s.Acked(ctx, ack); err != nil || again {
		t.Errorf("the second ack: %v, %v", again, err)
	}
	if other, err := s.Acked(ctx, store.Command{ID: "c1", NodeID: "b", AckedAt: now}); err != nil || other {
		t.Errorf("the ack of another node: %v, %v", other, err)
	}
	cs, err := s.Commands(ctx, "a", 2)
	if err != nil || len(cs) != 2 || cs[0].ID != "c2" {
		t.Fatalf("got %+v, %v", cs, err)
	}
	cs, _ = s.Commands(ctx, "a", 10)
	if c := cs[2]; !c.Success || c.ErrorCode != "" || c.SentAt.IsZero() {
		t.Errorf("got %+v", c)
	}
	if a, err := s.AuditLog(ctx, 10); err != nil || len(a) != 3 || a[0].Seq <= a[1].Seq {
		t.Errorf("audit: %+v, %v", a, err)
	}
}

func TestEventsAreStoredOnceAndFound(t *testing.T) {
	t.Parallel()
	s := open(t, filepath.Join(t.TempDir(), "db"))
	ctx := t.Context()
	must(t, s.AddToken(ctx, "t"))
	must(t, s.Register(ctx, "t", store.Node{ID: "a"}))
	add := func(id, message, severity string) bool {
		e := store.Event{EventID: id, NodeID: "a", Time: now, ReceivedAt: now, Severity: severity, Category: "upgrade", Message: message, CommandID: "c", Details: json.RawMessage(`{}`)}
		added, err := s.AddEvent(ctx, &e)
		must(t, err)
		return added
	}
	if !add("1", "100% done_", "info") || !add("2", "went back", "critical") || !add("", "no id", "info") || !add("", "no id", "info") {
		t.Error("a new event is not added")
	}
	if add("2", "went back", "critical") {
		t.Error("a repeated event is added")
	}
	count := func(f store.EventFilter) int {
		f.Page, f.PerPage = 1, 2
		page, total, err := s.Events(ctx, f)
		must(t, err)
		if len(page) > 2 {
			t.Errorf("a page of %d", len(page))
		}
		return total
	}
	for want, f := range map[int]store.EventFilter{
		4: {NodeID: "a", CommandID: "c"},
		1: {Severity: "critical"},
		0: {Search: "%x_"}, // the wildcards of LIKE are only characters
		3: {Severity: "info", From: now, To: now.Add(time.Second)},
	} {
		if got := count(f); got != want {
			t.Errorf("%+v: %d, want %d", f, got, want)
		}
	}
	if got := count(store.EventFilter{Search: "0% DONE_"}); got != 1 {
		t.Errorf("the search finds %d", got)
	}
	page, _, _ := s.Events(ctx, store.EventFilter{Page: 2, PerPage: 3})
	if len(page) != 1 || page[0].EventID != "1" {
		t.Errorf("the last page: %+v", page)
	}
}
