package server_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/bilbycast/edge-agent/manager-sim/api"
	"github.com/bilbycast/edge-agent/wire"
)

// reads answers pings and close frames, as an agent does, until the connection ends.
func (n *node) reads() <-chan struct{} {
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for {
			if _, _, err := n.conn.ReadMessage(); err != nil {
				return
			}
		}
	}()
	return ended
}

// Two devices with one identity end each other's sessions. The manager marks the node,
// raises one event, and sends commands to neither, until an operator resolves it.
func TestTwoDevicesWithOneIdentity(t *testing.T) {
	t.Parallel()
	m := start(t)
	a, reg := m.register()
	for range 2 {
		ended := a.reads()
		a = m.again(reg, "1.0.0") // the other device
		<-ended
	}
	m.until("the node is marked", func() bool { return m.node(reg.NodeID).Duplicate != nil })
	v := m.node(reg.NodeID)
	if len(v.Duplicate.Addresses) != 2 || v.Duplicate.Since.IsZero() || v.Upgradable || v.NotUpgradable.Code != "duplicate_identity" {
		t.Errorf("the node: %+v", v)
	}
	path := "/api/v1/nodes/" + reg.NodeID
	if code, text := m.call("POST", path+"/upgrade", `{"version":"1.1.0"}`); code != http.StatusConflict || !strings.Contains(text, "connect from") {
		t.Errorf("an upgrade: %d %s", code, text)
	}
	ended := a.reads()
	a = m.again(reg, "1.0.0")
	<-ended
	var list struct{ Events []any }
	if m.into(200, "GET", "/api/v1/events?severity=critical&category=identity&node_id="+reg.NodeID, "", &list); len(list.Events) != 1 {
		t.Errorf("%d events", len(list.Events))
	}
	m.into(200, "POST", path+"/resolve", "", nil)
	if v := m.node(reg.NodeID); v.Duplicate != nil || !v.Upgradable {
		t.Errorf("after it was resolved: %+v", v)
	}
	if code, _ := m.call("POST", path+"/resolve", ""); code != http.StatusConflict {
		t.Errorf("resolved again: %d", code)
	}
	m.into(http.StatusAccepted, "POST", path+"/upgrade", `{"version":"1.1.0"}`, nil)
	a.command()
}

// A waiting command is not sent while two devices use the identity, and is sent after
// an operator has resolved that.
func TestAWaitingCommandOfADuplicate(t *testing.T) {
	t.Parallel()
	m := start(t)
	a, reg := m.register()
	a.conn.Close()
	m.until("offline", func() bool { return !m.node(reg.NodeID).Online })
	m.into(http.StatusAccepted, "POST", "/api/v1/nodes/"+reg.NodeID+"/upgrade", `{"version":"1.1.0"}`, nil)
	if _, err := m.Store.MarkDuplicate(t.Context(), reg.NodeID, api.Duplicate{Addresses: []string{"192.0.2.1", "192.0.2.2"}, Since: time.Now()}); err != nil {
		t.Fatal(err)
	}
	a = m.again(reg, "1.0.0")
	a.synced("handled")
	if v := m.node(reg.NodeID); v.UpgradeState != "queued" {
		t.Errorf("the command was sent: %+v", v)
	}
	m.into(200, "POST", "/api/v1/nodes/"+reg.NodeID+"/resolve", "", nil)
	a.command()
}

// One device whose network changes replaces its own sessions, too. No device answers on
// the old connection, so the node is not marked.
func TestOneDeviceThatReconnects(t *testing.T) {
	t.Parallel()
	m := start(t)
	a, reg := m.register()
	for i := range 3 {
		next := m.again(reg, "1.0.0")
		next.send(&wire.Health{Status: "ok", Version: "1.0.0", UptimeSecs: int64(1000 + i)})
		next.synced("back")
		a.conn.NetConn().Close() // as a device that moved: without a word
		a = next
	}
	if v := m.node(reg.NodeID); v.Duplicate != nil {
		t.Errorf("marked: %+v", v.Duplicate)
	}
}

// Two processes that take turns are noticed, however their sessions end: their uptimes
// contradict each other.
func TestUptimesContradict(t *testing.T) {
	t.Parallel()
	m := start(t)
	a, reg := m.register()
	a.conn.Close()
	for _, up := range []int64{90_000, 5, 90_001, 6, 90_002} {
		n := m.reconnect(reg, "1.0.0")
		n.send(&wire.Health{Status: "ok", Version: "1.0.0", UptimeSecs: up})
		n.synced("back")
		n.conn.Close()
		m.until("offline", func() bool { return !m.node(reg.NodeID).Online })
	}
	if m.node(reg.NodeID).Duplicate == nil {
		t.Error("not marked")
	}
	// A process that restarts is one: its start only moves forward.
	b, reg := m.register()
	b.conn.Close()
	for _, up := range []int64{90_000, 5, 6, 1, 30, 2} {
		n := m.reconnect(reg, "1.0.0")
		n.send(&wire.Health{Status: "ok", Version: "1.0.0", UptimeSecs: up})
		n.synced("back")
		n.conn.Close()
		m.until("offline", func() bool { return !m.node(reg.NodeID).Online })
	}
	if v := m.node(reg.NodeID); v.Duplicate != nil {
		t.Errorf("marked: %+v", v.Duplicate)
	}
}

// A device whose link is cut reconnects many times while its old sessions look alive.
// Its health beats show one process, so the node is not marked.
func TestADeviceWhoseLinkFlaps(t *testing.T) {
	t.Parallel()
	m := start(t)
	_, reg := m.register()
	began := time.Now().Add(-time.Hour)
	for i := range 8 {
		n := m.reconnect(reg, "1.0.0")
		n.send(&wire.Health{Status: "ok", Version: "1.0.0", UptimeSecs: int64(time.Since(began).Seconds())})
		n.synced(fmt.Sprint("back-", i))
	}
	if v := m.node(reg.NodeID); v.Duplicate != nil {
		t.Errorf("marked: %+v", v.Duplicate)
	}
	// Without a sign of its own that it is one, such a node is suspicious.
	_, reg = m.register()
	for i := range 5 {
		n := m.again(reg, "1.0.0")
		n.health("1.0.0")
		n.synced(fmt.Sprint("back-", i))
	}
	if m.node(reg.NodeID).Duplicate == nil {
		t.Error("not marked")
	}
}
