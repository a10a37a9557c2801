package server_test

import (
	"bytes"
	"cmp"
	"encoding/json"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/bilbycast/edge-agent/manager-sim/server"
	"github.com/bilbycast/edge-agent/manager-sim/server/secret"
	"github.com/bilbycast/edge-agent/manager-sim/store"
	"github.com/bilbycast/edge-agent/release"
	"github.com/bilbycast/edge-agent/wire"
	"github.com/gorilla/websocket"
	"github.com/rs/zerolog"
	"github.com/santhosh-tekuri/jsonschema/v6"
)

const admin, registration = "admin-token", "registration-token"

type manager struct {
	*server.Server
	Store   *store.Store
	t       *testing.T
	http    *httptest.Server
	openAPI func() (document, *jsonschema.Compiler)
	fitting sync.Mutex
}

func start(t *testing.T) *manager { return startWith(t, server.Config{}) }

// startWith is start with settings of a test.
func startWith(t *testing.T, c server.Config) *manager {
	t.Helper()
	st, err := store.Open(t.Context(), filepath.Join(t.TempDir(), "db"))
	if err != nil {
		t.Fatal(err)
	}
	if err := st.AddToken(t.Context(), secret.Hash(registration)); err != nil {
		t.Fatal(err)
	}
	m := &manager{Store: st, t: t}
	m.run(c)
	m.openAPI = sync.OnceValues(m.readOpenAPI)
	t.Cleanup(func() { m.Close(); m.http.Close(); st.Close() })
	return m
}

// run starts a server over the store.
func (m *manager) run(c server.Config) {
	m.t.Helper()
	c.Store, c.AdminToken, c.Log = m.Store, admin, zerolog.Nop()
	c.PasswordMemory = cmp.Or(c.PasswordMemory, 32) // a test of something else should not take a second for a password
	s, err := server.New(c)
	if err != nil {
		m.t.Fatal(err)
	}
	m.Server, m.http = s, httptest.NewServer(s)
}

// call makes a REST call as the admin and returns the status and the body. Every
// answer is one that openapi.json describes.
func (m *manager) call(method, path, body string) (int, string) {
	m.t.Helper()
	return m.as(admin, method, path, body)
}

// as is call with another bearer token.
func (m *manager) as(token, method, path, body string) (int, string) {
	m.t.Helper()
	resp := m.do(token, method, path, body, nil)
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		m.t.Fatal(err)
	}
	m.described(method, path, resp, b)
	return resp.StatusCode, string(b)
}

func (m *manager) do(token, method, path, body string, header http.Header) *http.Response {
	m.t.Helper()
	req, err := http.NewRequestWithContext(m.t.Context(), method, m.http.URL+path, strings.NewReader(body))
	if err != nil {
		m.t.Fatal(err)
	}
	maps.Copy(req.Header, header)
	req.Header.Set("Authorization", "Bearer "+token)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		m.t.Fatal(err)
	}
	return resp
}

// node is a WebSocket of a test, speaking package wire.
type node struct {
	t    *testing.T
	conn *websocket.Conn
}

// patience is how long one message may take: an event is stored before it is acknowledged.
const patience = time.Minute

func (m *manager) dial() *node {
	m.t.Helper()
	conn, _, err := websocket.DefaultDialer.DialContext(m.t.Context(), "ws"+strings.TrimPrefix(m.http.URL, "http")+wire.Path, nil)
	if err != nil {
		m.t.Fatal(err)
	}
	m.t.Cleanup(func() { conn.Close() })
	conn.SetReadDeadline(time.Now().Add(patience))
	return &node{m.t, conn}
}

func (n *node) send(msg wire.Message) {
	n.t.Helper()
	b, err := wire.Encode(msg, time.Now())
	if err == nil {
		err = n.conn.WriteMessage(websocket.TextMessage, b)
	}
	if err != nil {
		n.t.Fatal(err)
	}
}

// next returns the next message that is not a ping.
func (n *node) next() wire.Message {
	n.t.Helper()
	n.conn.SetReadDeadline(time.Now().Add(patience)) // not for all messages together
	for {
		_, b, err := n.conn.ReadMessage()
		if err != nil {
			n.t.Fatal(err)
		}
		env, err := wire.Decode(b)
		if err != nil {
			n.t.Fatal(err)
		}
		if _, ping := env.Message.(*wire.Ping); !ping {
			return env.Message
		}
	}
}

func auth() *wire.Auth {
	return &wire.Auth{RegistrationToken: registration, SoftwareVersion: "1.0.0", DeviceType: "edge", ProtocolVersion: wire.ProtocolVersion}
}

// register returns a registered node that reports the capability to upgrade.
func (m *manager) register() (*node, *wire.RegisterAck) {
	m.t.Helper()
	n := m.dial()
	n.send(auth())
	ack, ok := n.next().(*wire.RegisterAck)
	if !ok {
		m.t.Fatal("not registered")
	}
	n.send(&wire.Health{Status: "ok", Version: "1.0.0", Capabilities: []string{wire.CapabilityUpgrade}})
	// An event is acknowledged once it is stored, and so all before it.
	n.send(event("hello"))
	if _, ok := n.next().(*wire.EventAck); !ok {
		m.t.Fatal("no event_ack")
	}
	return n, ack
}

func event(id string) *wire.Event {
	return &wire.Event{EventID: id, Severity: release.Info, Category: "test", Message: "hello"}
}

func TestEveryCallNeedsTheToken(t *testing.T) {
	t.Parallel()
	m := start(t)
	for _, header := range []string{"", "Bearer", "Bearer ", "Bearer wrong", "Basic " + admin, admin, "Bearer " + registration} {
		for _, path := range []string{"/api/v1/nodes", "/api/v1/nodes/x", "/api/v1/events", "/api/v1/events/stream", "/api/v1/releases/edge", "/api/v1/audit-log"} {
			req, _ := http.NewRequestWithContext(t.Context(), http.MethodGet, m.http.URL+path, nil)
			req.Header.Set("Authorization", header)
			resp, err := http.DefaultClient.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			resp.Body.Close()
			if resp.StatusCode != http.StatusUnauthorized {
				t.Errorf("%q %s: %d", header, path, resp.StatusCode)
			}
		}
	}
}

func TestBadCallsAreNamed(t *testing.T) {
	t.Parallel()
	m := start(t)
	_, reg := m.register()
	for _, tt := range []struct {
		method, path, body string
		status             int
		want               string
	}{
		{"POST", "/api/v1/nodes/" + reg.NodeID + "/upgrade", `{"version":"v1"}`, 400, "upgrade_version_invalid"},
		{"POST", "/api/v1/nodes/" + reg.NodeID + "/upgrade", `{"version":"1.0.0","url":"https://evil"}`, 400, "unknown field"},
		{"POST", "/api/v1/nodes/" + reg.NodeID + "/upgrade", `nonsense`, 400, "bad_request"},
		{"POST", "/api/v1/nodes/" + reg.NodeID + "/upgrade", `{"version":"` + strings.Repeat("1", 100_000) + `"}`, 400, "too large"},
		{"POST", "/api/v1/nodes/none/upgrade", `{"version":"1.0.0"}`, 404, "not_found"},
		{"GET", "/api/v1/nodes/none", "", 404, "not_found"},
		{"GET", "/api/v1/events?per_page=1000", "", 400, "is not a number from 1 to 200"},
		{"GET", "/api/v1/events?from=yesterday", "", 400, "RFC 3339"},
		{"DELETE", "/api/v1/nodes", "", 405, ""},
		{"GET", "/api/v1/releases/edge", "", 200, `"releases":[]`},
	} {
		if status, body := m.call(tt.method, tt.path, tt.body); status != tt.status || !strings.Contains(body, tt.want) {
			t.Errorf("%s %s %.60s: %d %s", tt.method, tt.path, tt.body, status, body)
		}
	}
}

func TestACommandIsSentAgainUntilItIsAcked(t *testing.T) {
	t.Parallel()
	m := start(t)
	n, reg := m.register()
	status, body := m.call("POST", "/api/v1/nodes/"+reg.NodeID+"/upgrade", `{"version":"1.1.0"}`)
	var made struct {
		CommandID string `json:"command_id"`
	}
	if err := json.Unmarshal([]byte(body), &made); err != nil || status != http.StatusAccepted {
		t.Fatalf("%d %s", status, body)
	}
	again := func(n *node) *wire.Command {
		t.Helper()
		c, ok := n.next().(*wire.Command)
		if !ok || c.CommandID != made.CommandID || c.Action.Version != "1.1.0" || c.Action.Type != wire.ActionUpgrade {
			t.Fatalf("got %+v", c)
		}
		return c
	}
	again(n)
	n.conn.Close() // before any ack
	back := func() *node {
		n := m.dial()
		a := auth()
		a.RegistrationToken, a.NodeID, a.NodeSecret = "", reg.NodeID, reg.NodeSecret
		n.send(a)
		if _, ok := n.next().(*wire.AuthOK); !ok {
			t.Fatal("not authenticated")
		}
		n.health("1.0.0")
		return n
	}
	n = back()
	c := again(n)
	n.send(&wire.CommandAck{CommandID: c.CommandID, Success: true, Data: &wire.AckData{Status: "staged"}})
	n.send(event("after-the-ack"))
	if _, ok := n.next().(*wire.EventAck); !ok {
		t.Fatal("no event_ack")
	}
	n.conn.Close()
	n = back()
	n.send(event("first")) // its event_ack would come after a command
	if ack, ok := n.next().(*wire.EventAck); !ok {
		t.Errorf("an acked command is sent again: %+v", ack)
	}
	if _, body := m.call("GET", "/api/v1/nodes/"+reg.NodeID, ""); !strings.Contains(body, `"upgrade_state":"staged"`) {
		t.Errorf("the node: %s", body)
	}
	if _, body := m.call("GET", "/api/v1/audit-log", ""); strings.Count(body, "node.upgrade.request") != 1 {
		t.Errorf("audit: %s", body)
	}
}

// A node that reconnects before the manager notices the end of its old connection stays
// online when the old one ends.
func TestAnOldConnectionThatEndsLate(t *testing.T) {
	t.Parallel()
	m := start(t)
	old, reg := m.register()
	n := m.dial()
	a := auth()
	a.RegistrationToken, a.NodeID, a.NodeSecret = "", reg.NodeID, reg.NodeSecret
	n.send(a)
	if _, ok := n.next().(*wire.AuthOK); !ok {
		t.Fatal("not authenticated")
	}
	for { // the manager ends the old one, with the reason
		if _, _, err := old.conn.ReadMessage(); err != nil {
			if !websocket.IsCloseError(err, wire.CloseReplaced) {
				t.Errorf("the old connection ends with %v", err)
			}
			break
		}
	}
	n.health("1.0.0")
	n.send(event("still-here"))
	n.next()
	m.into(http.StatusAccepted, "POST", "/api/v1/nodes/"+reg.NodeID+"/upgrade", `{"version":"1.1.0"}`, nil)
	if _, ok := n.next().(*wire.Command); !ok {
		t.Error("the new connection gets no command")
	}
	m.Close() // all sessions have ended by then
	cs, err := m.Store.Connections(t.Context(), reg.NodeID)
	if err != nil || len(cs) != 3 { // came, came again, and the manager went
		t.Errorf("got %+v, %v", cs, err)
	}
}

// A node that offers no upgrades reports the reason, and the API shows it.
func TestWhyANodeOffersNoUpgrades(t *testing.T) {
	t.Parallel()
	m := start(t)
	n, reg := m.register()
	const why = "no watchdog ran before this start"
	n.send(&wire.Health{Status: "ok", Version: "1.0.0", Capabilities: []string{}, UpgradeUnavailable: why})
	n.send(event("after-the-beat"))
	n.next()
	path := "/api/v1/nodes/" + reg.NodeID
	if _, body := m.call("GET", path, ""); !strings.Contains(body, `"upgrade_unavailable":"`+why+`"`) {
		t.Errorf("the node: %s", body)
	}
	if code, body := m.call("POST", path+"/upgrade", `{"version":"1.1.0"}`); code != http.StatusConflict || !strings.Contains(body, "It reports: "+why) {
		t.Errorf("an upgrade: %d %s", code, body)
	}
}

// A request with values that no release can have is refused, and no node gets it.
func TestNamesOfAnUpgradeAreChecked(t *testing.T) {
	t.Parallel()
	m := start(t)
	_, reg := m.register()
	long := strings.Repeat("x", 2<<10)
	for _, field := range []string{"channel", "target_arch", "variant"} {
		for _, name := range []string{long, "a b", "../x", `\u0000`} {
			body := `{"version":"1.1.0","` + field + `":"` + name + `"}`
			if code, answer := m.call("POST", "/api/v1/nodes/"+reg.NodeID+"/upgrade", body); code != http.StatusBadRequest || !strings.Contains(answer, field) {
				t.Errorf("%s %.20q: %d %.200s", field, name, code, answer)
			}
		}
	}
	var g struct {
		ID string `json:"id"`
	}
	m.into(http.StatusCreated, "POST", "/api/v1/groups", `{"name":"g"}`, &g)
	if code, answer := m.call("POST", "/api/v1/groups/"+g.ID+"/upgrade", `{"version":"1.1.0","channel":"`+long+`"}`); code != http.StatusBadRequest || !strings.Contains(answer, "channel") {
		t.Errorf("of a group: %d %.200s", code, answer)
	}
}

func TestEventsAreStoredOnce(t *testing.T) {
	t.Parallel()
	m := start(t)
	n, reg := m.register()
	for range 3 {
		n.send(event("same"))
		if ack := n.next().(*wire.EventAck); len(ack.EventIDs) != 1 || ack.EventIDs[0] != "same" {
			t.Errorf("got %+v", ack)
		}
	}
	if _, body := m.call("GET", "/api/v1/events?node_id="+reg.NodeID, ""); !strings.Contains(body, `"total":2,`) {
		t.Errorf("events: %s", body)
	}
}

func TestHostileFramesEndTheSession(t *testing.T) {
	t.Parallel()
	m := start(t)
	for name, frame := range map[string][]byte{
		"too large": bytes.Repeat([]byte(" "), wire.MaxMessage+1),
		"no auth":   []byte(`{"type":"health","timestamp":"2026-01-01T00:00:00Z","payload":{}}`),
		"no JSON":   []byte("hello"),
	} {
		n := m.dial()
		n.conn.WriteMessage(websocket.TextMessage, frame)
		for {
			if _, _, err := n.conn.ReadMessage(); err != nil {
				break // it ended; a timeout would fail the test at its own limit
			}
		}
		if status, _ := m.call("GET", "/api/v1/nodes", ""); status != 200 {
			t.Errorf("%s: the manager answers %d", name, status)
		}
	}
}

func TestUnavailable(t *testing.T) {
	t.Parallel()
	m := start(t)
	m.SetUnavailable(7 * time.Second)
	_, resp, err := websocket.DefaultDialer.DialContext(t.Context(), "ws"+strings.TrimPrefix(m.http.URL, "http")+wire.Path, nil)
	if err == nil || resp.StatusCode != http.StatusServiceUnavailable || resp.Header.Get("Retry-After") != "7" {
		t.Errorf("got %v", err)
	}
	m.SetUnavailable(0)
	m.register()
}
