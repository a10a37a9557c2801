package store_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/bilbycast/edge-agent/manager-sim/api"
	"github.com/bilbycast/edge-agent/manager-sim/store"
)

var now = time.Date(2026, 11, 24, 3, 0, 0, 0, time.UTC)

func open(t *testing.T, path string) *store.Store {
	t.Helper()
	s, err := store.Open(t.Context(), path)
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

func TestNodes(t *testing.T) { each(t, testNodes) }

func testNodes(t *testing.T, path string) {
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
	must(t, s.RecordHealth(ctx, store.Node{ID: "a", Version: "1.0.0", Capabilities: []string{"upgrade"}, Upgrade: json.RawMessage(`{"status":"stable"}`), LastSeen: now, Warnings: []string{"w<1>", "w\"2"}}))
	must(t, s.RecordConnect(ctx, "a", "1.1.0", "192.0.2.1", now.Add(time.Second)))
	must(t, s.RecordDisconnect(ctx, "a", now.Add(2*time.Second)))
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
	if !slices.Equal(n.Warnings, []string{"w<1>", "w\"2"}) || len(nodes[1].Warnings) != 0 {
		t.Errorf("warnings %q and %q", n.Warnings, nodes[1].Warnings)
	}
	must(t, s.RecordHealth(ctx, store.Node{ID: "b", LastSeen: now, Warnings: []string{"w"}}))
	must(t, s.RecordHealth(ctx, store.Node{ID: "b", LastSeen: now}))
	if n, err := s.Node(ctx, "b"); err != nil || len(n.Warnings) != 0 {
		t.Errorf("after a health beat without warnings: %q, %v", n.Warnings, err)
	}
	cs, err := s.Connections(ctx, "a")
	if err != nil || len(cs) != 3 || cs[0].State != api.Disconnected || cs[1].Version != "1.1.0" || cs[2].State != api.Authenticated {
		t.Errorf("got %+v, %v", cs, err)
	}
	if _, err := s.Node(ctx, "c"); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("got %v", err)
	}
}

func TestCommandsAreAckedOnce(t *testing.T) { each(t, testCommandsAreAckedOnce) }

func testCommandsAreAckedOnce(t *testing.T, path string) {
	s := open(t, path)
	ctx := t.Context()
	must(t, s.AddToken(ctx, "t"))
	must(t, s.Register(ctx, "t", store.Node{ID: "a"}))
	for i := range 3 { // each new one withdraws the one before
		if i == 1 {
			must(t, s.RecordSent(ctx, "c0", now))
		}
		c := store.Command{ID: fmt.Sprint("c", i), NodeID: "a", Version: "1.1.0", Channel: "stable", Action: json.RawMessage(`{}`), CreatedAt: now.Add(time.Duration(i))}
		must(t, s.AddCommand(ctx, c, api.AuditEntry{Time: now, Actor: "admin", Action: "x", Target: "a", Details: json.RawMessage(`{}`)}))
	}
	ack := store.Command{ID: "c0", NodeID: "a", AckedAt: now, Success: true}
	if first, err := s.RecordAck(ctx, ack); err != nil || !first {
		t.Errorf("the first ack: %v, %v", first, err)
	}
	ack.Success, ack.ErrorCode = false, "changed"
	if again, err := s.RecordAck(ctx, ack); err != nil || again {
		t.Errorf("the second ack: %v, %v", again, err)
	}
	if other, err := s.RecordAck(ctx, store.Command{ID: "c1", NodeID: "b", AckedAt: now}); err != nil || other {
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
	if a, _, err := s.AuditLog(ctx, store.AuditFilter{Limit: 10}); err != nil || len(a) != 3 || a[0].Seq <= a[1].Seq {
		t.Errorf("audit: %+v, %v", a, err)
	}
}

func TestEventsAreStoredOnceAndFound(t *testing.T) { each(t, testEventsAreStoredOnceAndFound) }

func testEventsAreStoredOnceAndFound(t *testing.T, path string) {
	s := open(t, path)
	ctx := t.Context()
	must(t, s.AddToken(ctx, "t"))
	must(t, s.Register(ctx, "t", store.Node{ID: "a"}))
	add := func(id, message, severity string) bool {
		e := api.Event{EventID: id, NodeID: "a", Time: now, ReceivedAt: now, Severity: severity, Category: "upgrade", Message: message, CommandID: "c", Details: json.RawMessage(`{}`)}
		added, err := s.AddEvent(ctx, &e)
		must(t, err)
		return added
	}
	if !add("0", "a\x00b", "info") { // a text that not every database can hold
		t.Error("a NUL")
	}
	if !add("1", "100% done_", "info") || !add("2", "rolled back", "critical") || !add("", "no id", "info") || !add("", "no id", "info") {
		t.Error("a new event is not added")
	}
	if add("2", "rolled back", "critical") {
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
		5: {NodeID: "a", CommandID: "c"},
		1: {Severity: "critical"},
		0: {Search: "%x_"}, // the wildcards of LIKE are only characters
		4: {Severity: "info", From: now, To: now.Add(time.Second)},
	} {
		if got := count(f); got != want {
			t.Errorf("%+v: %d, want %d", f, got, want)
		}
	}
	if got := count(store.EventFilter{Search: "0% DONE_"}); got != 1 {
		t.Errorf("the search finds %d", got)
	}
	page, _, _ := s.Events(ctx, store.EventFilter{Page: 2, PerPage: 4})
	if len(page) != 1 || page[0].EventID != "0" {
		t.Errorf("the last page: %+v", page)
	}
}

func TestRollouts(t *testing.T) { each(t, testRollouts) }

func testRollouts(t *testing.T, path string) {
	s := open(t, path)
	ctx := t.Context()
	entry := api.AuditEntry{Time: now, Actor: "admin", Action: "x", Target: "g", Details: json.RawMessage(`{}`)}
	must(t, s.AddToken(ctx, "t"))
	must(t, s.Register(ctx, "t", store.Node{ID: "a"}))
	must(t, s.AddGroup(ctx, api.Group{ID: "g", Name: "site", CreatedAt: now}, entry))
	if err := s.AddGroup(ctx, api.Group{ID: "h", Name: "site", CreatedAt: now}, entry); !errors.Is(err, store.ErrExists) {
		t.Errorf("a name twice: %v", err)
	}
	if err := s.SetGroup(ctx, "a", "nowhere", entry); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("a group that is not there: %v", err)
	}
	must(t, s.SetGroup(ctx, "a", "g", entry))
	r := store.Rollout{ID: "r", GroupID: "g", Active: true, State: json.RawMessage(`{"n":1}`), CreatedAt: now}
	c := store.Command{ID: "c", NodeID: "a", Version: "1.1.0", Channel: "stable", Action: json.RawMessage(`{}`), CreatedAt: now}
	must(t, s.SaveRollout(ctx, r, []store.Command{c}, []api.AuditEntry{entry}))
	if err := s.SaveRollout(ctx, store.Rollout{ID: "r2", GroupID: "g", Active: true, State: r.State}, nil, nil); !errors.Is(err, store.ErrExists) {
		t.Errorf("a second active rollout: %v", err)
	}
	r.Revision = 1
	// With a command that cannot be stored, nothing is.
	r.State = json.RawMessage(`{"n":2}`)
	if err := s.SaveRollout(ctx, r, []store.Command{{ID: "d", NodeID: "nobody", Action: json.RawMessage(`{}`)}}, []api.AuditEntry{entry}); err == nil {
		t.Error("a command for an unknown node is stored")
	}
	got, err := s.Rollout(ctx, "r")
	if err != nil || got.Revision != 1 || string(got.State) != `{"n":1}` || !got.Active {
		t.Errorf("got %+v, %v", got, err)
	}
	r.Active = false
	must(t, s.SaveRollout(ctx, r, nil, nil))
	if err := s.SaveRollout(ctx, r, nil, nil); !errors.Is(err, store.ErrConflict) {
		t.Errorf("an old revision: %v", err)
	}
	if rs, err := s.Rollouts(ctx, "g", true, -1); err != nil || len(rs) != 0 {
		t.Errorf("active: %+v, %v", rs, err)
	}
	if _, total, err := s.AuditLog(ctx, store.AuditFilter{Action: "x", Limit: 1}); err != nil || total != 3 {
		t.Errorf("%d audit entries, %v", total, err)
	}
}

func TestUsersAndOnce(t *testing.T) { each(t, testUsersAndOnce) }

func testUsersAndOnce(t *testing.T, path string) {
	s := open(t, path)
	ctx := t.Context()
	entry := api.AuditEntry{Time: now, Actor: "admin", Action: "x", Target: "u", Details: json.RawMessage(`{}`)}
	o := &store.Once{Key: "k", Fingerprint: "f"}
	must(t, s.AddUser(o.With(ctx), store.User{Name: "u", Role: "viewer", Groups: []string{"g"}, CreatedAt: now}, entry))
	if !o.Done() {
		t.Error("the change is not noted")
	}
	if err := s.AddUser((&store.Once{Key: "k"}).With(ctx), store.User{Name: "v"}, entry); !errors.Is(err, store.ErrRepeated) {
		t.Errorf("the same key: %v", err)
	}
	failed := &store.Once{Key: "k2"}
	if err := s.AddUser(failed.With(ctx), store.User{Name: "u"}, entry); !errors.Is(err, store.ErrExists) || failed.Done() {
		t.Errorf("a name twice: %v", err)
	}
	if _, err := s.Answer(ctx, "k2"); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("what failed is noted: %v", err)
	}
	must(t, s.SetAnswer(ctx, "k", store.Answer{Status: 201, Body: "{}"}))
	if a, err := s.Answer(ctx, "k"); err != nil || a != (store.Answer{Fingerprint: "f", Status: 201, Body: "{}"}) {
		t.Errorf("got %+v, %v", a, err)
	}
	soon := time.Now().Add(time.Hour)
	must(t, s.AddSession(ctx, store.Session{Hash: "hash", User: "u", Expires: soon}, entry))
	if u, ends, err := s.SessionUser(ctx, "hash", time.Now()); err != nil || u.Name != "u" || len(u.Groups) != 1 || !ends.Equal(soon.Truncate(time.Millisecond)) {
		t.Errorf("got %+v until %v, %v", u, ends, err)
	}
	if _, _, err := s.SessionUser(ctx, "hash", soon); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("after its time: %v", err)
	}
	must(t, s.RemoveUser(ctx, "u", entry))
	if _, _, err := s.SessionUser(ctx, "hash", time.Now()); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("of a user who is gone: %v", err)
	}
	must(t, s.AddAPIToken(ctx, store.Token{ID: "1", Hash: "t", Name: "ci", Role: "viewer"}, entry))
	if u, err := s.APIToken(ctx, "t"); err != nil || u.Name != "ci" {
		t.Errorf("got %+v, %v", u, err)
	}
	must(t, s.Ready(ctx))
}

func TestADatabaseThatCannotBeOpenedIsNamed(t *testing.T) {
	t.Parallel()
	for _, url := range []string{"postgres://me:secret@127.0.0.1:1/db?connect_timeout=5", "postgresql://me:secret@127.0.0.1:1/db?connect_timeout=5",
		"PostgreSQL://127.0.0.1:1/db?connect_timeout=5&user=me&password=secret"} {
		_, err := store.Open(t.Context(), url)
		if err == nil || strings.Contains(err.Error(), "secret") || !strings.Contains(err.Error(), "127.0.0.1") {
			t.Errorf("%s: got %v", url, err)
		}
	}
}

// What is meant as the URL of another database does not become a file with the password in
// its name.
func TestAURLOfAnotherDatabaseIsRefused(t *testing.T) {
	t.Parallel()
	for _, url := range []string{"mysql://root:secret@127.0.0.1/x", "postgresq://me:secret@127.0.0.1/x", "sqlite:///srv/secret.db", "jdbc+x://secret"} {
		_, err := store.Open(t.Context(), url)
		if err == nil || strings.Contains(err.Error(), "secret") || !strings.Contains(err.Error(), "postgres://") || !strings.Contains(err.Error(), "SQLite") {
			t.Errorf("%s: got %v", url, err)
		}
	}
}
