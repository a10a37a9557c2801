package server_test

import (
	"net/http"
	"testing"

	"github.com/bilbycast/edge-agent/wire"
)

// A command is sent to a node that offers upgrades now: what it offered in an earlier session
// does not count, and a command that was lost is not sent again before it offers them.
func TestACommandWaitsForTheCapability(t *testing.T) {
	t.Parallel()
	for name, lost := range map[string]bool{"sent and lost": true, "never sent": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m := start(t)
			n, reg := m.register()
			upgrade := func() {
				m.into(http.StatusAccepted, "POST", "/api/v1/nodes/"+reg.NodeID+"/upgrade", `{"version":"1.1.0"}`, nil)
			}
			if lost {
				upgrade()
				n.command()
			}
			n.conn.Close()
			m.nodeIs(reg.NodeID, false)
			if !lost {
				upgrade()
			}
			n = m.reconnect(reg, "1.0.0")
			getsNothing := func(id string) {
				t.Helper()
				n.send(event(id))
				if got, ok := n.next().(*wire.EventAck); !ok {
					t.Fatalf("%s: it gets %+v", id, got)
				}
			}
			getsNothing("before-its-health")
			n.send(&wire.Health{Status: wire.StatusOK, Version: "1.0.0", UpgradeUnavailable: "upgrades are disabled"})
			getsNothing("without-upgrades")
			n.health("1.0.0")
			n.command()
			n.health("1.0.0")
			getsNothing("sent-once")
		})
	}
}

// A withdrawal is sent at once, whatever the node offers.
func TestAWithdrawalWaitsForNoCapability(t *testing.T) {
	t.Parallel()
	m := start(t)
	n, reg := m.register()
	m.into(http.StatusAccepted, "POST", "/api/v1/nodes/"+reg.NodeID+"/upgrade", `{"version":"1.1.0"}`, nil)
	id := n.command().CommandID
	n.conn.Close()
	m.nodeIs(reg.NodeID, false)
	m.into(http.StatusOK, "POST", "/api/v1/nodes/"+reg.NodeID+"/withdraw", `{"command_id":"`+id+`"}`, nil)
	n = m.dial()
	a := auth()
	a.RegistrationToken, a.NodeID, a.NodeSecret, a.Features = "", reg.NodeID, reg.NodeSecret, []string{wire.FeatureWithdraw}
	n.send(a)
	if _, ok := n.next().(*wire.AuthOK); !ok {
		t.Fatal("not accepted")
	}
	if c := n.command(); c.Action.Type != wire.ActionWithdraw || c.Action.CommandID != id {
		t.Errorf("%+v", c)
	}
}
