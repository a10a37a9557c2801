package server_test

import (
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/bilbycast/edge-agent/manager-sim/api"
	"github.com/bilbycast/edge-agent/manager-sim/server/identity"
	"github.com/bilbycast/edge-agent/manager-sim/store"
	"github.com/bilbycast/edge-agent/wire"
)

const password = "correct horse battery"

// Every call by every role, about its own group and about another one.
func TestRoles(t *testing.T) {
	t.Parallel()
	m := start(t)
	group := func(name string) string {
		var g struct{ ID string }
		m.into(http.StatusCreated, "POST", "/api/v1/groups", `{"name":"`+name+`"}`, &g)
		return g.ID
	}
	mine, other := group("mine"), group("other")
	node := func(groupID string) string {
		n := m.dial()
		n.send(&wire.Auth{RegistrationToken: registration, SoftwareVersion: "1.0.0", DeviceType: "edge", ProtocolVersion: wire.ProtocolVersion})
		ack := n.next().(*wire.RegisterAck)
		n.send(&wire.Health{Status: "ok", Version: "1.0.0", Capabilities: []string{wire.CapabilityUpgrade}})
		m.into(http.StatusOK, "PUT", "/api/v1/nodes/"+ack.NodeID+"/group", `{"group_id":"`+groupID+`"}`, nil)
		m.until("its capability", func() bool {
			_, text := m.call("GET", "/api/v1/nodes/"+ack.NodeID, "")
			return strings.Contains(text, `"upgrade"`)
		})
		return ack.NodeID
	}
	nodeMine, nodeOther := node(mine), node(other)
	token := map[api.Role]string{}
	for _, role := range api.Roles() {
		var answer struct{ Token string }
		m.into(http.StatusCreated, "POST", "/api/v1/tokens", fmt.Sprintf(`{"name":"t","role":%q,"groups":[%q]}`, role, mine), &answer)
		token[role] = answer.Token
	}
	const ok, no = true, false
	for _, tt := range []struct {
		method, path, body     string
		viewer, operator       bool
		groupAdmin, superAdmin bool
	}{
		{"GET", "/api/v1/nodes", "", ok, ok, ok, ok},
		{"GET", "/api/v1/nodes/" + nodeMine, "", ok, ok, ok, ok},
		{"GET", "/api/v1/nodes/" + nodeOther, "", no, no, no, ok},
		{"GET", "/api/v1/nodes/" + nodeOther + "/commands", "", no, no, no, ok},
		{"POST", "/api/v1/nodes/" + nodeMine + "/upgrade", `{"version":"1.1.0"}`, no, ok, ok, ok},
		{"POST", "/api/v1/nodes/" + nodeOther + "/upgrade", `{"version":"1.1.0"}`, no, no, no, ok},
		{"PUT", "/api/v1/nodes/" + nodeMine + "/group", `{"group_id":"` + mine + `"}`, no, no, ok, ok},
		{"PUT", "/api/v1/nodes/" + nodeMine + "/group", `{"group_id":"` + other + `"}`, no, no, no, no}, // see below
		{"PUT", "/api/v1/nodes/" + nodeOther + "/group", `{"group_id":"` + mine + `"}`, no, no, no, no},
		{"GET", "/api/v1/groups", "", ok, ok, ok, ok},
		{"GET", "/api/v1/groups/" + mine, "", ok, ok, ok, ok},
		{"GET", "/api/v1/groups/" + other, "", no, no, no, ok},
		{"POST", "/api/v1/groups", `{"name":"new"}`, no, no, no, ok},
		{"POST", "/api/v1/groups/" + mine + "/upgrade", `{"version":"1.1.0","dry_run":true}`, no, no, ok, ok},
		{"POST", "/api/v1/groups/" + other + "/upgrade", `{"version":"1.1.0","dry_run":true}`, no, no, no, ok},
		{"GET", "/api/v1/events", "", ok, ok, ok, ok},
		{"GET", "/api/v1/audit-log", "", no, no, no, ok},
		{"GET", "/api/v1/users", "", no, no, no, ok},
		{"POST", "/api/v1/users", `{"name":"x","password":"` + password + `","role":"viewer"}`, no, no, no, ok},
		{"DELETE", "/api/v1/users/x", "", no, no, no, ok},
		{"POST", "/api/v1/tokens", `{"name":"x","role":"super_admin"}`, no, no, no, ok},
		{"GET", "/api/v1/tokens", "", no, no, no, ok},
		{"GET", "/api/v1/pending-nodes", "", no, no, no, ok},
	} {
		for role, may := range map[api.Role]bool{api.Viewer: tt.viewer, api.Operator: tt.operator, api.GroupAdmin: tt.groupAdmin, api.SuperAdmin: tt.superAdmin} {
			if role == api.SuperAdmin && !may {
				continue // it may, and would move the node away
			}
			code, text := m.as(token[role], tt.method, tt.path, tt.body)
			// The role allows it, and another command is in progress: of the role before.
			if allowed := code < 300 || code == http.StatusConflict && strings.Contains(text, "upgrade_in_progress"); allowed != may || !allowed && code != http.StatusForbidden {
				t.Errorf("%s: %s %s %s: %d %s", role, tt.method, tt.path, tt.body, code, text)
			}
		}
	}
	if _, text := m.as(token[api.Viewer], "GET", "/api/v1/nodes", ""); strings.Contains(text, nodeOther) || !strings.Contains(text, nodeMine) {
		t.Errorf("a viewer sees %s", text)
	}
	if code, _ := m.as("nonsense", "GET", "/api/v1/nodes", ""); code != http.StatusUnauthorized {
		t.Errorf("an unknown token: %d", code)
	}
	if _, text := m.call("GET", "/api/v1/audit-log", ""); !strings.Contains(text, `"action":"denied"`) || strings.Contains(text, token[api.Viewer]) {
		t.Errorf("the audit trail has no denial, or a token: %.2000s", text)
	}
}

func TestSignIn(t *testing.T) {
	t.Parallel()
	m := start(t)
	ctx := t.Context()
	claim, err := m.Users.NewClaim(ctx)
	if err != nil || claim == "" {
		t.Fatal(claim, err)
	}
	if err := m.Users.Claim(ctx, "guess", "root", password); !errors.Is(err, identity.ErrClaim) {
		t.Errorf("a guessed claim: %v", err)
	}
	if err := m.Users.Claim(ctx, claim, "root", "short"); err == nil || !strings.Contains(err.Error(), "12 to 1024") {
		t.Errorf("a short password: %v", err)
	}
	if err := m.Users.Claim(ctx, claim, "root", password); err != nil {
		t.Fatal(err)
	}
	if err := m.Users.Claim(ctx, claim, "second", password); !errors.Is(err, identity.ErrClaim) {
		t.Errorf("a claim twice: %v", err)
	}
	if again, err := m.Users.NewClaim(ctx); again != "" || err != nil {
		t.Errorf("a claim with a user there: %v", err)
	}

	secret, err := m.Users.SignIn(ctx, "here", "root", password)
	if err != nil {
		t.Fatal(err)
	}
	if i, err := m.Users.SessionIdentity(ctx, secret); err != nil || i.Name != "root" || !i.May(api.SuperAdmin) {
		t.Errorf("%+v, %v", i, err)
	}
	if err := m.Users.SignOut(ctx, secret, identity.Identity{Name: "root"}); err != nil {
		t.Fatal(err)
	}
	if _, err := m.Users.SessionIdentity(ctx, secret); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("after signing out: %v", err)
	}
	// A user who is removed is out at once.
	secret, err = m.Users.SignIn(ctx, "here", "root", password)
	if err != nil {
		t.Fatal(err)
	}
	m.into(http.StatusCreated, "POST", "/api/v1/users", `{"name":"second","password":"`+password+`","role":"super_admin"}`, nil)
	m.into(http.StatusNoContent, "DELETE", "/api/v1/users/root", "", nil)
	if _, err := m.Users.SessionIdentity(ctx, secret); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("after being removed: %v", err)
	}
	m.into(http.StatusCreated, "POST", "/api/v1/users", `{"name":"root","password":"`+password+`","role":"viewer","groups":["*"]}`, nil)

	// Five failures lock the name out from their source, and the source.
	for i := range 5 {
		if _, err := m.Users.SignIn(ctx, "stranger", "root", "wrong password"); !errors.Is(err, identity.ErrWrong) {
			t.Errorf("try %d: %v", i, err)
		}
	}
	if _, err := m.Users.SignIn(ctx, "stranger", "root", password); !errors.Is(err, identity.ErrLocked) {
		t.Errorf("the name is not locked out: %v", err)
	}
	if _, err := m.Users.SignIn(ctx, "elsewhere", "root", password); err != nil {
		t.Errorf("the name is locked out elsewhere: %v", err)
	}
	for i := range 5 {
		if _, err := m.Users.SignIn(ctx, "guesser", fmt.Sprint("user", i), password); !errors.Is(err, identity.ErrWrong) {
			t.Errorf("try %d: %v", i, err)
		}
	}
	if _, err := m.Users.SignIn(ctx, "guesser", "another", password); !errors.Is(err, identity.ErrLocked) {
		t.Errorf("the source is not locked out: %v", err)
	}
	_, text := m.call("GET", "/api/v1/audit-log", "")
	for _, want := range []string{`"action":"sign_in"`, `"action":"sign_out"`, `"action":"denied"`, `"action":"user.create"`} {
		if !strings.Contains(text, want) {
			t.Errorf("the audit trail has no %s", want)
		}
	}
	if strings.Contains(text, password) || strings.Contains(text, secret) || strings.Contains(text, "argon2") {
		t.Error("the audit trail has a secret")
	}
}
