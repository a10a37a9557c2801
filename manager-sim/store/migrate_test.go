package store_test

import (
	"database/sql"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/bilbycast/edge-agent/manager-sim/api"
	"github.com/bilbycast/edge-agent/manager-sim/store"
)

// earlier creates a database as an earlier version left it, with the first migrations of a
// dialect, and what statements add.
func earlier(t *testing.T, path string, sqlite, postgres int, statements ...string) {
	t.Helper()
	driver, dialect, k := "sqlite", "sqlite", sqlite
	version := fmt.Sprintf("PRAGMA user_version = %d", k)
	if strings.HasPrefix(path, "postgres://") {
		driver, dialect, k = "pgx", "postgres", postgres
		version = fmt.Sprintf("CREATE TABLE schema_version (one BOOLEAN PRIMARY KEY, version INT NOT NULL); INSERT INTO schema_version VALUES (TRUE, %d)", k)
	}
	db, err := sql.Open(driver, path)
	must(t, err)
	db.SetMaxOpenConns(1)
	var texts []string
	for i := range k {
		b, err := os.ReadFile(fmt.Sprintf("migrations/%s/%04d.sql", dialect, i+1))
		must(t, err)
		texts = append(texts, string(b))
	}
	for _, text := range append(append(texts, version), statements...) {
		_, err := db.Exec(text)
		must(t, err)
	}
	must(t, db.Close())
}

func TestOldTokensStayValid(t *testing.T) { each(t, testOldTokensStayValid) }

// A token of an earlier version, which had no expiry, does not expire.
func testOldTokensStayValid(t *testing.T, path string) {
	earlier(t, path, 4, 1, `INSERT INTO api_tokens VALUES ('0123456789abcdef-one', 'ci', 'operator', '["*"]', 1700000000000), ('fedcba9876543210-two', 'ci', 'viewer', '[]', 1700000000000)`,
		`INSERT INTO nodes (id, device_type, secret_hash, version, capabilities, registered_at, last_seen) VALUES ('n', 'edge', 'h', '1.0.0', '["upgrade"]', 1, 2)`)
	s := open(t, path)
	if n, err := s.Node(t.Context(), "n"); err != nil || len(n.Capabilities) != 1 || len(n.Warnings) != 0 || n.Trial != "" || n.Hold != nil || !n.HealthAt.IsZero() {
		t.Errorf("a node of an earlier version: %+v, %v", n, err)
	}
	k, err := s.APIToken(t.Context(), "0123456789abcdef-one")
	if err != nil || k.Name != "ci" || k.Role != "operator" || !k.ExpiresAt.IsZero() || !k.LastUsedAt.IsZero() {
		t.Errorf("got %+v, %v", k, err)
	}
	ks, err := s.APITokens(t.Context())
	if err != nil || len(ks) != 2 || ks[0].ID == ks[1].ID || ks[0].ID == "" {
		t.Errorf("got %+v, %v", ks, err)
	}
	must(t, s.RemoveAPIToken(t.Context(), k.ID, api.AuditEntry{Time: now, Details: []byte(`{}`)}))
	if _, err := s.APIToken(t.Context(), "0123456789abcdef-one"); err == nil {
		t.Error("it works after it was revoked")
	}
}

func TestOldHealth(t *testing.T) { each(t, testOldHealth) }

// A node that reported its health to an earlier version has sent a health beat.
func testOldHealth(t *testing.T, path string) {
	const node = `INSERT INTO nodes (id, device_type, secret_hash, version, capabilities, registered_at, last_seen, health) VALUES ('%s', 'edge', 'h', '1.0.0', '[]', 1, 2, '%s')`
	earlier(t, path, 8, 5, fmt.Sprintf(node, "reported", "ok"), fmt.Sprintf(node, "silent", ""))
	s := open(t, path)
	for id, reported := range map[string]bool{"reported": true, "silent": false} {
		if n, err := s.Node(t.Context(), id); err != nil || n.HealthAt.IsZero() == reported {
			t.Errorf("%s: %v, %v", id, n.HealthAt, err)
		}
	}
}

func TestOldBeats(t *testing.T) { each(t, testOldBeats) }

// The beat, the commands and the nodes of an earlier version stay. Their uptime, limit and
// progress are not known.
func testOldBeats(t *testing.T, path string) {
	earlier(t, path, 9, 6, `INSERT INTO alive (one, at) VALUES (1, 1700000000000)`,
		`INSERT INTO nodes (id, device_type, secret_hash, version, capabilities, registered_at, last_seen) VALUES ('n', 'edge', 'h', '1.0.0', '[]', 1, 2)`,
		`INSERT INTO commands (id, node_id, version, channel, action, created_at) VALUES ('c', 'n', '1.1.0', 'stable', '{}', 1700000000000)`)
	s := open(t, path)
	b, err := s.LastBeat(t.Context())
	if err != nil || b.At.UnixMilli() != 1700000000000 || b.Uptime != 0 || b.BootID != "" {
		t.Errorf("got %+v, %v", b, err)
	}
	if c, err := s.Command(t.Context(), "c"); err != nil || c.Limit != 0 {
		t.Errorf("got %+v, %v", c, err)
	}
	if n, err := s.Node(t.Context(), "n"); err != nil || !n.ProgressAt.IsZero() {
		t.Errorf("got %+v, %v", n, err)
	}
	must(t, s.RecordBeat(t.Context(), now, 0, store.Beat{Uptime: time.Minute, BootID: "b", Boot: time.Hour}))
	must(t, s.RecordAlive(t.Context(), now, 0))
	if b, err := s.LastBeat(t.Context()); err != nil || b.Uptime != time.Minute || b.BootID != "" {
		t.Errorf("got %+v, %v", b, err)
	}
	must(t, s.Ready(t.Context()))
}
