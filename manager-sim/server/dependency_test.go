package server_test

import (
	"net/http"
	"strings"
	"testing"

	"github.com/bilbycast/edge-agent/manager-sim/api"
	"github.com/bilbycast/edge-agent/manager-sim/rollout"
	"github.com/bilbycast/edge-agent/manager-sim/server"
	"github.com/bilbycast/edge-agent/release"
	"github.com/bilbycast/edge-agent/wire"
)

// rollsBack reports a rollback from 1.1.0 with these details.
func (n *node) rollsBack(command, text string, d wire.Details) {
	n.t.Helper()
	d.ErrorCode, d.FromVersion, d.ToVersion, d.CommandID = release.RolledBack, "1.1.0", "1.0.0", command
	n.send(&wire.Event{EventID: command + "-back", Severity: release.RolledBack.Severity(), Category: wire.CategoryUpgrade, Message: text, Details: d})
	n.synced("back-" + command)
}

// A node that rolled back although probably a dependency is down does not count against the
// version. The rollout neither goes on nor fails it, until an operator decides.
func TestARollbackForADependency(t *testing.T) {
	t.Parallel()
	const text = "1.1.0 was rolled back: the check failed; probably a dependency is down: the check of 1.0.0 fails as well: no route to db"
	for _, act := range []string{api.ActRetry, api.ActResume} {
		t.Run(act, func(t *testing.T) {
			t.Parallel()
			p := startPair(t, server.Config{}, `{"version":"1.1.0","settle_secs":0,"threshold":2}`, nil)
			p.first.reports(p.command, release.Staged, "1.0.0", "1.1.0", "staged")
			p.first.conn.Close()
			p.first = p.again(p.firstReg, "1.0.0")
			p.first.rollsBack(p.command, text, wire.Details{Dependency: true})
			p.until("the pause", func() bool { return p.rollout().Status == rollout.Paused })
			r, n := p.rollout(), p.of()
			if want := "1 node rolled back, probably a dependency (" + p.firstReg.NodeID + ") in wave 1 of 2"; r.Reason != want {
				t.Errorf("reason %q, want %q", r.Reason, want)
			}
			if r.Counts[rollout.NodeDependency] != 1 || r.Counts[rollout.NodeRolledBack]+r.Counts[rollout.NodeFailed]+r.Counts[rollout.NodeUpdated] != 0 || r.Wave != 0 {
				t.Errorf("wave %d, %v", r.Wave, r.Counts)
			}
			if n.State != rollout.NodeDependency || n.Code != rollout.Dependency || n.Message != text {
				t.Errorf("the node of the rollout: %+v", n)
			}
			if v := p.view(p.firstReg.NodeID); v.UpgradeState != api.RolledBack || !v.Dependency || v.ErrorCode != string(release.RolledBack) || v.Error != text {
				t.Errorf("the node: %+v", v)
			}
			if _, events := p.call("GET", "/api/v1/events?node_id="+p.firstReg.NodeID, ""); !strings.Contains(events, `"dependency":true`) {
				t.Errorf("events %s", events)
			}
			p.first.health("1.0.0")
			p.first.synced("well")
			p.into(http.StatusOK, "POST", "/api/v1/rollouts/"+p.id+"/"+act, p.seen(p.id), nil)
			if act == api.ActRetry {
				if c := p.first.command(); c.CommandID == p.command || c.Action.Version != "1.1.0" || p.rollout().Wave != 0 {
					t.Errorf("%+v, wave %d", c, p.rollout().Wave)
				}
				return
			}
			p.second.command()
			if r := p.rollout(); r.Status != rollout.Running || r.Wave != 1 || p.of().State != rollout.NodeDependency {
				t.Errorf("after it was resumed: %s, wave %d, %+v", r.Status, r.Wave, p.of())
			}
		})
	}
}

// No text of a node makes a bad version look like a dependency.
func TestARollbackThatOnlySaysDependency(t *testing.T) {
	t.Parallel()
	const say = `"dependency":true, {"dependency":true}`
	p := startPair(t, server.Config{}, `{"version":"1.1.0","settle_secs":0}`, nil)
	p.first.reports(p.command, release.Staged, "1.0.0", "1.1.0", "staged")
	p.first.rollsBack(p.command, say, wire.Details{Reason: say, Journal: []string{say}, FailedStarts: []string{say}, Trial: &wire.Trial{Link: say}})
	p.until("the pause", func() bool { return p.rollout().Status == rollout.Paused })
	if r := p.rollout(); r.Counts[rollout.NodeRolledBack] != 1 || p.of().Code != string(release.RolledBack) || p.view(p.firstReg.NodeID).Dependency {
		t.Errorf("%v, %+v", r.Counts, p.of())
	}
}
