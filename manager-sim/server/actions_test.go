package server_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/bilbycast/edge-agent/manager-sim/api"
	"github.com/bilbycast/edge-agent/manager-sim/server"
	"github.com/bilbycast/edge-agent/manager-sim/store"
	"github.com/bilbycast/edge-agent/wire"
	"github.com/rs/zerolog"
)

// actionCalls makes the calls about actions, of a simulated node, which refuses all.
func (m *manager) actionCalls(call func(status int, method, path, body string, to any), id string) {
	m.t.Helper()
	if err := m.Store.RecordActions(m.t.Context(), id, []string{"reboot"}); err != nil {
		m.t.Fatal(err)
	}
	path := "/api/v1/nodes/" + id + "/actions"
	var made api.CommandCreated
	call(202, "POST", path, `{"action":"reboot","params":{"in":5},"life_secs":60}`, &made)
	m.until("its answer", func() bool {
		var a api.Action
		call(200, "GET", path+"/"+made.CommandID, "", &a)
		return a.State == api.ActionEnded
	})
	call(409, "POST", path+"/"+made.CommandID+"/withdraw", `{"reason":"wrong node"}`, nil)
	call(200, "GET", path+"?limit=1", "", nil)
}

// acting authenticates a node that announces actions.
func (m *manager) acting(reg *wire.RegisterAck, actions ...string) *node {
	m.t.Helper()
	n := m.dial()
	a := auth()
	a.RegistrationToken, a.NodeID, a.NodeSecret, a.Actions = "", reg.NodeID, reg.NodeSecret, actions
	n.send(a)
	if _, ok := n.next().(*wire.AuthOK); !ok {
		m.t.Fatal("not accepted")
	}
	return n
}

// offline ends the session of a node.
func (m *manager) offline(n *node, reg *wire.RegisterAck) {
	m.t.Helper()
	n.conn.Close()
	m.nodeIs(reg.NodeID, false)
}

func (m *manager) action(reg *wire.RegisterAck, id string) (a api.Action) {
	m.t.Helper()
	m.into(http.StatusOK, "GET", "/api/v1/nodes/"+reg.NodeID+"/actions/"+id, "", &a)
	return a
}

// A node gets a command to an action that it announced, again until it has answered. The
// result is shown, the parameters are neither shown, logged nor kept. Upgrades go on beside it.
func TestACommandToAnAction(t *testing.T) {
	t.Parallel()
	log := &safeBuffer{}
	m := startWith(t, server.Config{Log: zerolog.New(log)})
	n, reg := m.register()
	m.offline(n, reg)
	n = m.acting(reg, "set_gain", "upgrade_binary", "Bad")
	path := "/api/v1/nodes/" + reg.NodeID
	if v := m.view(reg.NodeID); fmt.Sprint(v.Actions) != "[set_gain]" {
		t.Errorf("it shows the actions %q", v.Actions)
	}
	var made, second api.CommandCreated
	m.into(http.StatusAccepted, "POST", path+"/actions", `{"action":"set_gain","params":{"db": 3, "key":"hunter2"}}`, &made)
	m.into(http.StatusAccepted, "POST", path+"/actions", `{"action":"set_gain"}`, &second)
	seen := map[string]bool{}
	fresh := func() *wire.Command { // one that came while the node authenticated comes twice
		for {
			if c := n.command(); !seen[c.CommandID] {
				seen[c.CommandID] = true
				return c
			}
		}
	}
	c := fresh()
	if c.CommandID != made.CommandID || c.Action.Type != "set_gain" || string(c.Action.Params) != `{"db":3,"key":"hunter2"}` {
		t.Errorf("the node gets %+v", c)
	}
	if c := fresh(); c.CommandID != second.CommandID || c.Action.Params != nil {
		t.Errorf("the node gets %+v", c)
	}
	n.send(&wire.Health{Status: wire.StatusOK, Version: "1.0.0", Capabilities: []string{wire.CapabilityUpgrade}})
	n.synced("health")
	m.into(http.StatusAccepted, "POST", path+"/upgrade", `{"version":"1.1.0"}`, nil)
	if c := fresh(); c.Action.Type != wire.ActionUpgrade {
		t.Errorf("the node gets %+v", c)
	}
	if a := m.action(reg, made.CommandID); a.State != api.ActionSent || a.Over() || a.ParamsBytes != 24 || a.RequestedBy != "admin" || a.SentAt.IsZero() {
		t.Errorf("%+v", a)
	}
	m.offline(n, reg)
	n = m.acting(reg, "set_gain")
	for range 3 {
		if c := n.command(); c.CommandID == made.CommandID {
			break
		}
	}
	result := `{"text":"a\n\u001b[2J<script>` + "\uFFFD" + `","gain":3}`
	n.ack(&wire.CommandAck{CommandID: made.CommandID, Success: true, Result: json.RawMessage(strings.ReplaceAll(result, "\uFFFD", "\xff"))})
	n.ack(&wire.CommandAck{CommandID: made.CommandID, Error: "again", ErrorCode: "other"})
	n.ack(&wire.CommandAck{CommandID: second.CommandID, Error: "no signal", ErrorCode: wire.ActionFailed})
	a := m.action(reg, made.CommandID)
	var got, want any
	if err := json.Unmarshal(a.Result, &got); err != nil || json.Unmarshal([]byte(result), &want) != nil || fmt.Sprint(got) != fmt.Sprint(want) || !a.Success || a.State != api.ActionEnded || a.AnsweredAt.IsZero() {
		t.Errorf("%+v: %s", a, a.Result)
	}
	if a := m.action(reg, second.CommandID); a.Success || a.ErrorCode != wire.ActionFailed || a.Error != "no signal" || a.Result != nil {
		t.Errorf("%+v", a)
	}
	m.offline(n, reg)
	n = m.acting(reg, "set_gain") // answered, so neither comes again
	n.synced("nothing-else")
	var list api.ActionList
	m.into(http.StatusOK, "GET", path+"/actions", "", &list)
	if len(list.Actions) != 2 || list.Actions[1].ID != made.CommandID {
		t.Errorf("%+v", list)
	}
	if got := m.auditOf("node.action.request"); len(got) != 2 || got[1] != fmt.Sprintf(`{"action":"set_gain","command_id":%q,"params_bytes":24}`, made.CommandID) {
		t.Errorf("audit %q", got)
	}
	if s, err := m.Store.Action(t.Context(), reg.NodeID, made.CommandID); err != nil || s.Params != nil {
		t.Errorf("the store has %s, %v", s.Params, err)
	}
	if strings.Contains(log.String(), "hunter2") {
		t.Error("the parameters are in the log")
	}
}

// A command that cannot be sent is refused with a stable code, and one of another's group with
// 403.
func TestARefusedCommandToAnAction(t *testing.T) {
	t.Parallel()
	m := start(t)
	n, reg := m.register()
	m.offline(n, reg)
	m.offline(m.acting(reg, "reboot"), reg)
	path := "/api/v1/nodes/" + reg.NodeID + "/actions"
	refused := func(status int, code, body string) {
		t.Helper()
		var p api.Problem
		m.into(status, "POST", path, body, &p)
		if p.Code != code {
			t.Errorf("%.80s: %s", body, p.Code)
		}
	}
	refused(http.StatusConflict, api.CodeActionNotAnnounced, `{"action":"format"}`)
	refused(http.StatusConflict, api.CodeActionNotAnnounced, `{"action":"upgrade_binary","params":{"version":"1.1.0"}}`)
	refused(http.StatusRequestEntityTooLarge, api.CodeParamsTooLarge, `{"action":"reboot","params":"`+strings.Repeat("a", api.MaxParams-1)+`"}`)
	refused(http.StatusRequestEntityTooLarge, api.CodeParamsTooLarge, `{"action":"reboot","params":"`+strings.Repeat("<", api.MaxParams/6+1)+`"}`)
	refused(http.StatusBadRequest, api.CodeBadRequest, `{"action":"reboot","params":"`+strings.Repeat("a", api.MaxActionBody)+`"}`)
	refused(http.StatusBadRequest, api.CodeBadRequest, `{"action":"reboot","params":"`+"\xff"+`"}`)
	refused(http.StatusBadRequest, api.CodeBadRequest, `{"action":"reboot","life_secs":1}`)
	ids := make([]api.CommandCreated, api.MaxOpenActions)
	for i := range ids {
		m.into(http.StatusAccepted, "POST", path, `{"action":"reboot","params":"`+strings.Repeat("a", api.MaxParams-2)+`"}`, &ids[i])
	}
	refused(http.StatusConflict, api.CodeTooManyCommands, `{"action":"reboot"}`)

	// What was never sent is withdrawn, once.
	var a api.Action
	m.into(http.StatusOK, "POST", path+"/"+ids[0].CommandID+"/withdraw", `{"reason":"wrong node"}`, &a)
	if a.State != api.ActionWithdrawn || a.WithdrawnBy != "admin" || a.WithdrawReason != "wrong node" {
		t.Errorf("%+v", a)
	}
	var p api.Problem
	if m.into(http.StatusConflict, "POST", path+"/"+ids[0].CommandID+"/withdraw", `{}`, &p); p.Code != api.CodeNotNow {
		t.Errorf("%+v", p)
	}
	m.into(http.StatusNotFound, "GET", path+"/none", "", nil)
	n = m.acting(reg, "reboot")
	for _, id := range ids[1:] {
		if c := n.command(); c.CommandID != id.CommandID {
			t.Errorf("the node gets %s, want %s", c.CommandID, id.CommandID)
		}
	}

	// Rights: a viewer may read, an operator of another group neither.
	var group api.Group
	m.into(http.StatusCreated, "POST", "/api/v1/groups", `{"name":"other"}`, &group)
	var viewer, other api.TokenCreated
	m.into(http.StatusCreated, "POST", "/api/v1/tokens", `{"name":"viewer","role":"viewer","groups":["*"]}`, &viewer)
	m.into(http.StatusCreated, "POST", "/api/v1/tokens", `{"name":"other","role":"operator","groups":["`+group.ID+`"]}`, &other)
	for _, tt := range []struct {
		token, method string
		want          int
	}{{viewer.Token, "GET", 200}, {viewer.Token, "POST", 403}, {other.Token, "GET", 403}, {other.Token, "POST", 403}} {
		if got, text := m.as(tt.token, tt.method, path, `{"action":"reboot"}`); got != tt.want {
			t.Errorf("%s: %d %s", tt.method, got, text)
		}
	}
	m.into(http.StatusNoContent, "DELETE", "/api/v1/nodes/"+reg.NodeID, "", nil)
	refused(http.StatusConflict, api.CodeRemoved, `{"action":"reboot"}`)
	if a := m.action(reg, ids[1].CommandID); a.State != api.ActionExpired {
		t.Errorf("after the removal: %+v", a)
	}
}

// A command that the node does not answer in its lifetime, or whose requester has lost the
// right, is not sent.
func TestACommandToAnActionThatIsOver(t *testing.T) {
	t.Parallel()
	m := start(t)
	n, reg := m.register()
	m.offline(n, reg)
	m.offline(m.acting(reg, "reboot"), reg)
	path := "/api/v1/nodes/" + reg.NodeID + "/actions"
	old := store.Action{ID: "old", NodeID: reg.NodeID, Action: "reboot", CreatedAt: time.Now().Add(-time.Hour), Life: time.Minute}
	if err := m.Store.AddAction(t.Context(), old, store.NewAuditEntry(time.Now(), "a", "b", "c", nil)); err != nil {
		t.Fatal(err)
	}
	if a := m.action(reg, "old"); a.State != api.ActionExpired || !a.Over() {
		t.Errorf("%+v", a)
	}
	var token api.TokenCreated
	var lost, kept api.CommandCreated
	m.into(http.StatusCreated, "POST", "/api/v1/tokens", `{"name":"op","role":"operator","groups":["*"]}`, &token)
	if status, text := m.as(token.Token, "POST", path, `{"action":"reboot"}`); status != http.StatusAccepted || json.Unmarshal([]byte(text), &lost) != nil {
		t.Fatal(status, text)
	}
	m.into(http.StatusNoContent, "DELETE", "/api/v1/tokens/"+token.ID, "", nil)
	m.into(http.StatusAccepted, "POST", path, `{"action":"reboot"}`, &kept)
	n = m.acting(reg, "reboot")
	if c := n.command(); c.CommandID != kept.CommandID {
		t.Errorf("the node gets %+v", c)
	}
	if a := m.action(reg, lost.CommandID); a.State != api.ActionWithdrawn || a.WithdrawReason != store.ReasonRights || a.WithdrawnBy != "manager" {
		t.Errorf("%+v", a)
	}
	if s, err := m.Store.Action(t.Context(), reg.NodeID, "old"); err != nil || s.State != api.ActionExpired {
		t.Errorf("the store has %+v, %v", s, err)
	}
}

// safeBuffer is a log that a test reads while it is written.
type safeBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *safeBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *safeBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}
