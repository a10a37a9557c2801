package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/bilbycast/edge-agent/cmd/internal/cli"
	"github.com/bilbycast/edge-agent/manager-sim/fleet"
	"github.com/bilbycast/edge-agent/wire"
)

// A created token works until it is revoked.
func TestTokens(t *testing.T) {
	t.Parallel()
	m := startManager(t)
	m.group("site one", nil)
	if _, errs, code := m.run("token", "list"); code != cli.OK || errs != "No tokens.\n" {
		t.Errorf("%d %q", code, errs)
	}
	if _, errs, code := m.run("token", "create", "ci"); code != cli.Misuse || !strings.Contains(errs, "--role is missing") {
		t.Errorf("without a role: %d %s", code, errs)
	}
	secret, errs, code := m.run("token", "create", "ci", "--role", "viewer", "--group", "site one", "--expires", "2h")
	if code != cli.OK || strings.Contains(errs, strings.TrimSpace(secret)) {
		t.Fatalf("%d %q %q", code, secret, errs)
	}
	id := strings.Fields(errs)[1]
	file := filepath.Join(t.TempDir(), "ci.token")
	if err := os.WriteFile(file, []byte(secret), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, errs, code := m.run("nodes", "--token-file", file); code != cli.OK {
		t.Errorf("with the token: %d %s", code, errs)
	}
	out, _, _ := m.run("token", "list")
	if !strings.Contains(out, id) || !strings.Contains(out, "site one") || strings.Contains(out, strings.TrimSpace(secret)) {
		t.Errorf("the list:\n%s", out)
	}
	if _, errs, code := m.run("token", "create", "blind", "--role", "operator"); code != cli.OK || !strings.Contains(errs, "\nwarning: ") {
		t.Errorf("without a group: %d %s", code, errs)
	}
	if _, errs, code := m.run("token", "create", "all", "--role", "operator", "--group", "*"); code != cli.OK || strings.Contains(errs, "warning: ") {
		t.Errorf("for all groups: %d %s", code, errs)
	}
	if out, errs, code := m.run("token", "revoke", id); code != cli.OK || !strings.Contains(out, "is revoked") {
		t.Errorf("revoke: %d %s", code, errs)
	}
	if _, errs, code := m.run("nodes", "--token-file", file); code != cli.Failed {
		t.Errorf("with the revoked token: %d %s", code, errs)
	}
}

// A node with unknown credentials is listed, and connects after an operator has
// accepted it.
func TestPendingNodes(t *testing.T) {
	t.Parallel()
	m := startManager(t)
	if _, errs, code := m.run("node", "pending"); code != cli.OK || errs != "No pending nodes.\n" {
		t.Errorf("%d %q", code, errs)
	}
	const id = "1e8821f6-0acc-4a65-a661-589910968e57"
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(m.cert.PEM)
	ctx, cancel := context.WithCancel(t.Context())
	f, err := fleet.Start(ctx, fleet.Config{URL: "wss://" + m.addr + wire.Path, TLS: &tls.Config{RootCAs: pool}, Nodes: 1, Step: 50 * time.Millisecond,
		Saved: []fleet.Saved{{ID: id, Secret: strings.Repeat("s", 52), Version: "1.1.0"}}})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { cancel(); f.Wait() }()
	m.await("the node is pending", func() bool {
		out, _, _ := m.run("node", "pending")
		return strings.Contains(out, id)
	})
	if _, errs, code := m.run("node", "accept", "0000"); code != cli.Failed || !strings.Contains(errs, "there is no pending node") {
		t.Errorf("another one: %d %s", code, errs)
	}
	if out, errs, code := m.run("node", "accept", id[:8]); code != cli.OK || !strings.Contains(out, id) {
		t.Fatalf("accept: %d %s", code, errs)
	}
	m.await("the node is online", func() bool {
		out, _, _ := m.run("node", "show", id[:8])
		return strings.Contains(out, "online") && strings.Contains(out, "1.1.0")
	})
}
