package store_test

import (
	"context"
	"errors"
	"testing"

	"github.com/bilbycast/edge-agent/manager-sim/api"
	"github.com/bilbycast/edge-agent/manager-sim/store"
)

// A list leaves out and counts the rows that cannot be read, and shows all others.
func TestUnreadableRows(t *testing.T) { each(t, testUnreadableRows) }

func testUnreadableRows(t *testing.T, path string) {
	s := open(t, path)
	ctx := t.Context()
	entry := api.AuditEntry{Time: now, Actor: "a", Action: "x", Target: "y", Details: []byte("{}")}
	must(t, s.AddToken(ctx, "t"))
	must(t, s.AddGroup(ctx, api.Group{ID: "g", Name: "g", CreatedAt: now}, entry))
	for _, id := range []string{"good", "bad"} {
		must(t, s.Register(ctx, "t", store.Node{ID: id, RegisteredAt: now, LastSeen: now}))
		must(t, s.SetGroup(ctx, id, "g", entry))
		must(t, s.AddCommand(ctx, store.Command{ID: id, NodeID: "good", Action: []byte("{}"), CreatedAt: now}, entry))
		_, err := s.AddEvent(ctx, &api.Event{EventID: id, NodeID: "good", Time: now, ReceivedAt: now, Details: []byte("{}")})
		must(t, err)
		must(t, s.AddUser(ctx, store.User{Name: id, Hash: "h", Role: "viewer", CreatedAt: now}, entry))
		must(t, s.AddAPIToken(ctx, store.Token{ID: id, Name: id, Hash: id, Role: "viewer", CreatedAt: now}, entry))
	}
	damage(t, path, "UPDATE nodes SET capabilities = '{' WHERE id = 'bad'", "UPDATE commands SET action = 'x' WHERE id = 'bad'", "UPDATE events SET details = '{\"a\":' WHERE event_id = 'bad'",
		"UPDATE users SET groups = '7' WHERE name = 'bad'", "UPDATE api_tokens SET groups = '' WHERE id = 'bad'",
		"UPDATE audit SET details = 'no' WHERE seq = (SELECT min(seq) FROM audit)")
	for what, list := range map[string]func(context.Context) (int, error){
		"nodes":       func(ctx context.Context) (int, error) { l, err := s.Nodes(ctx); return len(l), err },
		"group nodes": func(ctx context.Context) (int, error) { l, err := s.GroupNodes(ctx, "g"); return len(l), err },
		"commands":    func(ctx context.Context) (int, error) { l, err := s.Commands(ctx, "good", -1); return len(l), err },
		"events": func(ctx context.Context) (int, error) {
			l, _, err := s.Events(ctx, store.EventFilter{PerPage: 10})
			return len(l), err
		},
		"users":  func(ctx context.Context) (int, error) { l, err := s.Users(ctx); return len(l), err },
		"tokens": func(ctx context.Context) (int, error) { l, err := s.APITokens(ctx); return len(l), err },
		"audit": func(ctx context.Context) (int, error) {
			l, total, err := s.AuditLog(ctx, store.AuditFilter{Limit: 100})
			return len(l) - total + 2, err
		},
	} {
		ctx, skipped := store.CountUnreadable(ctx)
		if k, err := list(ctx); err != nil || k != 1 || *skipped != 1 {
			t.Errorf("%s: %d, %d left out, %v", what, k, *skipped, err)
		}
	}
	if _, err := s.Node(ctx, "bad"); !errors.Is(err, store.ErrUnreadable) {
		t.Errorf("got %v", err)
	}
}
