package server_test

import (
	"net/http"
	"testing"
	"time"

	"github.com/bilbycast/edge-agent/manager-sim/api"
	"github.com/bilbycast/edge-agent/manager-sim/rollout"
	"github.com/bilbycast/edge-agent/manager-sim/server"
	"github.com/bilbycast/edge-agent/release"
	"github.com/bilbycast/edge-agent/wire"
)

// A node of a rollout that authenticates at the new version is not updated before it has
// reported its trial, whatever arrived before: nobody knows yet whether it is on trial. An
// agent that reports no trial is updated with its first health beat.
func TestANewVersionBeforeItsFirstHealthBeat(t *testing.T) {
	t.Parallel()
	acks := func(status string) func(p *pair) {
		return func(p *pair) {
			p.first.ack(&wire.CommandAck{CommandID: p.command, Success: true, Data: &wire.AckData{Status: status}})
		}
	}
	for name, tt := range map[string]struct {
		before func(p *pair)
		state  api.UpgradeState
	}{
		"acknowledged": {acks("staged"), api.Proving},
		"for an operator, acknowledged": {func(p *pair) {
			p.first.reports(p.command, release.StagedManual, "1.0.0", "1.1.0", "staged")
			acks("staged_manual")(p)
		}, api.Proving},
		"sent": {func(*pair) {}, api.Sent},
	} {
		for _, trial := range []string{wire.TrialUnproven, ""} {
			t.Run(name+", "+trial, func(t *testing.T) {
				t.Parallel()
				p := startPair(t, server.Config{}, `{"version":"1.1.0","settle_secs":3600}`, nil)
				tt.before(p)
				p.first.conn.Close()
				p.first = p.reconnect(p.firstReg, "1.1.0")
				if v := p.view(p.firstReg.NodeID); v.UpgradeState != tt.state {
					t.Errorf("before its first health beat: %s", v.UpgradeState)
				}
				want := rollout.NodeUpdated
				if trial == "" {
					p.first.health("1.1.0") // an earlier agent, whose events are lost
				} else {
					want = rollout.NodeUnproven
					p.first.trial("1.1.0", trial, "an answer")
					p.first.reports(p.command, release.Staged, "1.0.0", "1.1.0", "staged")
				}
				p.until(string(want), func() bool { return p.of().State == want })
			})
		}
	}
}

// unproven begins a rollout whose first node is unproven.
func unproven(t *testing.T) *pair {
	t.Helper()
	p := startPair(t, server.Config{}, `{"version":"1.1.0","settle_secs":0}`, nil)
	p.first.reports(p.command, release.Staged, "1.0.0", "1.1.0", "staged")
	p.first.conn.Close()
	p.first = p.reconnect(p.firstReg, "1.1.0")
	p.first.trial("1.1.0", wire.TrialUnproven, "an answer")
	p.until("it is unproven", func() bool { return p.of().State == rollout.NodeUnproven })
	return p
}

// unprovenAtTheLimit is unproven, when the node has reached the time limit, an operator has
// resumed, and the second node has its command.
func unprovenAtTheLimit(t *testing.T) *pair {
	t.Helper()
	p := unproven(t)
	p.age(time.Hour)
	p.until("the pause", func() bool { return p.rollout().Status == rollout.Paused })
	p.into(http.StatusOK, "POST", "/api/v1/rollouts/"+p.id+"/resume", p.seen(p.id), nil)
	p.second.command()
	return p
}

// An unproven node past the time limit that runs another version again, without an event,
// pauses the rollout. When it runs the version again it is unproven again.
func TestAnUnprovenNodeThatRunsAnotherVersion(t *testing.T) {
	t.Parallel()
	p := unprovenAtTheLimit(t)
	p.first.conn.Close()
	p.first = p.again(p.firstReg, "1.0.0")
	p.first.health("1.0.0")
	p.until("the pause", func() bool { return p.rollout().Status == rollout.Paused })
	if n := p.of(); n.State != rollout.NodeFailed || n.Code != rollout.OtherVersion || n.Message != "it runs 1.0.0" {
		t.Errorf("%+v", n)
	}
	p.first.conn.Close()
	p.first = p.reconnect(p.firstReg, "1.1.0")
	p.first.trial("1.1.0", wire.TrialUnproven, "an answer")
	p.until("it is unproven again", func() bool { return p.of().State == rollout.NodeUnproven })
}

// A newer version from a stick takes the place of one that is unproven past the time limit:
// the rollout goes on without the node.
func TestAnUnprovenNodeThatRunsANewerVersion(t *testing.T) {
	t.Parallel()
	p := unprovenAtTheLimit(t)
	p.first.conn.Close()
	p.first = p.reconnect(p.firstReg, "1.2.0") // an agent sends its events before its first health beat
	p.first.reports(p.command, release.Superseded, "1.0.0", "1.1.0", "1.2.0 took its place")
	p.first.trial("1.2.0", wire.TrialOpen, "")
	p.until("it is skipped", func() bool { return p.of().State == rollout.NodeSkipped })
	if r := p.rollout(); r.Status != rollout.Running {
		t.Errorf("%s, %q", r.Status, r.Reason)
	}
}

// An unproven node that an operator removes is skipped, before the time limit and after it.
func TestAnUnprovenNodeThatIsRemoved(t *testing.T) {
	t.Parallel()
	for _, late := range []bool{false, true} {
		var p *pair
		if late {
			p = unprovenAtTheLimit(t)
		} else {
			p = unproven(t)
		}
		p.into(http.StatusNoContent, "DELETE", "/api/v1/nodes/"+p.firstReg.NodeID, "", nil)
		p.until("it is skipped", func() bool { return p.of().State == rollout.NodeSkipped })
		if !late {
			p.second.command()
		}
	}
}
