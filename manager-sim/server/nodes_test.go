package server_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/bilbycast/edge-agent/manager-sim/api"
	"github.com/bilbycast/edge-agent/manager-sim/store"
	"github.com/bilbycast/edge-agent/release"
	"github.com/bilbycast/edge-agent/wire"
	"github.com/gorilla/websocket"
)

// command returns the next command that the node gets.
func (n *node) command() *wire.Command {
	n.t.Helper()
	for {
		if c, ok := n.next().(*wire.Command); ok {
			return c
		}
	}
}

// ack answers a command, and returns when the answer is stored.
func (n *node) ack(a *wire.CommandAck) {
	n.t.Helper()
	n.send(a)
	n.synced("ack-" + a.CommandID)
}

// synced returns when the manager has handled everything that the node sent.
func (n *node) synced(id string) {
	n.t.Helper()
	n.send(event(id))
	for {
		if a, ok := n.next().(*wire.EventAck); ok && a.EventIDs[0] == id {
			return
		}
	}
}

// refuse refuses the next command.
func (n *node) refuse() {
	n.t.Helper()
	n.ack(&wire.CommandAck{CommandID: n.command().CommandID, Error: "no network", ErrorCode: release.NetworkError})
}

// reports sends an event of an upgrade.
func (n *node) reports(command string, code release.Code, from, to, text string) {
	n.t.Helper()
	id := fmt.Sprintf("%s-%s-%s", command, code, from)
	n.send(&wire.Event{EventID: id, Severity: code.Severity(), Category: wire.CategoryUpgrade, Message: text,
		Details: wire.Details{ErrorCode: code, FromVersion: from, ToVersion: to, CommandID: command}})
	n.synced("after-" + id)
}

func (n *node) health(version string) {
	n.t.Helper()
	n.send(&wire.Health{Status: "ok", Version: version, Capabilities: []string{wire.CapabilityUpgrade}})
}

// again reconnects with credentials, and reports health as an agent does at once.
func (m *manager) again(reg *wire.RegisterAck, version string) *node {
	m.t.Helper()
	n := m.reconnect(reg, version)
	n.health(version)
	return n
}

// reconnect reconnects with credentials.
func (m *manager) reconnect(reg *wire.RegisterAck, version string) *node {
	m.t.Helper()
	n := m.dial()
	n.send(&wire.Auth{NodeID: reg.NodeID, NodeSecret: reg.NodeSecret, SoftwareVersion: version, DeviceType: "edge", ProtocolVersion: wire.ProtocolVersion})
	if _, ok := n.next().(*wire.AuthOK); !ok {
		m.t.Fatal("not authenticated")
	}
	return n
}

type nodeOf struct {
	Online        bool      `json:"online"`
	Health        string    `json:"health"`
	Version       string    `json:"version"`
	UpgradeState  string    `json:"upgrade_state"`
	TargetVersion string    `json:"target_version"`
	ErrorCode     string    `json:"error_code"`
	Error         string    `json:"error"`
	RequestedBy   string    `json:"requested_by"`
	CommandID     string    `json:"command_id"`
	Upgradable    bool      `json:"upgradable"`
	RemovedAt     time.Time `json:"removed_at"`
	NotUpgradable *struct{ Code, Reason, Remedy string }
	Duplicate     *api.Duplicate
}

func (m *manager) node(id string) (n nodeOf) {
	m.t.Helper()
	var raw json.RawMessage
	m.into(http.StatusOK, "GET", "/api/v1/nodes/"+id, "", &raw)
	if err := json.Unmarshal(raw, &n); err != nil {
		m.t.Fatal(err)
	}
	var not struct {
		V *struct{ Code, Reason, Remedy string } `json:"not_upgradable"`
	}
	if err := json.Unmarshal(raw, &not); err != nil {
		m.t.Fatal(err)
	}
	n.NotUpgradable = not.V
	return n
}

// While an upgrade is in progress, in any of its states, no other one is accepted. The
// refusal names the version and who requested it.
func TestASecondCommandIsRefused(t *testing.T) {
	t.Parallel()
	m := start(t)
	n, reg := m.register()
	path := "/api/v1/nodes/" + reg.NodeID + "/upgrade"
	refused := func(state string) {
		t.Helper()
		code, text := m.call("POST", path, `{"version":"1.2.0"}`)
		for _, want := range []string{"upgrade_in_progress", "admin requested 1.1.0", state} {
			if code != http.StatusConflict || !strings.Contains(text, want) {
				t.Errorf("%s: %d %s has no %q", state, code, text, want)
			}
		}
		if v := m.node(reg.NodeID); v.Upgradable || v.NotUpgradable == nil || v.NotUpgradable.Code != "upgrade_in_progress" || v.RequestedBy != "admin" {
			t.Errorf("%s: the node is %+v", state, v)
		}
	}
	m.into(http.StatusAccepted, "POST", path, `{"version":"1.1.0"}`, nil)
	id := n.command().CommandID
	refused("sent to the node") // it is noted before it is written
	n.reports(id, release.Started, "1.0.0", "1.1.0", "fetching")
	refused("staging")
	n.reports(id, release.Staged, "1.0.0", "1.1.0", "staged")
	refused("staged")
	n.conn.Close()
	n = m.again(reg, "1.1.0")
	refused("on trial")
	n.reports(id, release.Completed, "1.0.0", "1.1.0", "healthy")
	n.health("1.1.0")
	n.synced("healthy")
	if v := m.node(reg.NodeID); !v.Upgradable || v.UpgradeState != "updated" {
		t.Errorf("after the upgrade: %+v", v)
	}
	m.into(http.StatusAccepted, "POST", path, `{"version":"1.2.0"}`, nil)
}

// Of operators who request different versions at once, one succeeds.
func TestTwoOperatorsAtOnce(t *testing.T) {
	t.Parallel()
	m := start(t)
	n, reg := m.register()
	var mu sync.Mutex
	got := map[int]int{}
	var wg sync.WaitGroup
	for i := range 16 {
		wg.Go(func() {
			code, _ := m.call("POST", "/api/v1/nodes/"+reg.NodeID+"/upgrade", fmt.Sprintf(`{"version":"1.%d.0"}`, i+1))
			mu.Lock()
			defer mu.Unlock()
			got[code]++
		})
	}
	wg.Wait()
	if got[http.StatusAccepted] != 1 || got[http.StatusConflict] != 15 {
		t.Errorf("answers: %v", got)
	}
	n.command()
	n.synced("end")
}

// A command that a node refused because another one was in progress does not decide its
// state. Earlier managers sent such commands.
func TestTheDecidingCommand(t *testing.T) {
	t.Parallel()
	m := start(t)
	n, reg := m.register()
	at := time.Now()
	for i, v := range []string{"1.1.0", "1.2.0", "1.3.0"} {
		id := fmt.Sprint("c", i)
		err := m.Store.AddCommand(t.Context(), store.Command{ID: id, NodeID: reg.NodeID, Version: v, Channel: "stable", Action: []byte(`{"type":"upgrade_binary"}`), CreatedAt: at.Add(time.Duration(i) * time.Millisecond)},
			api.AuditEntry{Time: at, Details: []byte("{}")})
		if err != nil {
			t.Fatal(err)
		}
		if err := m.Store.RecordSent(t.Context(), id, at); err != nil {
			t.Fatal(err)
		}
	}
	n.reports("c0", release.Started, "1.0.0", "1.1.0", "fetching")
	n.ack(&wire.CommandAck{CommandID: "c2", Error: "busy", ErrorCode: release.InProgress})
	n.ack(&wire.CommandAck{CommandID: "c1", Error: "busy", ErrorCode: release.InProgress})
	if v := m.node(reg.NodeID); v.UpgradeState != "staging" || v.TargetVersion != "1.1.0" || v.CommandID != "c0" {
		t.Errorf("while staging: %+v", v)
	}
	n.reports("c0", release.Completed, "1.0.0", "1.1.0", "healthy")
	if v := m.node(reg.NodeID); v.UpgradeState != "updated" || v.TargetVersion != "1.1.0" || v.ErrorCode != "" {
		t.Errorf("after it was kept: %+v", v)
	}
	// A refusal long after that is the node's own: an operator stages on the device.
	late := time.Now().Add(time.Second)
	if err := m.Store.AddCommand(t.Context(), store.Command{ID: "late", NodeID: reg.NodeID, Version: "1.4.0", Channel: "stable", Action: []byte(`{}`), CreatedAt: late}, api.AuditEntry{Time: at, Details: []byte("{}")}); err != nil {
		t.Fatal(err)
	}
	n.ack(&wire.CommandAck{CommandID: "late", Error: "busy", ErrorCode: release.InProgress})
	if v := m.node(reg.NodeID); v.UpgradeState != "failed" || v.ErrorCode != "upgrade_in_progress" || v.Error != "busy" {
		t.Errorf("refused by the device itself: %+v", v)
	}
}

// Only a command that was not sent, because the node is offline, can be replaced.
func TestACommandIsReplacedBeforeItIsSent(t *testing.T) {
	t.Parallel()
	m := start(t)
	n, reg := m.register()
	n.conn.Close()
	m.until("the node is offline", func() bool { return !m.node(reg.NodeID).Online })
	path := "/api/v1/nodes/" + reg.NodeID + "/upgrade"
	var first api.CommandCreated
	m.into(http.StatusAccepted, "POST", path, `{"version":"1.1.0","replace":true}`, &first) // there is nothing to replace
	named := `\"replaces\": \"` + first.CommandID + `\"`
	if code, text := m.call("POST", path, `{"version":"1.2.0"}`); code != http.StatusConflict || !strings.Contains(text, named) {
		t.Errorf("without replaces: %d %s", code, text)
	}
	code, text := m.call("POST", path, `{"version":"1.2.0","replace":true}`)
	if code != http.StatusConflict || !strings.Contains(text, named) || !strings.Contains(text, "requested 1.1.0 on ") || !strings.Contains(text, "manager-sim withdraw "+reg.NodeID) {
		t.Errorf("a replace that names no command: %d %s", code, text)
	}
	if v := m.node(reg.NodeID); v.CommandID != first.CommandID {
		t.Errorf("it replaced what its requester did not see: %s", v.CommandID)
	}
	m.into(http.StatusAccepted, "POST", path, `{"version":"1.2.0","replaces":"`+first.CommandID+`"}`, nil)
	n = m.again(reg, "1.0.0")
	if c := n.command(); c.Action.Version != "1.2.0" {
		t.Errorf("the node gets %s", c.Action.Version)
	}
	n.synced("nothing-else-came")
	m.until("it is sent", func() bool { return m.node(reg.NodeID).UpgradeState == "sent" })
	if code, text := m.call("POST", path, `{"version":"1.3.0","replace":true}`); code != http.StatusConflict {
		t.Errorf("after it was sent: %d %s", code, text)
	}
}

// A node that was set to another version after an upgrade is not shown as updated.
func TestAVersionThatWasChangedOnTheDevice(t *testing.T) {
	t.Parallel()
	m := start(t)
	n, reg := m.register()
	m.into(http.StatusAccepted, "POST", "/api/v1/nodes/"+reg.NodeID+"/upgrade", `{"version":"1.1.0"}`, nil)
	id := n.command().CommandID
	n.ack(&wire.CommandAck{CommandID: id, Success: true, Data: &wire.AckData{Status: "staged"}})
	n.conn.Close()
	n = m.again(reg, "1.1.0")
	n.reports(id, release.Completed, "1.0.0", "1.1.0", "healthy")
	n.health("1.1.0")
	n.synced("healthy")
	if v := m.node(reg.NodeID); v.UpgradeState != "updated" {
		t.Fatalf("after the upgrade: %+v", v)
	}
	n.conn.Close()
	n = m.again(reg, "1.0.0")
	n.health("1.0.0")
	n.synced("changed")
	if v := m.node(reg.NodeID); v.UpgradeState != "changed" || !v.Upgradable {
		t.Errorf("after the links were set back: %+v", v)
	}
	n.reports("", release.RolledBack, "1.1.0", "1.0.0", "an operator rolled back")
	if v := m.node(reg.NodeID); v.UpgradeState != "changed" || v.Error != "an operator rolled back" || v.ErrorCode != "" {
		t.Errorf("after the node reported it: %+v", v)
	}
}

// The API shows the node's own message for a failed upgrade, and its health.
func TestTheCauseIsThatOfTheNode(t *testing.T) {
	t.Parallel()
	m := start(t)
	n, reg := m.register()
	m.into(http.StatusAccepted, "POST", "/api/v1/nodes/"+reg.NodeID+"/upgrade", `{"version":"1.1.0"}`, nil)
	id := n.command().CommandID
	n.reports(id, release.DiskFull, "1.0.0", "1.1.0", "needs 90 MB; 12 MB are free on /opt")
	n.send(&wire.Health{Status: "degraded", Version: "1.0.0"})
	n.synced("degraded")
	v := m.node(reg.NodeID)
	if v.UpgradeState != "failed" || v.ErrorCode != "upgrade_disk_full" || v.Error != "needs 90 MB; 12 MB are free on /opt" || v.Health != "degraded" {
		t.Errorf("got %+v", v)
	}
	if v.NotUpgradable == nil || v.NotUpgradable.Code != "no_capability" || !strings.Contains(v.NotUpgradable.Reason, "no cause") {
		t.Errorf("not upgradable: %+v", v.NotUpgradable)
	}
}

// A removed node is in no list and cannot reconnect. Its history stays.
func TestANodeIsRemoved(t *testing.T) {
	t.Parallel()
	m := start(t)
	n, reg := m.register()
	n.reports("", release.RolledBack, "1.1.0", "1.0.0", "kept for ever")
	path := "/api/v1/nodes/" + reg.NodeID
	if code, text := m.call("DELETE", path, `{"reason":"`+strings.Repeat("x", 501)+`"}`); code != http.StatusBadRequest {
		t.Errorf("a long reason: %d %s", code, text)
	}
	if code, text := m.call("DELETE", path, `{"reason":"device is scrap"}`); code != http.StatusNoContent {
		t.Fatalf("removal: %d %s", code, text)
	}
	for {
		if _, _, err := n.conn.ReadMessage(); err != nil {
			if !websocket.IsCloseError(err, websocket.ClosePolicyViolation) {
				t.Errorf("its session ends with %v", err)
			}
			break
		}
	}
	if code, text := m.call("DELETE", path, ""); code != http.StatusNotFound {
		t.Errorf("again: %d %s", code, text)
	}
	if code, text := m.call("POST", path+"/upgrade", `{"version":"1.1.0"}`); code != http.StatusConflict || !strings.Contains(text, `"removed"`) {
		t.Errorf("an upgrade: %d %s", code, text)
	}
	var list struct{ Nodes []nodeOf }
	if m.into(200, "GET", "/api/v1/nodes", "", &list); len(list.Nodes) != 0 {
		t.Errorf("it is listed: %+v", list)
	}
	if m.into(200, "GET", "/api/v1/nodes?removed=true", "", &list); len(list.Nodes) != 1 || list.Nodes[0].RemovedAt.IsZero() {
		t.Errorf("it is not listed as removed: %+v", list)
	}
	if _, text := m.call("GET", "/api/v1/events?node_id="+reg.NodeID, ""); !strings.Contains(text, "kept for ever") {
		t.Errorf("its events: %s", text)
	}
	if _, text := m.call("GET", "/api/v1/audit-log?action=node.remove", ""); !strings.Contains(text, "device is scrap") {
		t.Errorf("the audit trail: %s", text)
	}
	n = m.dial()
	n.send(&wire.Auth{NodeID: reg.NodeID, NodeSecret: reg.NodeSecret, SoftwareVersion: "1.0.0", DeviceType: "edge"})
	if got, ok := n.next().(*wire.AuthError); !ok {
		t.Errorf("its old secret: %+v", got)
	}
	for _, secret := range []string{"", "x"} { // whatever an empty hash would match
		n = m.dial()
		n.send(&wire.Auth{NodeID: reg.NodeID, NodeSecret: secret, SoftwareVersion: "1.0.0", DeviceType: "edge"})
		if got, ok := n.next().(*wire.AuthError); !ok {
			t.Errorf("secret %q: %+v", secret, got)
		}
	}
}

// An answer is complete or an error, and the error names what does not exist.
func TestQueriesThatMatchNothing(t *testing.T) {
	t.Parallel()
	m := start(t)
	_, reg := m.register()
	for path, want := range map[string]struct {
		status int
		text   string
	}{
		"/api/v1/events?severity=bad":               {400, "info minor warning major critical"},
		"/api/v1/events?node_id=" + reg.NodeID[:8]:  {200, reg.NodeID},
		"/api/v1/events?node_id=" + reg.NodeID[:3]:  {404, "node"},
		"/api/v1/events?node_id=zzzzzzzz":           {404, "node"},
		"/api/v1/nodes?removed=perhaps":             {400, "neither true nor false"},
		"/api/v1/rollouts?active=perhaps":           {400, "neither true nor false"},
		"/api/v1/nodes?id_prefix=" + reg.NodeID[:8]: {200, reg.NodeID},
		"/api/v1/nodes?id_prefix=zz":                {200, `"nodes":[]`},
	} {
		if code, text := m.call("GET", path, ""); code != want.status || !strings.Contains(text, want.text) {
			t.Errorf("%s: %d %s", path, code, text)
		}
	}
}

// The API shows the warnings of a node's last health message, and the node's health stays ok.
func TestWarningsOfANode(t *testing.T) {
	t.Parallel()
	m := start(t)
	n, reg := m.register()
	for i, warnings := range [][]string{{"unknown key \x1b[2J", "mode 0644"}, nil} {
		n.send(&wire.Health{Status: "ok", Version: "1.0.0", Capabilities: []string{"upgrade"}, Warnings: warnings})
		n.synced(fmt.Sprint("beat-", i))
		var got api.Node
		m.into(http.StatusOK, "GET", "/api/v1/nodes/"+reg.NodeID, "", &got)
		if want := []string{"unknown key ?[2J", "mode 0644"}[:len(warnings)]; !slices.Equal(got.Warnings, want) || got.Health != "ok" || !got.Upgradable {
			t.Errorf("%q, health %s, upgradable %t", got.Warnings, got.Health, got.Upgradable)
		}
	}
}
