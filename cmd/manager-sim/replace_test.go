package main

import (
	"context"
	"strings"
	"testing"

	"github.com/bilbycast/edge-agent/cmd/internal/cli"
	"github.com/bilbycast/edge-agent/manager-sim/fleet"
)

// upgrade --replace prints who requested what and when, asks a person, and withdraws that
// command only.
func TestReplaceNamesTheCommandItShows(t *testing.T) {
	t.Parallel()
	m := startManager(t)
	ctx, cancel := context.WithCancel(t.Context())
	id := m.fleet(ctx, fleet.Config{Nodes: 1})[0].ID
	cancel()
	m.await("the node is offline", func() bool { return !m.node(id).Online })

	if _, errs, code := m.run("upgrade", id, "2.0.0", "--replace"); code != cli.OK || strings.Contains(errs, "replacing") {
		t.Fatalf("without a command: exit code %d\n%s", code, errs)
	}
	first := m.node(id).CommandID
	if _, errs, code := m.run("upgrade", id, "1.1.0"); code != cli.Refused || !strings.Contains(errs, "(--replace; in the API") || !strings.Contains(errs, first) {
		t.Errorf("without --replace: exit code %d\n%s", code, errs)
	}
	shown := "replacing command " + first + ": " + m.node(id).RequestedBy + " requested 2.0.0 on 2"
	_, errs, code := m.answer("n\n", "upgrade", id, "1.1.0", "--replace")
	if code != cli.Failed || !strings.Contains(errs, shown) || !strings.Contains(errs, "requests 1.1.0.\nContinue? [y/N]") || m.node(id).CommandID != first {
		t.Errorf("not confirmed: exit code %d\n%s", code, errs)
	}
	if _, errs, code = m.answer("y\n", "upgrade", id, "1.1.0", "--replace"); code != cli.OK || m.node(id).TargetVersion != "1.1.0" {
		t.Errorf("confirmed: exit code %d\n%s", code, errs)
	}
	if _, errs, code = m.answer("n\n", "upgrade", id, "1.2.0", "--replace", "--yes"); code != cli.OK || strings.Contains(errs, "Continue?") || m.node(id).TargetVersion != "1.2.0" {
		t.Errorf("with --yes: exit code %d\n%s", code, errs)
	}
	_, errs, code = m.run("upgrade", id, "1.3.0", "--replace")
	if code != cli.OK || !strings.Contains(errs, "requested 1.2.0 on 2") || m.node(id).TargetVersion != "1.3.0" {
		t.Errorf("without a terminal: exit code %d\n%s", code, errs)
	}
}
