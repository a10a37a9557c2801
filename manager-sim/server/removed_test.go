package server_test

import (
	"net/http"
	"testing"
	"time"

	"github.com/bilbycast/edge-agent/wire"
	"github.com/gorilla/websocket"
)

// The session of a node that is removed ends after the withdrawal of its command: at once when the
// node has answered, and soon if it does not answer.
func TestARemovedNodeGetsTheWithdrawal(t *testing.T) {
	t.Parallel()
	for name, answers := range map[string]bool{"answers": true, "is silent": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m := start(t)
			n, reg := m.register()
			n.conn.Close()
			m.nodeIs(reg.NodeID, false)
			n = m.withFeatures(reg, wire.FeatureWithdraw)
			n.synced("health")
			path := "/api/v1/nodes/" + reg.NodeID
			m.into(http.StatusAccepted, "POST", path+"/upgrade", `{"version":"1.1.0"}`, nil)
			id := n.command().CommandID
			removed := make(chan int, 1)
			began := time.Now()
			go func() {
				resp := m.do(admin, "DELETE", path, `{"reason":"test"}`, nil)
				resp.Body.Close()
				removed <- resp.StatusCode
			}()
			c := n.command()
			if c.Action.Type != wire.ActionWithdraw || c.Action.CommandID != id {
				t.Fatalf("it gets %+v", c)
			}
			if answers {
				n.send(&wire.CommandAck{CommandID: c.CommandID, Success: true})
			}
			if _, _, err := n.conn.ReadMessage(); !websocket.IsCloseError(err, websocket.ClosePolicyViolation) {
				t.Errorf("the session ends with %v", err)
			}
			if code := <-removed; code != http.StatusNoContent {
				t.Errorf("status %d", code)
			}
			if v := m.view(reg.NodeID); v.MayStillRun == answers {
				t.Errorf("may still run: %t", v.MayStillRun)
			}
			if took := time.Since(began); took > 10*time.Second {
				t.Errorf("the removal took %v", took)
			}
		})
	}
}
