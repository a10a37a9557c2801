package server_test

import (
	"net/http"
	"strings"
	"testing"

	"github.com/bilbycast/edge-agent/manager-sim/api"
)

// A command that was sent, and that its node has not begun, is in the way of another one until
// it is withdrawn: the refusal says so.
func TestTheRefusalNamesTheWithdrawal(t *testing.T) {
	t.Parallel()
	m := start(t)
	n, reg := m.register()
	path := "/api/v1/nodes/" + reg.NodeID
	var sent api.CommandCreated
	m.into(http.StatusAccepted, "POST", path+"/upgrade", `{"version":"2.0.0"}`, &sent)
	n.command()
	n.conn.Close()
	m.nodeIs(reg.NodeID, false)
	code, text := m.call("POST", path+"/upgrade", `{"version":"1.1.0"}`)
	if code != http.StatusConflict || !strings.Contains(text, "it is sent to the node") || !strings.Contains(text, "withdraw it first (manager-sim withdraw "+reg.NodeID+")") {
		t.Errorf("%d %s", code, text)
	}
	m.into(http.StatusOK, "POST", path+"/withdraw", `{"command_id":"`+sent.CommandID+`"}`, nil)
	m.into(http.StatusAccepted, "POST", path+"/upgrade", `{"version":"1.1.0"}`, nil)
	n = m.withFeatures(reg)
	if c := n.command(); c.Action.Version != "1.1.0" {
		t.Errorf("it gets %+v", c)
	}
}
