package main

import (
	"context"
	"database/sql"
	"path/filepath"
	"strings"
	"testing"

	"github.com/bilbycast/edge-agent/cmd/internal/cli"
	"github.com/bilbycast/edge-agent/manager-sim/fleet"
)

// A list says how many records could not be read, in one line, and with --json as unreadable.
func TestListsCountWhatCannotBeRead(t *testing.T) {
	t.Parallel()
	m := startManager(t)
	nodes := m.fleet(t.Context(), fleet.Config{Nodes: 3})
	m.group("site one", nodes)
	const line = "1 record could not be read; see the log and the database of the manager\n"
	if _, errs, code := m.run("nodes"); code != cli.OK || strings.Contains(errs, "read") {
		t.Fatalf("exit code %d, %s", code, errs)
	}
	db, err := sql.Open("sqlite", filepath.Join(m.dir, "manager.db"))
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if _, err := db.ExecContext(t.Context(), "UPDATE nodes SET capabilities = '{' WHERE id = (SELECT min(id) FROM nodes)"); err != nil {
		t.Fatal(err)
	}
	if out, errs, code := m.run("nodes"); code != cli.OK || strings.Count(errs, line) != 1 || strings.Count(out, "\n") != 3 {
		t.Errorf("nodes: exit code %d\n%s%s", code, out, errs)
	}
	if out, errs, code := m.run("nodes", "--json"); code != cli.OK || strings.Contains(errs, "record") || !strings.Contains(out, `"unreadable":1`) {
		t.Errorf("nodes --json: exit code %d\n%s%s", code, out, errs)
	}
}

// A rollout that waits for an offline node names it as the other commands do.
func TestRolloutShowNamesWhomItWaitsFor(t *testing.T) {
	t.Parallel()
	m := startManager(t)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	nodes := m.fleet(ctx, fleet.Config{Nodes: 1})
	m.group("site one", nodes)
	cancel()
	id := nodes[0].ID
	m.await("the node is offline", func() bool { return !m.node(id).Online })
	m.run("rollout", "start", "site one", "1.1.0")
	if out, errs, code := m.run("rollout", "show", "site one"); code != cli.OK || !strings.Contains(out, "  waiting for 1 offline node: "+id+" (edge at 127.0.0.1)\n") {
		t.Errorf("exit code %d\n%s%s", code, out, errs)
	}
}

// A node whose record cannot be read is found by its id: show says what to do, withdraw ends its
// upgrade, and remove removes it.
func TestANodeThatCannotBeRead(t *testing.T) {
	t.Parallel()
	m := startManager(t)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	nodes := m.fleet(ctx, fleet.Config{Nodes: 1})
	cancel()
	id := nodes[0].ID
	m.await("the node is offline", func() bool { return !m.node(id).Online })
	if _, errs, code := m.run("upgrade", id, "1.1.0"); code != cli.OK {
		t.Fatal(errs)
	}
	db, err := sql.Open("sqlite", filepath.Join(m.dir, "manager.db"))
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if _, err := db.ExecContext(t.Context(), "UPDATE nodes SET capabilities = '{'"); err != nil {
		t.Fatal(err)
	}
	if _, errs, code := m.run("node", "show", id); code == cli.OK || !strings.Contains(errs, "Remove the node, or repair its record") {
		t.Errorf("show: exit code %d, %s", code, errs)
	}
	if out, errs, code := m.run("withdraw", id); code != cli.OK || !strings.Contains(out, "withdrawn") {
		t.Errorf("withdraw: exit code %d, %s %s", code, out, errs)
	}
	if out, errs, code := m.run("node", "remove", id, "--reason", "test"); code != cli.OK || !strings.Contains(out, "is removed") {
		t.Errorf("remove: exit code %d, %s %s", code, out, errs)
	}
}
