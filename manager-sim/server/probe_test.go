package server_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/bilbycast/edge-agent/manager-sim/server/secret"
	"github.com/bilbycast/edge-agent/wire"
	"github.com/google/uuid"
	"github.com/gorilla/websocket"
)

func probeOf(reg *wire.RegisterAck) *wire.Auth {
	return &wire.Auth{NodeID: reg.NodeID, NodeSecret: reg.NodeSecret, SoftwareVersion: "9.9.9", DeviceType: "other", ProtocolVersion: wire.ProtocolVersion, Probe: true}
}

// probe opens a connection that is a probe.
func (m *manager) probe(reg *wire.RegisterAck) *node {
	m.t.Helper()
	n := m.dial()
	n.send(probeOf(reg))
	if ok, _ := n.next().(*wire.AuthOK); ok == nil || !ok.Probe {
		m.t.Fatalf("a probe gets %+v", ok)
	}
	return n
}

// alive asks for a pong, which the manager's reader answers.
func (n *node) alive() error {
	pong := errors.New("pong")
	n.conn.SetPongHandler(func(string) error { return pong })
	if err := n.conn.WriteControl(websocket.PingMessage, nil, time.Now().Add(time.Second)); err != nil {
		return err
	}
	for {
		if _, _, err := n.conn.ReadMessage(); err != nil && !errors.Is(err, pong) {
			return err
		} else if err != nil {
			return nil
		}
	}
}

// records is everything that the manager tells about its nodes.
func (m *manager) records(id string) string {
	m.t.Helper()
	var all strings.Builder
	for _, path := range []string{"nodes", "nodes/" + id, "nodes/" + id + "/connections", "events", "audit-log", "pending-nodes"} {
		code, text := m.call("GET", "/api/v1/"+path, "")
		if code != 200 {
			m.t.Fatalf("%s: %d %s", path, code, text)
		}
		all.WriteString(text)
	}
	for line := range strings.Lines(m.scrape()) {
		if strings.Contains(line, "authentication") || strings.Contains(line, "online") {
			all.WriteString(line)
		}
	}
	return all.String()
}

func (m *manager) scrape() string {
	m.t.Helper()
	resp := m.do(admin, "GET", "/metrics", "", nil)
	defer resp.Body.Close()
	var b strings.Builder
	if err := resp.Write(&b); err != nil {
		m.t.Fatal(err)
	}
	return b.String()
}

// A probe is answered and kept beside the session of its node. Nothing that the manager
// records or counts shows it, whether it succeeds or fails.
func TestAProbeChangesNothing(t *testing.T) {
	t.Parallel()
	m := start(t)
	session, reg := m.register()
	_, other := m.register()
	before := m.records(reg.NodeID)
	if !strings.Contains(before, "authentication") || !strings.Contains(before, "online") {
		t.Fatalf("the records have no counters: %s", before)
	}

	conn, resp, err := websocket.DefaultDialer.DialContext(t.Context(), "ws"+strings.TrimPrefix(m.http.URL, "http")+wire.Path, nil)
	if err != nil {
		t.Fatal(err)
	}
	conn.Close()
	if !wire.HasFeature(resp.Header, wire.FeatureProbe) {
		t.Errorf("the answer does not announce probes: %v", resp.Header)
	}
	p := m.probe(reg)
	for _, msg := range []wire.Message{&wire.Health{Status: "degraded", Version: "9.9.9"}, event("of a probe"), &wire.CommandAck{CommandID: "x"}} {
		p.send(msg)
	}
	p.send(&wire.Ping{})
	if _, ok := p.next().(*wire.Pong); !ok {
		t.Error("a ping of a probe is not answered")
	}
	for name, wrong := range map[string]*wire.Auth{
		"wrong secret": {NodeID: reg.NodeID, NodeSecret: "x", Probe: true},
		"unknown node": {NodeID: uuid.NewString(), NodeSecret: secret.New(), Probe: true},
		"no id":        {NodeID: "x", NodeSecret: "x", Probe: true},
		"a token":      {RegistrationToken: registration, DeviceType: "edge", Probe: true},
		"nothing":      {Probe: true},
	} {
		for i := range 20 {
			if message, pause := m.refused(wrong); !strings.Contains(message, "not accepted") && !strings.Contains(message, "does not know") || pause != 0 {
				t.Fatalf("%s %d: %q, %v", name, i, message, pause)
			}
		}
	}
	if err := p.alive(); err != nil {
		t.Errorf("the probe has ended: %v", err)
	}
	if err := session.alive(); err != nil {
		t.Errorf("the session has ended: %v", err)
	}
	p.conn.Close()
	if after := m.records(reg.NodeID); after != before {
		t.Errorf("the records changed:\n%s\n\n%s", before, after)
	}
	// Failed probes count for no limit: a wrong secret still gets its own answer.
	if message, _ := m.refused(&wire.Auth{NodeID: other.NodeID, NodeSecret: "wrong"}); !strings.Contains(message, "is wrong") {
		t.Errorf("after failed probes a session gets %q", message)
	}
	// And failed authentications keep no probe out.
	for i := range 20 {
		m.refused(&wire.Auth{NodeID: fmt.Sprint("guess", i), NodeSecret: "x"})
	}
	m.probe(other)
}

// A session that begins does not end a probe, and the probe of a node does not bring its
// session back.
func TestAProbeAndItsSession(t *testing.T) {
	t.Parallel()
	m := start(t)
	session, reg := m.register()
	p := m.probe(reg)
	again := m.again(reg, "1.0.0")
	if err := p.alive(); err != nil {
		t.Errorf("a session ended the probe: %v", err)
	}
	session.conn.Close()
	if err := again.alive(); err != nil {
		t.Error(err)
	}
	again.conn.WriteControl(websocket.CloseMessage, websocket.FormatCloseMessage(websocket.CloseNormalClosure, ""), time.Now().Add(time.Second))
	m.nodeIs(reg.NodeID, false)
	p = m.probe(reg)
	m.nodeIs(reg.NodeID, false)
	// A probe ends with its node, and with the manager.
	if code, text := m.call("DELETE", "/api/v1/nodes/"+reg.NodeID, `{"reason":"test"}`); code/100 != 2 {
		t.Fatalf("%d %s", code, text)
	}
	if _, _, err := p.conn.ReadMessage(); !websocket.IsCloseError(err, websocket.ClosePolicyViolation) {
		t.Errorf("after its node was removed: %v", err)
	}
	if message, _ := m.refused(probeOf(reg)); !strings.Contains(message, "was removed") {
		t.Errorf("a probe of a removed node gets %q", message)
	}
	_, reg = m.register()
	p = m.probe(reg)
	m.Close()
	if _, _, err := p.conn.ReadMessage(); !websocket.IsCloseError(err, websocket.CloseServiceRestart) {
		t.Errorf("after the manager ended: %v", err)
	}
}

// nodeIs waits until the manager reports a node online, or offline.
func (m *manager) nodeIs(id string, online bool) {
	m.t.Helper()
	var n struct{ Online bool }
	for end := time.Now().Add(20 * time.Second); ; {
		if m.into(200, "GET", "/api/v1/nodes/"+id, "", &n); n.Online == online {
			return
		}
		if time.Now().After(end) {
			m.t.Fatalf("online: %v", n.Online)
		}
	}
}

// A manager that cannot serve sessions refuses probes: otherwise a probe would say that a
// version fails which is well.
func TestProbesFailWhereSessionsFail(t *testing.T) {
	t.Parallel()
	for name, broken := range map[string]func(m *manager){
		"each session ends":     func(m *manager) { m.SetEnding(true) },
		"the store is gone":     func(m *manager) { m.Store.Close() },
		"503":                   func(m *manager) { m.SetUnavailable(time.Second) },
		"the manager shut down": func(m *manager) { m.Close() },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m := start(t)
			_, reg := m.register()
			m.probe(reg)
			broken(m)
			for what, a := range map[string]*wire.Auth{"session": {NodeID: reg.NodeID, NodeSecret: reg.NodeSecret}, "probe": probeOf(reg)} {
				conn, _, err := websocket.DefaultDialer.DialContext(t.Context(), "ws"+strings.TrimPrefix(m.http.URL, "http")+wire.Path, nil)
				if err != nil {
					continue
				}
				n := &node{t, conn}
				n.send(a)
				conn.SetReadDeadline(time.Now().Add(20 * time.Second))
				_, b, err := conn.ReadMessage()
				if what == "probe" && err == nil {
					t.Errorf("a probe is accepted: %s", b)
				}
				if err == nil {
					_, _, err = conn.ReadMessage()
				}
				if err == nil || strings.Contains(err.Error(), "timeout") {
					t.Errorf("the %s is served: %v", what, err)
				}
				conn.Close()
			}
		})
	}
}

// A node has a bounded number of probes; the oldest one ends.
func TestProbesAreBounded(t *testing.T) {
	t.Parallel()
	m := start(t)
	_, reg := m.register()
	first := m.probe(reg)
	for range 32 {
		m.probe(reg)
	}
	if _, _, err := first.conn.ReadMessage(); !websocket.IsCloseError(err, websocket.CloseTryAgainLater) {
		t.Errorf("the oldest probe: %v", err)
	}
}
