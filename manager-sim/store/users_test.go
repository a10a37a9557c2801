package store_test

import (
	"encoding/json"
	"errors"
	"testing"
	"time"

	"github.com/bilbycast/edge-agent/manager-sim/api"
	"github.com/bilbycast/edge-agent/manager-sim/store"
)

func TestUserChanges(t *testing.T) { each(t, testUserChanges) }

func testUserChanges(t *testing.T, path string) {
	s := open(t, path)
	ctx := t.Context()
	entry := api.AuditEntry{Time: now, Actor: "admin", Action: "x", Target: "u", Details: json.RawMessage(`{}`)}
	has := func(want bool) {
		t.Helper()
		if got, err := s.HasSuperAdmin(ctx); err != nil || got != want {
			t.Errorf("a super admin: %t, %v", got, err)
		}
	}
	is := func(err, want error) {
		t.Helper()
		if !errors.Is(err, want) {
			t.Errorf("got %v, want %v", err, want)
		}
	}
	has(false)
	must(t, s.AddUser(ctx, store.User{Name: "v", Role: "viewer"}, entry))
	is(s.AddFirstSuperAdmin(ctx, store.User{Name: "v"}, entry), store.ErrExists)
	must(t, s.AddFirstSuperAdmin(ctx, store.User{Name: "a", Hash: "1"}, entry))
	is(s.AddFirstSuperAdmin(ctx, store.User{Name: "b"}, entry), store.ErrClaimed)
	has(true)

	viewer, super, groups, hash := "viewer", "super_admin", []string{"g"}, "2"
	is(s.RemoveUser(ctx, "a", entry), store.ErrLastSuperAdmin)
	_, err := s.UpdateUser(ctx, "a", store.UserChange{Role: &viewer}, entry)
	is(err, store.ErrLastSuperAdmin)
	_, err = s.UpdateUser(ctx, "nobody", store.UserChange{Role: &viewer}, entry)
	is(err, store.ErrNotFound)
	_, err = s.UpdateUser(ctx, "a", store.UserChange{Hash: &hash, OldHash: "other"}, entry)
	is(err, store.ErrConflict)
	if u, err := s.User(ctx, "a"); err != nil || u.Role != super || u.Hash != "1" {
		t.Errorf("what was refused changed %+v, %v", u, err)
	}

	soon := time.Now().Add(time.Hour)
	for _, h := range []string{"s1", "s2"} {
		must(t, s.AddSession(ctx, store.Session{Hash: h, User: "a", PasswordHash: "1", Source: "here", Expires: soon}, entry))
	}
	is(s.AddSession(ctx, store.Session{Hash: "s3", User: "a", PasswordHash: "2", Source: "there", Expires: soon}, entry), store.ErrConflict)
	u, err := s.UpdateUser(ctx, "a", store.UserChange{Groups: &groups, Hash: &hash, OldHash: "1", KeepSession: "s2"}, entry)
	if err != nil || u.Hash != "2" || len(u.Groups) != 1 || u.Role != super {
		t.Errorf("got %+v, %v", u, err)
	}
	_, _, err = s.SessionUser(ctx, "s1", time.Now())
	is(err, store.ErrNotFound)
	_, _, err = s.SessionUser(ctx, "s2", time.Now())
	must(t, err)
	for source, want := range map[string]bool{"here": true, "there": false} {
		if got, err := s.SignedInFrom(ctx, "a", source, time.Now()); err != nil || got != want {
			t.Errorf("signed in from %s: %t, %v", source, got, err)
		}
	}
	if got, err := s.SignedInFrom(ctx, "a", "here", time.Now().Add(store.SignInsKept)); err != nil || got {
		t.Errorf("a month later: %t, %v", got, err)
	}
	for i := range 105 { // the newest are kept
		must(t, s.AddSession(ctx, store.Session{Hash: store.ByToken(string(rune('A' + i))), User: "a", PasswordHash: "2", Source: string(rune('A' + i)), Expires: soon}, entry))
	}
	if got, err := s.SignedInFrom(ctx, "a", string(rune('A'+104)), time.Now()); err != nil || !got {
		t.Errorf("the newest of many sources: %t, %v", got, err)
	}

	token := func(id, by string) error {
		return s.AddAPIToken(ctx, store.Token{ID: id, Name: "n" + id, Hash: "h" + id, Role: super, CreatedAt: now, CreatedBy: by, ExpiresAt: soon}, entry)
	}
	must(t, token("1", "a"))
	must(t, token("2", store.ByToken("1")))
	must(t, token("3", store.ByManager))
	is(token("4", "v"), store.ErrDenied)
	is(token("4", store.ByToken("9")), store.ErrDenied)
	must(t, s.RecordTokenUse(ctx, "2", now))
	if k, err := s.APIToken(ctx, "h2"); err != nil || !k.LastUsedAt.Equal(now) || !k.ExpiresAt.Equal(soon.Truncate(time.Millisecond)) || k.CreatedBy != "token 1" {
		t.Errorf("got %+v, %v", k, err)
	}
	must(t, s.AddUser(ctx, store.User{Name: "b", Role: super}, entry))
	must(t, s.RemoveUser(ctx, "a", entry))
	ks, err := s.APITokens(ctx)
	if err != nil || len(ks) != 1 || ks[0].ID != "3" {
		t.Errorf("got %+v, %v", ks, err)
	}
	if es, _, err := s.AuditLog(ctx, store.AuditFilter{Action: "token.revoke", Limit: 9}); err != nil || len(es) != 2 || es[0].Target != "n2" || es[0].Actor != "admin" {
		t.Errorf("got %+v, %v", es, err)
	}
	is(s.RemoveAPIToken(ctx, "1", entry), store.ErrNotFound)
	must(t, s.RemoveAPIToken(ctx, "3", entry))
}

func TestAcceptedNodes(t *testing.T) { each(t, testAcceptedNodes) }

func testAcceptedNodes(t *testing.T, path string) {
	s := open(t, path)
	ctx := t.Context()
	entry := api.AuditEntry{Time: now, Actor: "admin", Action: "x", Target: "u", Details: json.RawMessage(`{}`)}
	must(t, s.AddGroup(ctx, api.Group{ID: "g", Name: "g", CreatedAt: now}, entry))
	n := store.Node{ID: "n", DeviceType: "edge", SecretHash: "h", Version: "1.0.0", RegisteredAt: now, LastSeen: now, GroupID: "none"}
	if err := s.AcceptNode(ctx, n, entry); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("a group that is not there: %v", err)
	}
	n.GroupID = "g"
	must(t, s.AcceptNode(ctx, n, entry))
	if err := s.AcceptNode(ctx, n, entry); !errors.Is(err, store.ErrExists) {
		t.Errorf("twice: %v", err)
	}
	if got, err := s.Node(ctx, "n"); err != nil || got.SecretHash != "h" || got.GroupID != "g" || len(got.Capabilities) != 0 {
		t.Errorf("got %+v, %v", got, err)
	}
}
