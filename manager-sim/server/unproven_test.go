package server_test

import (
	"testing"

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
				p.first = p.again(p.firstReg, "1.1.0")
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
