package server_test

import (
	"net/http"
	"testing"

	"github.com/bilbycast/edge-agent/manager-sim/api"
	"github.com/bilbycast/edge-agent/wire"
)

// A sent command is withdrawn over the wire where the node announced that it obeys that, again
// at each authentication until the node answers. Elsewhere the API says that it may still run.
func TestAWithdrawal(t *testing.T) {
	t.Parallel()
	for _, announced := range []bool{true, false} {
		m := start(t)
		n, reg := m.register()
		if announced {
			n.conn.Close()
			m.nodeIs(reg.NodeID, false)
			n = m.withFeatures(reg, wire.FeatureWithdraw)
		}
		path := "/api/v1/nodes/" + reg.NodeID
		m.into(http.StatusAccepted, "POST", path+"/upgrade", `{"version":"1.1.0"}`, nil)
		id := n.command().CommandID
		m.into(http.StatusNotFound, "POST", path+"/withdraw", `{"command_id":"none"}`, nil)
		var v api.Node
		m.into(http.StatusOK, "POST", path+"/withdraw", `{"command_id":"`+id+`","reason":"wrong version"}`, &v)
		if v.UpgradeState != api.Withdrawn || !v.MayStillRun {
			t.Errorf("announced %t: %s, may still run %t", announced, v.UpgradeState, v.MayStillRun)
		}
		m.into(http.StatusConflict, "POST", path+"/withdraw", `{"command_id":"`+id+`"}`, nil)
		if !announced {
			n.synced("nothing-came")
			n.conn.Close()
			m.nodeIs(reg.NodeID, false)
			n = m.withFeatures(reg)
			n.synced("still-nothing")
			continue
		}
		w := n.command()
		if w.CommandID == id { // sent again: the request came while the node authenticated
			w = n.command()
		}
		if w.Action.Type != wire.ActionWithdraw || w.Action.CommandID != id {
			t.Errorf("it gets %+v", w)
		}
		n.conn.Close() // before it answers
		m.nodeIs(reg.NodeID, false)
		n = m.withFeatures(reg, wire.FeatureWithdraw)
		c := n.command()
		if c.Action.Type != wire.ActionWithdraw || c.Action.CommandID != id {
			t.Errorf("it gets %+v at the next authentication", c)
		}
		n.ack(&wire.CommandAck{CommandID: id, Error: "the manager withdrew", ErrorCode: "upgrade_withdrawn"})
		n.ack(&wire.CommandAck{CommandID: c.CommandID, Success: true})
		if v := m.view(reg.NodeID); v.UpgradeState != api.Withdrawn || v.MayStillRun || v.ErrorCode != "upgrade_withdrawn" {
			t.Errorf("after the answer: %s, may still run %t, code %s", v.UpgradeState, v.MayStillRun, v.ErrorCode)
		}
		n.conn.Close()
		m.nodeIs(reg.NodeID, false)
		n = m.withFeatures(reg, wire.FeatureWithdraw)
		n.synced("nothing-after-the-answer")
	}
}

// withFeatures authenticates a node that announces features.
func (m *manager) withFeatures(reg *wire.RegisterAck, features ...string) *node {
	m.t.Helper()
	n := m.dial()
	a := auth()
	a.RegistrationToken, a.NodeID, a.NodeSecret, a.Features = "", reg.NodeID, reg.NodeSecret, features
	n.send(a)
	if _, ok := n.next().(*wire.AuthOK); !ok {
		m.t.Fatal("not accepted")
	}
	n.send(&wire.Health{Status: wire.StatusOK, Version: a.SoftwareVersion, Capabilities: []string{wire.CapabilityUpgrade}})
	return n
}

// A request that names the command which it replaces is refused if that changed.
func TestReplacesTheCommandThatWasSeen(t *testing.T) {
	t.Parallel()
	m := start(t)
	n, reg := m.register()
	n.conn.Close()
	m.nodeIs(reg.NodeID, false)
	path := "/api/v1/nodes/" + reg.NodeID + "/upgrade"
	var first, second api.CommandCreated
	m.into(http.StatusAccepted, "POST", path, `{"version":"2.0.0"}`, &first)
	m.into(http.StatusConflict, "POST", path, `{"version":"1.1.0"}`, nil)
	m.into(http.StatusConflict, "POST", path, `{"version":"1.1.0","replaces":"another"}`, nil)
	m.into(http.StatusAccepted, "POST", path, `{"version":"1.1.0","replaces":"`+first.CommandID+`"}`, &second)
	n = m.withFeatures(reg)
	if c := n.command(); c.CommandID != second.CommandID || c.Action.Version != "1.1.0" {
		t.Errorf("it gets %+v", c)
	}
	n.synced("nothing-else")
	m.into(http.StatusConflict, "POST", path, `{"version":"1.2.0","replaces":"`+second.CommandID+`"}`, nil) // it was sent
}
