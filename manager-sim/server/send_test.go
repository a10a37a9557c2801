package server_test

import (
	"net/http"
	"slices"
	"testing"
	"time"

	"github.com/bilbycast/edge-agent/manager-sim/api"
	"github.com/bilbycast/edge-agent/wire"
)

// A command that was sent and got lost is not sent again when its reason is gone: the requester
// lost the right, the node moved to a group for which the requester has none, or the time limit
// is over. The node gets the withdrawal the first time that it returns.
func TestALostCommandWithoutAReasonIsNotSentAgain(t *testing.T) {
	t.Parallel()
	for _, why := range []string{"token", "move", "limit"} {
		m := start(t)
		var old, other api.Group
		m.into(http.StatusCreated, "POST", "/api/v1/groups", `{"name":"old"}`, &old)
		m.into(http.StatusCreated, "POST", "/api/v1/groups", `{"name":"other"}`, &other)
		n, reg := m.register()
		n.conn.Close()
		m.nodeIs(reg.NodeID, false)
		n = m.withFeatures(reg, wire.FeatureWithdraw)
		path := "/api/v1/nodes/" + reg.NodeID
		m.into(http.StatusOK, "PUT", path+"/group", `{"group_id":"`+old.ID+`"}`, nil)
		var token api.TokenCreated
		m.into(http.StatusCreated, "POST", "/api/v1/tokens", `{"name":"op","role":"operator","groups":["`+old.ID+`"]}`, &token)
		if code, text := m.as(token.Token, "POST", path+"/upgrade", `{"version":"1.1.0","limit_secs":60}`); code != http.StatusAccepted {
			t.Fatal(code, text)
		}
		id := n.command().CommandID
		n.conn.Close() // the command got lost
		m.nodeIs(reg.NodeID, false)
		switch why {
		case "token":
			m.into(http.StatusNoContent, "DELETE", "/api/v1/tokens/"+token.ID, "", nil)
		case "move":
			m.into(http.StatusOK, "PUT", path+"/group", `{"group_id":"`+other.ID+`"}`, nil)
		case "limit":
			if err := m.Store.RecordSent(t.Context(), id, time.Now().Add(-2*time.Minute)); err != nil {
				t.Fatal(err)
			}
		}
		n = m.withFeatures(reg, wire.FeatureWithdraw)
		if c := n.command(); c.Action.Type != wire.ActionWithdraw || c.Action.CommandID != id {
			t.Errorf("%s: the node gets %+v", why, c)
		}
		var list api.CommandList
		m.into(http.StatusOK, "GET", path+"/commands", "", &list)
		if c := list.Commands[0]; c.State != "withdrawn" || !slices.Contains([]string{"rights", "moved", "time_limit"}, c.WithdrawReason) {
			t.Errorf("%s: the command is %s (%s)", why, c.State, c.WithdrawReason)
		}
	}
}
