package server_test

import (
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/bilbycast/edge-agent/manager-sim/server/secret"
	"github.com/bilbycast/edge-agent/manager-sim/store"
	"github.com/bilbycast/edge-agent/wire"
	"github.com/google/uuid"
	"github.com/gorilla/websocket"
)

// refused sends an auth that is not accepted, and returns the message of the
// auth_error, if there is one, and the pause that the close frame asks for.
func (m *manager) refused(a *wire.Auth) (message string, pause time.Duration) {
	m.t.Helper()
	n := m.dial()
	defer n.conn.Close()
	n.send(a)
	for {
		_, b, err := n.conn.ReadMessage()
		var closed *websocket.CloseError
		if errors.As(err, &closed) && closed.Code == wire.CloseTryLater {
			return message, wire.ParseTryLater(closed.Text)
		}
		if err != nil {
			return message, 0
		}
		env, err := wire.Decode(b)
		if e, ok := env.Message.(*wire.AuthError); err == nil && ok {
			message = e.Message
		} else {
			m.t.Errorf("the node got %s", b)
			return message, 0
		}
	}
}

func (m *manager) back(reg *wire.RegisterAck) wire.Message {
	m.t.Helper()
	n := m.dial()
	defer n.conn.Close()
	n.send(&wire.Auth{NodeID: reg.NodeID, NodeSecret: reg.NodeSecret, SoftwareVersion: "1.0.0", DeviceType: "edge", ProtocolVersion: wire.ProtocolVersion})
	return n.next()
}

// A right secret and a right token are accepted from an address, whatever wrong
// credentials came from there. A wrong one is refused with the time to wait.
func TestANodeIsNotRefusedForItsNeighbours(t *testing.T) {
	t.Parallel()
	for name, wrong := range map[string]func(reg *wire.RegisterAck, i int) *wire.Auth{
		"tokens": func(_ *wire.RegisterAck, i int) *wire.Auth {
			a := auth()
			a.RegistrationToken = fmt.Sprint("guess", i)
			return a
		},
		"secrets of one": func(reg *wire.RegisterAck, i int) *wire.Auth {
			return &wire.Auth{NodeID: reg.NodeID, NodeSecret: fmt.Sprint("guess", i)}
		},
		"no ids": func(_ *wire.RegisterAck, i int) *wire.Auth {
			return &wire.Auth{NodeID: fmt.Sprint("guess", i), NodeSecret: "x"}
		},
		"unknown nodes": func(_ *wire.RegisterAck, i int) *wire.Auth {
			return &wire.Auth{NodeID: uuid.NewString(), NodeSecret: "x"}
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m := start(t)
			_, victim := m.register()
			_, reg := m.register()
			for i := range 20 {
				message, pause := m.refused(wrong(victim, i))
				if name == "unknown nodes" {
					if pause != 30*time.Second || !strings.Contains(message, "does not know node") {
						t.Errorf("attempt %d: %q, %v", i, message, pause)
					}
				} else if early := i < 5; early != (pause == 0) || early != (message != "") || pause > time.Minute {
					t.Errorf("attempt %d: %q, %v", i, message, pause)
				}
				if ok, _ := m.back(reg).(*wire.AuthOK); ok == nil {
					t.Fatalf("after %d wrong ones, a right secret is refused", i+1)
				}
			}
			if ack, _ := m.back(victim).(*wire.AuthOK); ack == nil {
				t.Error("the node whose secret was guessed is refused")
			}
			m.register()
			// A node whose own secret is wrong gets that reason, too.
			if name == "tokens" || name == "no ids" {
				if message, _ := m.refused(&wire.Auth{NodeID: reg.NodeID, NodeSecret: "wrong"}); !strings.Contains(message, "the secret of node "+reg.NodeID+" is wrong") {
					t.Errorf("a wrong secret behind that address: %q", message)
				}
			}
		})
	}
}

// A manager that was restored from an older backup does not know a node. An operator
// accepts it, and it authenticates with its own credentials.
func TestPendingNodes(t *testing.T) {
	t.Parallel()
	m := start(t)
	g := struct{ ID string }{}
	m.into(http.StatusCreated, "POST", "/api/v1/groups", `{"name":"site"}`, &g)
	type pending struct {
		ID, Address, Version string
		DeviceType           string `json:"device_type"`
		OtherAddress         string `json:"other_address"`
	}
	list := func() (nodes []pending) {
		t.Helper()
		var l struct{ Nodes []pending }
		m.into(200, "GET", "/api/v1/pending-nodes", "", &l)
		return l.Nodes
	}
	id, nodeSecret := uuid.NewString(), secret.New()
	reg := &wire.RegisterAck{NodeID: id, NodeSecret: nodeSecret}
	message, pause := m.refused(&wire.Auth{NodeID: id, NodeSecret: nodeSecret, SoftwareVersion: "1.0.0\x1b[2J", DeviceType: "edge\n\u202e"})
	if want := "this manager does not know node " + id + "; an administrator can accept it on the manager's page Nodes"; message != want || pause != 30*time.Second {
		t.Errorf("got %q, %v", message, pause)
	}
	got := list()
	if len(got) != 1 || got[0].ID != id || got[0].Address != "127.0.0.1" || strings.ContainsAny(got[0].Version+got[0].DeviceType, "\x1b\n\u202e") {
		t.Fatalf("got %+v", got)
	}
	if _, text := m.call("GET", "/api/v1/pending-nodes", ""); strings.Contains(text, nodeSecret) || strings.Contains(text, secret.Hash(nodeSecret)) {
		t.Error("the list has the secret")
	}
	path := "/api/v1/pending-nodes/" + id
	m.into(404, "POST", path+"/accept", `{"group_id":"none"}`, nil)
	// Of many at once, one accepts.
	codes := parallel(8, func(int) int { return m.status("POST", path+"/accept", `{"group_id":"`+g.ID+`"}`) })
	if codes[201] != 1 || codes[404]+codes[409] != 7 {
		t.Errorf("accepted at once: %v", codes)
	}
	if ok, _ := m.back(reg).(*wire.AuthOK); ok == nil {
		t.Error("the node is refused after it was accepted")
	}
	var node struct {
		GroupID string `json:"group_id"`
	}
	if m.into(200, "GET", "/api/v1/nodes/"+id, "", &node); node.GroupID != g.ID || len(list()) != 0 {
		t.Errorf("the node is in group %q", node.GroupID)
	}
	if message, _ := m.refused(&wire.Auth{NodeID: id, NodeSecret: "wrong"}); !strings.Contains(message, "is wrong") || len(list()) != 0 {
		t.Errorf("a known node with another secret: %q", message)
	}

	// Two devices that claim one id: neither is accepted.
	id = uuid.NewString()
	m.unknown(id, "one")
	m.unknown(id, "two")
	if l := list(); len(l) != 1 || l[0].OtherAddress == "" {
		t.Errorf("got %+v", l)
	}
	if code, text := m.call("POST", "/api/v1/pending-nodes/"+id+"/accept", ""); code != 409 || !strings.Contains(text, "contested") {
		t.Errorf("a contested id: %d %s", code, text)
	}
	m.into(204, "DELETE", "/api/v1/pending-nodes/"+id, "", nil)
	m.unknown(id, "two")
	if l := list(); len(l) != 1 || l[0].OtherAddress != "" {
		t.Errorf("got %+v", l)
	}
	// One that was dismissed stays away.
	m.into(204, "DELETE", "/api/v1/pending-nodes/"+id, "", nil)
	m.unknown(id, "two")
	if l := list(); len(l) != 0 {
		t.Errorf("got %+v", l)
	}
	m.into(404, "POST", "/api/v1/pending-nodes/"+id+"/accept", "", nil)
	// Made-up ids keep no other node of their address off the list, dismissed or not.
	for range 150 {
		m.unknown(uuid.NewString(), "x")
	}
	for _, n := range list() {
		m.into(204, "DELETE", "/api/v1/pending-nodes/"+n.ID, "", nil)
	}
	honest := uuid.NewString()
	m.unknown(honest, "x")
	if l := list(); len(l) != 1 || l[0].ID != honest {
		t.Errorf("got %+v", l)
	}
}

// A removed node has no secret. The refusal says that it was removed, and the node is not
// listed.
func TestARemovedNode(t *testing.T) {
	t.Parallel()
	m := start(t)
	now := time.Now()
	n := store.Node{ID: uuid.NewString(), DeviceType: "edge", RegisteredAt: now, LastSeen: now}
	if err := m.Store.Register(t.Context(), secret.Hash(registration), n); err != nil {
		t.Fatal(err)
	}
	for _, secret := range []string{"", "x"} {
		if message, pause := m.refused(&wire.Auth{NodeID: n.ID, NodeSecret: secret}); !strings.Contains(message, "was removed") || pause < time.Minute {
			t.Errorf("got %q, %v", message, pause)
		}
	}
	if _, text := m.call("GET", "/api/v1/pending-nodes", ""); strings.Contains(text, n.ID) {
		t.Error("it is listed")
	}
}

// The number of sockets that do not authenticate is bounded: the oldest ones end. An
// honest node behind the same address always gets in.
func TestSocketsThatDoNotAuthenticate(t *testing.T) {
	t.Parallel()
	m := start(t)
	ended := make(chan error, 400)
	for i := range 400 {
		n := m.dial()
		go func() {
			n.conn.SetReadDeadline(time.Now().Add(5 * time.Second)) // before the manager's own limit
			_, _, err := n.conn.ReadMessage()
			ended <- err
		}()
		if i%100 == 99 {
			m.register()
		}
	}
	for range 400 - 256 {
		select {
		case err := <-ended:
			if !websocket.IsCloseError(err, websocket.CloseTryAgainLater) {
				t.Fatalf("a socket ends with %v", err)
			}
		case <-time.After(4 * time.Second):
			t.Fatal("more than 256 sockets that have not authenticated are open")
		}
	}
	_, reg := m.register()
	if ok, _ := m.back(reg).(*wire.AuthOK); ok == nil {
		t.Error("a node is refused")
	}
	// They may send little.
	n := m.dial()
	n.conn.WriteMessage(websocket.TextMessage, make([]byte, 17<<10))
	if _, _, err := n.conn.ReadMessage(); !websocket.IsCloseError(err, websocket.CloseMessageTooBig) {
		t.Errorf("17 KiB before authentication: %v", err)
	}
	// A node that is let in may send more.
	n, _ = m.register()
	e := event("large")
	e.Details.Journal = []string{strings.Repeat("x", 8<<10), strings.Repeat("x", 8<<10), strings.Repeat("x", 8<<10)}
	n.send(e)
	if _, ok := n.next().(*wire.EventAck); !ok {
		t.Error("24 KiB after authentication are refused")
	}
}

// parallel calls f k times at once, and counts what it returns.
func parallel[T comparable](k int, f func(i int) T) map[T]int {
	start, results := make(chan struct{}), make(chan T, k)
	for i := range k {
		go func() { <-start; results <- f(i) }()
	}
	close(start)
	counts := map[T]int{}
	for range k {
		counts[<-results]++
	}
	return counts
}

// status is call without the check against openapi.json, for many calls at once.
func (m *manager) status(method, path, body string) int {
	resp := m.do(admin, method, path, body, nil)
	resp.Body.Close()
	return resp.StatusCode
}

// A node that authenticates while it is removed has no session afterwards.
func TestANodeDoesNotAuthenticateWhileItIsRemoved(t *testing.T) {
	t.Parallel()
	m := start(t)
	for range 10 {
		_, reg := m.register()
		n := m.dial()
		parallel(2, func(i int) bool {
			if i == 0 {
				n.send(&wire.Auth{NodeID: reg.NodeID, NodeSecret: reg.NodeSecret, SoftwareVersion: "1.0.0", DeviceType: "edge"})
				return true
			}
			return m.status("DELETE", "/api/v1/nodes/"+reg.NodeID, "") == 204
		})
		for {
			if _, _, err := n.conn.ReadMessage(); err != nil {
				if isTimeout(err) {
					t.Fatal("the session of a removed node continues")
				}
				break
			}
		}
	}
}
