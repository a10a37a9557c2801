package main

import (
	"strings"
	"testing"

	"github.com/bilbycast/edge-agent/cmd/internal/cli"
	"github.com/bilbycast/edge-agent/manager-sim/api"
	"github.com/bilbycast/edge-agent/manager-sim/fleet"
	"github.com/bilbycast/edge-agent/manager-sim/rollout"
)

// An operator leaves out a node by the beginning of its id, after the command has printed
// what it decides on; a script names what it saw.
func TestRolloutSkip(t *testing.T) {
	t.Parallel()
	m := startManager(t)
	show := m.pausedRollout()
	before := show()
	out, errs, code := m.run("rollout", "skip", "site one", before.Nodes[0].ID[:8])
	if code != cli.OK || !strings.Contains(errs, "deciding on the rollout of site one") || !strings.Contains(errs, "upgrade_checksum_mismatch") || !strings.Contains(out, "1 skipped") {
		t.Fatalf("exit code %d\n%s%s", code, out, errs)
	}
	if out, errs, code = m.run("rollout", "resume", "site one", "--revision", before.Decision); code != cli.Refused || !strings.Contains(errs, "1 more node left out: "+before.Nodes[0].ID) {
		t.Errorf("exit code %d\n%s%s", code, out, errs)
	}
	if out, errs, code = m.run("rollout", "skip", "site one", before.Nodes[1].ID, "--revision", show().Decision); code != cli.OK || strings.Contains(errs, "deciding") {
		t.Errorf("exit code %d\n%s%s", code, out, errs)
	}
	if r := show(); r.Counts[rollout.NodeSkipped] != 2 {
		t.Errorf("%v", r.Counts)
	}
	if _, errs, code = m.run("rollout", "skip", "site one", "nobody"); code != cli.Failed || !strings.Contains(errs, `there is no node whose id is or begins with "nobody"`) {
		t.Errorf("exit code %d\n%s", code, errs)
	}
	if _, errs, code = m.run("rollout", "resume", "site one", "--revision="); code != cli.Misuse || !strings.Contains(errs, "--revision is empty") {
		t.Errorf("exit code %d\n%s", code, errs)
	}
}

// pausedRollout starts a rollout to two nodes of site one that refuse it, and returns what
// shows it.
func (m *testManager) pausedRollout() (show func() api.Rollout) {
	m.t.Helper()
	nodes := m.fleet(m.t.Context(), fleet.Config{Nodes: 2, Outcome: func(int, string) fleet.Outcome { return fleet.Refused }})
	m.group("site one", nodes)
	m.run("rollout", "start", "site one", "1.1.0", "--settle-secs", "0", "--wait")
	return func() api.Rollout {
		m.t.Helper()
		list, err := m.client().AllRollouts(m.t.Context(), api.RolloutQuery{})
		if err != nil {
			m.t.Fatal(err)
		}
		return list[0]
	}
}
