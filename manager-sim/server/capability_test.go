package server_test

import (
	"net/http"
	"strings"
	"testing"

	"github.com/bilbycast/edge-agent/manager-sim/api"
	"github.com/bilbycast/edge-agent/wire"
)

// rolloutView returns a rollout as the API shows it.
func (m *manager) rolloutView(id string) (v api.Rollout) {
	m.t.Helper()
	m.into(http.StatusOK, "GET", "/api/v1/rollouts/"+id, "", &v)
	return v
}

// A rollout gives a node no command before the node has reported, in its present session, that
// it offers upgrades. Until then the rollout names it, with the reason.
func TestARolloutWaitsForTheCapability(t *testing.T) {
	t.Parallel()
	m := start(t)
	n, reg, g := m.grouped()
	n.conn.Close()
	m.nodeIs(reg.NodeID, false)
	id := m.schedule(admin, g.ID, `{"version":"1.1.0","strategy":"immediate"}`).RolloutID
	n = m.reconnect(reg, "1.0.0")
	n.synced("connected")
	waits := func(reason string) {
		t.Helper()
		v := m.rolloutView(id)
		if v.Nodes[0].State != "waiting" || len(v.WaitingFor) != 1 || !strings.Contains(v.WaitingFor[0].Reason, reason) || !strings.Contains(v.WaitingText(), "waiting for 1 online node: "+reg.NodeID+" (edge at 127.0.0.1): ") {
			t.Errorf("%s: %s", v.Nodes[0].State, v.WaitingText())
		}
	}
	waits("has not reported its health since it connected")
	n.send(&wire.Health{Status: wire.StatusOK, Version: "1.0.0", UpgradeUnavailable: "upgrades are disabled"})
	n.synced("without-upgrades")
	waits("It reports: upgrades are disabled")
	n.health("1.0.0")
	n.command()
}

// A command that was never sent is taken back when its node reports that it offers no upgrades.
// The node waits for that without a time limit, and gets a new attempt afterwards.
func TestACommandIsTakenBackWithTheCapability(t *testing.T) {
	t.Parallel()
	b := startBlockable(t)
	n, reg, g := b.grouped()
	id := b.schedule(admin, g.ID, `{"version":"1.1.0","strategy":"immediate"}`).RolloutID
	first := n.command().CommandID
	n.conn.Close()
	b.nodeIs(reg.NodeID, false)
	b.damage("UPDATE commands SET state = 'pending', sent_at = 0")
	n = b.reconnect(reg, "1.0.0")
	n.send(&wire.Health{Status: wire.StatusOK, Version: "1.0.0", UpgradeUnavailable: "upgrades are disabled"})
	b.until("the node to wait", func() bool { return b.rolloutView(id).Nodes[0].State == "waiting" })
	if v := b.rolloutView(id); len(v.WaitingFor) != 1 || !strings.Contains(v.WaitingFor[0].Reason, "upgrades are disabled") {
		t.Errorf("%+v", v.WaitingFor)
	}
	var list api.CommandList
	b.into(http.StatusOK, "GET", "/api/v1/nodes/"+reg.NodeID+"/commands", "", &list)
	if c := list.Commands[0]; c.State != "withdrawn" || c.WithdrawReason != "unable" || c.MayStillRun {
		t.Errorf("the command is %s (%s), may still run %t", c.State, c.WithdrawReason, c.MayStillRun)
	}
	n.health("1.0.0")
	if c := n.command(); c.CommandID == first || c.Action.Version != "1.1.0" {
		t.Errorf("it gets %+v", c)
	}
}

// A wave names an online node with another upgrade in progress.
func TestAWaveNamesABusyNode(t *testing.T) {
	t.Parallel()
	m := start(t)
	n, reg, g := m.grouped()
	m.into(http.StatusAccepted, "POST", "/api/v1/nodes/"+reg.NodeID+"/upgrade", `{"version":"1.2.0"}`, nil)
	n.command()
	id := m.schedule(admin, g.ID, `{"version":"1.1.0"}`).RolloutID
	if v := m.rolloutView(id); len(v.WaitingFor) != 1 || !strings.Contains(v.WaitingFor[0].Reason, "admin requested 1.2.0") {
		t.Errorf("%+v", v.WaitingFor)
	}
}

// A node whose command a person withdraws while its rollout is paused is left out, as it is
// while the rollout runs.
func TestAWithdrawalDuringAPause(t *testing.T) {
	t.Parallel()
	m := start(t)
	n, reg, g := m.grouped() // which announced no withdrawals: its command is held
	id := m.schedule(admin, g.ID, `{"version":"1.1.0","strategy":"immediate"}`).RolloutID
	command := n.command().CommandID
	m.into(http.StatusOK, "POST", "/api/v1/rollouts/"+id+"/pause", "", nil)
	m.into(http.StatusOK, "POST", "/api/v1/nodes/"+reg.NodeID+"/withdraw", `{"command_id":"`+command+`"}`, nil)
	m.until("the node to be left out", func() bool { return m.rolloutView(id).Nodes[0].State == "skipped" })
	if n := m.rolloutView(id).Nodes[0]; n.Code != "withdrawn" || n.Held != "" {
		t.Errorf("%+v", n)
	}
	m.into(http.StatusOK, "POST", "/api/v1/rollouts/"+id+"/resume", m.seen(id), nil)
	if v := m.rolloutView(id); v.Status != "completed" || v.Counts["skipped"] != 1 || v.Counts["failed"] != 0 {
		t.Errorf("%s %+v", v.Status, v.Counts)
	}
}
