package server_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/bilbycast/edge-agent/manager-sim/api"
	"github.com/bilbycast/edge-agent/manager-sim/server/identity"
	"github.com/bilbycast/edge-agent/wire"
)

// accessCalls makes the calls about users, tokens and pending nodes.
func (m *manager) accessCalls(call func(status int, method, path, body string, to any), group string) {
	m.t.Helper()
	call(201, "POST", "/api/v1/users", `{"name":"bob","password":"`+password+`","role":"operator"}`, nil)
	call(200, "PATCH", "/api/v1/users/bob", `{"role":"viewer","groups":["`+group+`"],"password":"another password"}`, nil)
	call(409, "PUT", "/api/v1/password", `{"old":"`+password+`","new":"another password"}`, nil) // a token has none
	var list struct{ Tokens []struct{ ID string } }
	call(200, "GET", "/api/v1/tokens", "", &list)
	call(204, "DELETE", "/api/v1/tokens/"+list.Tokens[0].ID, "", nil)
	ids := []string{"00000000-0000-4000-8000-000000000001", "00000000-0000-4000-8000-000000000002"}
	for _, id := range ids {
		m.unknown(id, "secret of "+id)
	}
	call(200, "GET", "/api/v1/pending-nodes", "", nil)
	call(201, "POST", "/api/v1/pending-nodes/"+ids[0]+"/accept", `{"group_id":"`+group+`"}`, nil)
	call(204, "DELETE", "/api/v1/pending-nodes/"+ids[1], "", nil)
}

// stream opens an event stream, and returns a channel that is closed when it ends.
func (m *manager) openStream(token string) (ended <-chan struct{}, status int) {
	m.t.Helper()
	resp := m.do(token, "GET", "/api/v1/events/stream", "", nil)
	return m.follow(resp.Body), resp.StatusCode
}

// follow reads a stream's first line, and then the rest.
func (m *manager) follow(body io.ReadCloser) <-chan struct{} {
	ended := make(chan struct{})
	lines := bufio.NewReader(body)
	lines.ReadString('\n')
	go func() {
		defer close(ended)
		defer body.Close()
		io.Copy(io.Discard, lines)
	}()
	return ended
}

// asUser opens a stream as package web does: in this process, for a session.
func (m *manager) asUser(i identity.Identity) <-chan struct{} {
	m.t.Helper()
	r, w := io.Pipe()
	go func() {
		req, _ := http.NewRequestWithContext(identity.As(m.t.Context(), i), "GET", "/api/v1/events/stream", nil)
		m.ServeHTTP(&pipeWriter{w, http.Header{}}, req)
		w.Close()
	}()
	return m.follow(r)
}

type pipeWriter struct {
	io.Writer
	h http.Header
}

func (p *pipeWriter) Header() http.Header { return p.h }
func (p *pipeWriter) WriteHeader(int)     {}
func (p *pipeWriter) Flush()              {}

func (m *manager) signedIn(name, password string) (string, identity.Identity) {
	m.t.Helper()
	secret, err := m.Users.SignIn(m.t.Context(), "192.0.2.9:1234", name, password)
	if err != nil {
		m.t.Fatal(err)
	}
	i, err := m.Users.SessionIdentity(m.t.Context(), secret)
	if err != nil {
		m.t.Fatal(err)
	}
	return secret, i
}

// A stream ends when the right to read it ends. Other streams continue.
func TestStreamsEndWithTheirRight(t *testing.T) {
	t.Parallel()
	for name, end := range map[string]func(t *testing.T, m *manager, secret string, i identity.Identity){
		"removed": func(t *testing.T, m *manager, _ string, i identity.Identity) {
			m.into(204, "DELETE", "/api/v1/users/ann", `{"reason":"left the company"}`, nil)
		},
		"role": func(t *testing.T, m *manager, _ string, i identity.Identity) {
			m.into(200, "PATCH", "/api/v1/users/ann", `{"role":"viewer"}`, nil)
		},
		"groups": func(t *testing.T, m *manager, _ string, i identity.Identity) {
			m.into(200, "PATCH", "/api/v1/users/ann", `{"groups":[]}`, nil)
		},
		"password": func(t *testing.T, m *manager, _ string, i identity.Identity) {
			m.into(200, "PATCH", "/api/v1/users/ann", `{"password":"another password"}`, nil)
		},
		"signed out": func(t *testing.T, m *manager, secret string, i identity.Identity) {
			if err := m.Users.SignOut(t.Context(), secret, i); err != nil {
				t.Error(err)
			}
		},
		"own password, in another session": func(t *testing.T, m *manager, _ string, _ identity.Identity) {
			_, i := m.signedIn("ann", password)
			if status, text := m.page(i, "PUT", "/api/v1/password", `{"old":"`+password+`","new":"another password"}`); status != 204 {
				t.Errorf("%d %s", status, text)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m := start(t)
			for _, user := range []string{"ann", "bob"} {
				m.into(201, "POST", "/api/v1/users", `{"name":"`+user+`","password":"`+password+`","role":"operator","groups":["*"]}`, nil)
			}
			secret, i := m.signedIn("ann", password)
			_, bob := m.signedIn("bob", password)
			ended := []<-chan struct{}{m.asUser(i)}
			if name != "signed out" && name != "own password, in another session" {
				// An identity that has only a name is looked up by it.
				ended = append(ended, m.asUser(identity.Identity{Name: "ann", Role: api.Operator, Groups: []string{"*"}}))
			}
			bobs := m.asUser(bob)
			end(t, m, secret, i)
			for _, e := range ended {
				select {
				case <-e:
				case <-time.After(time.Second):
					t.Error("the stream continues for a second")
				}
			}
			select {
			case <-bobs:
				t.Error("another user's stream ended")
			default:
			}
			if name == "removed" {
				if _, text := m.call("GET", "/api/v1/audit-log", ""); !strings.Contains(text, "left the company") {
					t.Error("the reason is not in the audit trail")
				}
			}
		})
	}
}

// page makes a call as package web does.
func (m *manager) page(i identity.Identity, method, path, body string) (int, string) {
	m.t.Helper()
	r, w := io.Pipe()
	status := make(chan int, 1)
	go func() {
		req, _ := http.NewRequestWithContext(identity.As(context.WithoutCancel(m.t.Context()), i), method, path, strings.NewReader(body))
		a := &answerWriter{pipeWriter{w, http.Header{}}, 200}
		m.ServeHTTP(a, req)
		status <- a.status
		w.Close()
	}()
	b, _ := io.ReadAll(r)
	return <-status, string(b)
}

type answerWriter struct {
	pipeWriter
	status int
}

func (a *answerWriter) WriteHeader(status int) { a.status = status }

type tokenView struct {
	ID, Name, Role string
	CreatedBy      string    `json:"created_by"`
	ExpiresAt      time.Time `json:"expires_at"`
	LastUsedAt     time.Time `json:"last_used_at"`
}

func (m *manager) tokens() map[string]tokenView {
	m.t.Helper()
	var list struct{ Tokens []tokenView }
	m.into(200, "GET", "/api/v1/tokens", "", &list)
	by := map[string]tokenView{}
	for _, v := range list.Tokens {
		by[v.Name] = v
	}
	return by
}

// A token is listed, expires, can be revoked, and ends when its creator is removed.
func TestTokens(t *testing.T) {
	t.Parallel()
	m := start(t)
	made := func(as, name, role string) string {
		t.Helper()
		code, text := m.as(as, "POST", "/api/v1/tokens", fmt.Sprintf(`{"name":%q,"role":%q,"groups":["*"]}`, name, role))
		if code != 201 {
			t.Fatalf("%s: %d %s", name, code, text)
		}
		_, rest, _ := strings.Cut(text, `"token":"`)
		token, _, _ := strings.Cut(rest, `"`)
		return token
	}
	works := func(token string) bool {
		code, _ := m.as(token, "GET", "/api/v1/nodes", "")
		return code == 200
	}
	ci := made(admin, "ci", "super_admin")
	child := made(ci, "child", "super_admin")
	grandchild := made(child, "grandchild", "viewer")
	other := made(admin, "other", "viewer")
	v := m.tokens()
	if v["ci"].CreatedBy != "admin token" || v["child"].CreatedBy != "token "+v["ci"].ID {
		t.Errorf("created by %q and %q", v["ci"].CreatedBy, v["child"].CreatedBy)
	}
	if d := time.Until(v["ci"].ExpiresAt); d < 89*24*time.Hour || d > 90*24*time.Hour {
		t.Errorf("it ends in %v", d)
	}
	if time.Since(v["ci"].LastUsedAt) > time.Minute || !v["other"].LastUsedAt.IsZero() {
		t.Errorf("last used %v and %v", v["ci"].LastUsedAt, v["other"].LastUsedAt)
	}
	for _, secs := range []int{-1, 3599, 400*24*3600 + 1} {
		m.into(400, "POST", "/api/v1/tokens", fmt.Sprintf(`{"name":"x","role":"viewer","expires_in_secs":%d}`, secs), nil)
	}
	listens, _ := m.openStream(grandchild)
	m.into(204, "DELETE", "/api/v1/tokens/"+v["ci"].ID, "", nil)
	select {
	case <-listens:
	case <-time.After(time.Second):
		t.Error("the stream of a revoked token continues for a second")
	}
	for name, token := range map[string]string{"ci": ci, "child": child, "grandchild": grandchild} {
		if works(token) {
			t.Errorf("%s works after it was revoked", name)
		}
	}
	if !works(other) {
		t.Error("another token was revoked")
	}
	m.into(404, "DELETE", "/api/v1/tokens/"+v["ci"].ID, "", nil)

	// What a super admin made ends with its role, and with the user.
	for user, end := range map[string]func(string){
		"ann": func(u string) { m.into(200, "PATCH", "/api/v1/users/"+u, `{"role":"group_admin"}`, nil) },
		"bob": func(u string) { m.into(204, "DELETE", "/api/v1/users/"+u, "", nil) },
	} {
		for _, name := range []string{user, user + "2"} {
			m.into(201, "POST", "/api/v1/users", `{"name":"`+name+`","password":"`+password+`","role":"super_admin"}`, nil)
		}
		_, i := m.signedIn(user, password)
		_, text := m.page(i, "POST", "/api/v1/tokens", `{"name":"of-`+user+`","role":"super_admin"}`)
		_, rest, _ := strings.Cut(text, `"token":"`)
		token, _, _ := strings.Cut(rest, `"`)
		if !works(token) {
			t.Fatalf("%s's token: %s", user, text)
		}
		end(user)
		if works(token) {
			t.Errorf("the token of %s works", user)
		}
		// A request that was under way makes none either.
		if status, text := m.page(i, "POST", "/api/v1/tokens", `{"name":"late","role":"super_admin"}`); status != 403 {
			t.Errorf("a token for %s: %d %s", user, status, text)
		}
	}
}

func TestPasswords(t *testing.T) {
	t.Parallel()
	m := start(t)
	var made struct{ Warning string }
	m.into(201, "POST", "/api/v1/users", `{"name":"ann","password":"`+password+`","role":"viewer"}`, &made)
	if !strings.Contains(made.Warning, "sees nothing") {
		t.Errorf("a viewer in no group: %q", made.Warning)
	}
	for i, body := range []string{`"role":"viewer","groups":["*"]`, `"role":"super_admin"`} {
		if _, text := m.call("POST", "/api/v1/users", fmt.Sprintf(`{"name":"ben%d","password":%q,%s}`, i, password, body)); strings.Contains(text, "warning") {
			t.Errorf("%s: %s", body, text)
		}
	}
	first, i := m.signedIn("ann", password)
	second, _ := m.signedIn("ann", password)
	change := func(old, new string) int {
		status, _ := m.page(i, "PUT", "/api/v1/password", `{"old":"`+old+`","new":"`+new+`"}`)
		return status
	}
	if got := change(password, "short"); got != 400 {
		t.Errorf("a short one: %d", got)
	}
	if got := change(password, "another password"); got != 204 {
		t.Fatalf("the right one: %d", got)
	}
	if _, err := m.Users.SessionIdentity(t.Context(), first); err != nil {
		t.Errorf("the session itself ended: %v", err)
	}
	if _, err := m.Users.SessionIdentity(t.Context(), second); err == nil {
		t.Error("the other session continues")
	}
	for range 5 {
		if got := change(password, "a third password"); got != 403 {
			t.Errorf("the old one: %d", got)
		}
	}
	if got := change("another password", "a third password"); got != 429 {
		t.Errorf("after five failures: %d", got)
	}
	for _, body := range []string{`{}`, `{"role":"king"}`, `{"password":"short"}`} {
		m.into(400, "PATCH", "/api/v1/users/ann", body, nil)
	}
	m.into(404, "PATCH", "/api/v1/users/nobody", `{"role":"viewer"}`, nil)
}

// unknown tries to authenticate, and returns the message and the pause of the refusal.
func (m *manager) unknown(id, secret string) (string, time.Duration) {
	m.t.Helper()
	return m.refused(&wire.Auth{NodeID: id, NodeSecret: secret, SoftwareVersion: "1.0.0", DeviceType: "edge", ProtocolVersion: wire.ProtocolVersion})
}
