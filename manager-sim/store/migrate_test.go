package store_test

import (
	"database/sql"
	"os"
	"strings"
	"testing"

	"github.com/bilbycast/edge-agent/manager-sim/api"
)

func TestOldTokensStayValid(t *testing.T) { each(t, testOldTokensStayValid) }

// A token of an earlier version, which had no expiry, does not expire.
func testOldTokensStayValid(t *testing.T, path string) {
	driver, files := "sqlite", []string{"sqlite/0001.sql", "sqlite/0002.sql", "sqlite/0003.sql", "sqlite/0004.sql"}
	version := "PRAGMA user_version = 4"
	if strings.HasPrefix(path, "postgres://") {
		driver, files = "pgx", []string{"postgres/0001.sql"}
		version = "CREATE TABLE schema_version (one BOOLEAN PRIMARY KEY, version INT NOT NULL); INSERT INTO schema_version VALUES (TRUE, 1)"
	}
	db, err := sql.Open(driver, path)
	must(t, err)
	db.SetMaxOpenConns(1)
	exec := func(text string) {
		t.Helper()
		_, err := db.Exec(text)
		must(t, err)
	}
	for _, f := range files {
		b, err := os.ReadFile("migrations/" + f)
		must(t, err)
		exec(string(b))
	}
	exec(version)
	exec(`INSERT INTO api_tokens VALUES ('0123456789abcdef-one', 'ci', 'operator', '["*"]', 1700000000000), ('fedcba9876543210-two', 'ci', 'viewer', '[]', 1700000000000)`)
	exec(`INSERT INTO nodes (id, device_type, secret_hash, version, capabilities, registered_at, last_seen) VALUES ('n', 'edge', 'h', '1.0.0', '["upgrade"]', 1, 2)`)
	must(t, db.Close())

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
