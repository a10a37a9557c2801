package web_test

import (
	"context"
	"encoding/csv"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"net/url"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/bilbycast/edge-agent/manager-sim/server"
	"github.com/bilbycast/edge-agent/manager-sim/store"
	"github.com/bilbycast/edge-agent/manager-sim/web"
	"github.com/rs/zerolog"
)

const (
	password = "correct horse battery"
	// hostile is what a node might say of itself.
	hostile = `"><script>alert(1)</script><img src=x onerror=alert(1)>'`
)

// site is a manager with its pages, used without JavaScript.
type site struct {
	t     *testing.T
	url   string
	store store.Store
	m     *server.Server
	http  *httptest.Server
}

func open(t *testing.T) *site {
	t.Helper()
	st, err := store.Open(filepath.Join(t.TempDir(), "db"))
	if err != nil {
		t.Fatal(err)
	}
	releases := func(_ context.Context, deviceType, channel string) ([]server.Release, error) {
		var list []server.Release
		for _, v := range []string{"2.1.0", "2.0.0", "1.9.0", "1.0.0"} {
			list = append(list, server.Release{Version: v, Channel: channel, DeviceType: deviceType})
		}
		return list, nil
	}
	m, err := server.New(server.Config{Store: st, AdminToken: "token", Log: zerolog.Nop(), Releases: releases})
	if err != nil {
		t.Fatal(err)
	}
	h, err := web.Handler(m, zerolog.Nop())
	if err != nil {
		t.Fatal(err)
	}
	s := &site{t, "", st, m, httptest.NewTLSServer(h)}
	s.url = s.http.URL
	t.Cleanup(func() { m.Close(); s.http.Close(); st.Close() })
	return s
}

// person is somebody's browser.
type person struct {
	*site
	c *http.Client
}

func (s *site) stranger() *person {
	jar, err := cookiejar.New(nil)
	if err != nil {
		s.t.Fatal(err)
	}
	c := *s.http.Client()
	c.Jar = jar
	c.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	return &person{s, &c}
}

// root is the first administrator.
func (s *site) root() *person {
	s.t.Helper()
	claim, err := s.m.NewClaim(s.t.Context())
	if err != nil {
		s.t.Fatal(err)
	}
	p := s.stranger()
	p.post("/admin/claim", 303, url.Values{"token": {claim}, "name": {"root"}, "password": {password}})
	return p
}

func (p *person) do(req *http.Request, status int) (*http.Response, string) {
	p.t.Helper()
	resp, err := p.c.Do(req)
	if err != nil {
		p.t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		p.t.Fatal(err)
	}
	if resp.StatusCode != status {
		p.t.Errorf("%s %s: %d %.300s, want %d", req.Method, req.URL, resp.StatusCode, b, status)
	}
	p.strict(req.URL.Path, resp, string(b))
	return resp, string(b)
}

// inline finds what the policy does not allow, once the values of attributes are
// out of the way.
var (
	inline = regexp.MustCompile(`(?i)<script(?: [^>]*)?>[^<]|<style|<[^>]+ (?:style|on\w+)=|<img`)
	value  = regexp.MustCompile(`"[^"]*"`)
)

// strict checks what every answer to a browser has to have.
func (p *person) strict(path string, resp *http.Response, body string) {
	p.t.Helper()
	for key, want := range map[string]string{"Content-Security-Policy": "default-src 'none'", "X-Content-Type-Options": "nosniff", "Referrer-Policy": "same-origin", "Strict-Transport-Security": "max-age"} {
		if !strings.Contains(resp.Header.Get(key), want) {
			p.t.Errorf("%s: %s is %q", path, key, resp.Header.Get(key))
		}
	}
	if strings.Contains(resp.Header.Get("Content-Security-Policy"), "unsafe") {
		p.t.Errorf("%s allows what is unsafe", path)
	}
	if strings.HasPrefix(resp.Header.Get("Content-Type"), "text/html") {
		if found := inline.FindString(value.ReplaceAllString(body, "_")); found != "" {
			p.t.Errorf("%s has %q in it", path, found)
		}
		if resp.Header.Get("Cache-Control") != "no-store" {
			p.t.Errorf("%s may be kept", path)
		}
	}
}

func (p *person) get(path string, status int) string {
	p.t.Helper()
	req, err := http.NewRequestWithContext(p.t.Context(), http.MethodGet, p.url+path, nil)
	if err != nil {
		p.t.Fatal(err)
	}
	_, body := p.do(req, status)
	return body
}

func (p *person) post(path string, status int, form url.Values, header ...string) (*http.Response, string) {
	p.t.Helper()
	req, err := http.NewRequestWithContext(p.t.Context(), http.MethodPost, p.url+path, strings.NewReader(form.Encode()))
	if err != nil {
		p.t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	return p.do(req, status)
}

// user adds somebody, who then signs in.
func (p *person) user(name, role, group string) *person {
	p.t.Helper()
	p.post("/admin/users", 303, url.Values{"name": {name}, "password": {password}, "role": {role}, "groups": {group}})
	u := p.stranger()
	u.post("/admin/sign-in", 303, url.Values{"name": {name}, "password": {password}})
	return u
}

// node adds one that can be upgraded and says hostile things.
func (s *site) node(id, group string) {
	s.t.Helper()
	ctx, now := s.t.Context(), time.Now()
	must := func(err error) {
		s.t.Helper()
		if err != nil {
			s.t.Fatal(err)
		}
	}
	must(s.store.AddToken(ctx, "t"))
	must(s.store.Register(ctx, "t", store.Node{ID: id, DeviceType: hostile, Version: hostile, RegisteredAt: now, LastSeen: now}))
	must(s.store.Seen(ctx, store.Node{ID: id, Version: hostile, LastSeen: now, Capabilities: []string{"upgrade", hostile}, Upgrade: json.RawMessage(`{"channels":["stable"]}`)}))
	if group != "" {
		must(s.store.SetGroup(ctx, id, group, store.Audit{Time: now, Details: json.RawMessage(`{}`)}))
	}
}

func (s *site) event(e store.Event) {
	s.t.Helper()
	e.Time, e.ReceivedAt, e.Category, e.Details = time.Now(), time.Now(), "upgrade", json.RawMessage(`{"journal":["<script>alert(1)</script>"]}`)
	if e.Severity == "" {
		e.Severity = "info"
	}
	if _, err := s.store.AddEvent(s.t.Context(), &e); err != nil {
		s.t.Fatal(err)
	}
}

// group adds one by its form and returns its id.
func (p *person) group(name string) string {
	p.t.Helper()
	resp, _ := p.post("/admin/groups", 303, url.Values{"name": {name}})
	return strings.TrimPrefix(resp.Header.Get("Location"), "/admin/groups/")
}

// Everything that is done here is done by plain links and forms.
func TestPagesWorkWithoutJavaScript(t *testing.T) {
	t.Parallel()
	s := open(t)
	root := s.root()
	g := root.group("site one")
	s.node("n1", g)
	s.node("n2", g)
	if body := root.get("/admin/nodes?q=n1&online=no&group="+g, 200); !strings.Contains(body, "1 of 2 nodes") || !strings.Contains(body, `href="/admin/nodes/n1/upgrade"`) {
		t.Errorf("the filtered list: %s", body)
	}
	if err := s.store.Came(t.Context(), "n1", "2.0.0", time.Now()); err != nil {
		t.Fatal(err)
	}
	form := root.get("/admin/nodes/n1/upgrade", 200)
	for _, want := range []string{"2.1.0 (newer)", "2.0.0 (runs now)", "1.9.0 (an older major"} {
		if !strings.Contains(form, want) {
			t.Errorf("the form does not say %q: %s", want, form)
		}
	}
	if _, body := root.post("/admin/nodes/n1/upgrade", 400, url.Values{"version": {"latest"}, "channel": {"stable"}}); !strings.Contains(body, "latest") || !strings.Contains(body, `id="dialog"`) {
		t.Errorf("a refused form is not shown again: %s", body)
	}
	root.post("/admin/nodes/n1/upgrade", 303, url.Values{"version": {"1.1.0"}, "channel": {"stable"}})
	if body := root.get("/admin/nodes/n1", 200); !strings.Contains(body, "requested") || !strings.Contains(body, "queued") {
		t.Errorf("the node's page: %s", body)
	}
	rollOut := url.Values{"version": {"1.2.0"}, "channel": {"stable"}, "strategy": {"staged"}, "settle_secs": {"60"}, "threshold": {"1"}}
	root.get("/admin/groups/"+g+"/upgrade", 200)
	if _, body := root.post("/admin/groups/"+g+"/upgrade", 200, rollOut); !strings.Contains(body, "goes to 2 nodes") || !strings.Contains(body, "2 of them are offline") {
		t.Errorf("the plan: %s", body)
	}
	if body := root.get("/admin/rollouts", 200); !strings.Contains(body, "None yet") {
		t.Error("the plan has begun a rollout")
	}
	rollOut.Set("confirm", "yes")
	resp, _ := root.post("/admin/groups/"+g+"/upgrade", 303, rollOut)
	rollout := resp.Header.Get("Location")
	root.post("/admin/groups/"+g+"/upgrade", 409, rollOut) // one at a time
	root.post(rollout+"/resume", 409, nil)
	root.post(rollout+"/pause", 303, nil)
	root.post(rollout+"/skip", 303, url.Values{"node_id": {"n2"}})
	root.post(rollout+"/skip", 409, url.Values{"node_id": {"nobody"}})
	root.post(rollout+"/resume", 303, nil)
	root.post(rollout+"/abort", 303, nil)
	if body := root.get(rollout, 200); !strings.Contains(body, "aborted") || !strings.Contains(body, "skipped") {
		t.Errorf("the rollout: %s", body)
	}
	root.post("/admin/nodes/n1/group", 303, url.Values{"group_id": {""}})
	root.user("ann", "viewer", g)
	root.post("/admin/users/ann/remove", 303, nil)
	for _, path := range []string{"/admin/groups", "/admin/groups/" + g, "/admin/users", "/admin/events", "/admin/audit?action=denied"} {
		root.get(path, 200)
	}
	for _, path := range []string{"/admin/nodes/nobody", "/admin/groups/none", "/admin/rollouts/none", "/admin/nowhere"} {
		root.get(path, 404)
	}
	root.post("/admin/sign-out", 303, nil)
	root.get("/admin/nodes", 303)
}

// What a node says is text, wherever it is shown.
func TestHostileTextIsText(t *testing.T) {
	t.Parallel()
	s := open(t)
	root := s.root()
	g := root.group("site")
	s.node("n1", g)
	s.event(store.Event{EventID: "1", NodeID: "n1", Message: hostile, ErrorCode: hostile, Severity: "critical", CommandID: "c"})
	for _, path := range []string{"/admin/nodes", "/admin/nodes/n1", "/admin/nodes/n1/upgrade", "/admin/groups", "/admin/groups/" + g, "/admin/events", "/admin/events?search=" + url.QueryEscape(hostile), "/admin/audit?actor=" + url.QueryEscape(hostile), "/admin/nodes?q=" + url.QueryEscape(hostile)} {
		if body := root.get(path, 200); !strings.Contains(body, "&lt;script&gt;") { // and strict has looked for more
			t.Errorf("%s does not show it: %s", path, body)
		}
	}
}

func TestOnlyWhoIsSignedInComesIn(t *testing.T) {
	t.Parallel()
	s := open(t)
	s.root()
	p := s.stranger()
	for _, path := range []string{"/admin/nodes", "/admin/nodes/x", "/admin/audit", "/admin/stream", "/admin/users"} {
		p.get(path, 303)
	}
	p.post("/admin/users", 303, url.Values{"name": {"eve"}})
	for next, want := range map[string]string{
		"/admin/events?severity=info": "/admin/events?severity=info",
		"https://evil.example/admin/": "/admin/nodes", "//evil.example/admin/": "/admin/nodes", `/\evil.example/admin/`: "/admin/nodes",
		"/admin/../x": "/admin/nodes", "javascript:alert(1)": "/admin/nodes", "": "/admin/nodes", "/admin/\r\nSet-Cookie: a=b": "/admin/nodes",
	} {
		resp, _ := p.post("/admin/sign-in", 303, url.Values{"name": {"root"}, "password": {password}, "next": {next}})
		if got := resp.Header.Get("Location"); got != want {
			t.Errorf("next=%q leads to %q, want %q", next, got, want)
		}
		c := resp.Cookies()
		if len(c) != 1 || c[0].Name != "__Host-session" || !c[0].HttpOnly || !c[0].Secure || c[0].SameSite != http.SameSiteLaxMode || c[0].Path != "/" || c[0].Domain != "" {
			t.Errorf("the cookie is %v", c)
		}
	}
	guess := s.stranger()
	for range 5 {
		guess.post("/admin/sign-in", 401, url.Values{"name": {"root"}, "password": {"wrong"}})
	}
	guess.post("/admin/sign-in", 429, url.Values{"name": {"root"}, "password": {password}})
	guess.post("/admin/claim", 400, url.Values{"token": {"guess"}, "name": {"eve"}, "password": {password}})
}

// A page of another site cannot act for somebody who is signed in here.
func TestAnotherSitesFormsAreRefused(t *testing.T) {
	t.Parallel()
	s := open(t)
	root := s.root()
	for _, header := range [][]string{
		{"Sec-Fetch-Site", "cross-site"}, {"Sec-Fetch-Site", "same-site"}, {"Origin", "https://evil.example"}, {"Origin", "null"},
	} {
		root.post("/admin/groups", 403, url.Values{"name": {"evil"}}, header...)
	}
	root.post("/admin/groups", 303, url.Values{"name": {"good"}}, "Sec-Fetch-Site", "same-origin", "Origin", s.url)
	if body := root.get("/admin/groups", 200); strings.Contains(body, "evil") {
		t.Error("a form of another site has added a group")
	}
}

// Who may not do something is not offered it, and not let either; that is
// recorded.
func TestRolesOfPages(t *testing.T) {
	t.Parallel()
	s := open(t)
	root := s.root()
	mine, other := root.group("mine"), root.group("other")
	s.node("n1", mine)
	s.node("n2", other)
	viewer, operator := root.user("vera", "viewer", mine), root.user("otto", "operator", mine)
	admin := root.user("gina", "group_admin", mine)
	for _, tt := range []struct {
		p                         *person
		upgrade, group, audit     bool
		postUpgrade, postSchedule int
	}{
		{viewer, false, false, false, 403, 403},
		{operator, true, false, false, 303, 403},
		{admin, true, true, false, 303, 200},
		{root, true, true, true, 303, 200},
	} {
		body := tt.p.get("/admin/nodes", 200)
		if tt.p != root && strings.Contains(body, "n2") {
			t.Error("the node of another group is shown")
		}
		has := func(body, text string, want bool) {
			t.Helper()
			if strings.Contains(body, text) != want {
				t.Errorf("%q: %t, want %t: %s", text, !want, want, body)
			}
		}
		has(body, `href="/admin/nodes/n1/upgrade"`, tt.upgrade)
		has(body, `href="/admin/audit"`, tt.audit)
		has(tt.p.get("/admin/groups/"+mine, 200), `id="upgrade-group"`, tt.group)
		tt.p.post("/admin/nodes/n1/upgrade", tt.postUpgrade, url.Values{"version": {"1.1.0"}, "channel": {"stable"}})
		tt.p.post("/admin/groups/"+mine+"/upgrade", tt.postSchedule, url.Values{"version": {"1.1.0"}, "channel": {"stable"}})
		if tt.p != root {
			tt.p.get("/admin/nodes/n2", 403)
			tt.p.get("/admin/audit", 403)
			tt.p.post("/admin/users", 403, url.Values{"name": {"x"}, "password": {password}, "role": {"super_admin"}})
		}
	}
	for _, name := range []string{"vera", "otto", "gina"} {
		if body := root.get("/admin/audit?action=denied&actor="+name, 200); !strings.Contains(body, "POST /api/v1/users") {
			t.Errorf("what %s was denied is not in the audit trail", name)
		}
	}
}

// An export has all that the filter takes, once, and nothing that a spreadsheet
// would take for a formula.
func TestExports(t *testing.T) {
	t.Parallel()
	s := open(t)
	root := s.root()
	s.node("n1", "")
	const events = 450 // more than two pages of the API
	for i := range events {
		s.event(store.Event{EventID: fmt.Sprint(i), NodeID: "n1", Message: "=HYPERLINK(\"http://evil.example\")", ErrorCode: "@code"})
	}
	s.event(store.Event{EventID: "x", NodeID: "n1", Message: "other", Severity: "critical"})
	rows, err := csv.NewReader(strings.NewReader(root.get("/admin/events?format=csv&severity=info", 200))).ReadAll()
	if err != nil || len(rows) != 1+events {
		t.Fatalf("%d rows, %v", len(rows), err)
	}
	seen := map[string]bool{}
	for _, row := range rows[1:] {
		if seen[row[0]] || !strings.HasPrefix(row[8], "'=") || !strings.HasPrefix(row[6], "'@") {
			t.Fatalf("the row %q", row)
		}
		seen[row[0]] = true
	}
	lines := strings.Split(strings.TrimSpace(root.get("/admin/events?format=jsonl", 200)), "\n")
	if len(lines) != events+1 || !json.Valid([]byte(lines[0])) {
		t.Errorf("%d lines, the first %q", len(lines), lines[0])
	}
	rows, err = csv.NewReader(strings.NewReader(root.get("/admin/audit?format=csv", 200))).ReadAll()
	if err != nil || len(rows) != 3 || rows[1][3] != "sign_in" || rows[2][3] != "user.create" {
		t.Errorf("the audit trail: %v %v", rows, err)
	}
	root.get("/admin/events?format=xml", 400)
	// The pages themselves go through all of it, too.
	next := regexp.MustCompile(`href="(\?[^"]*)">Older`)
	count, path := 0, "/admin/events?category=upgrade"
	for {
		body := root.get(path, 200)
		count += strings.Count(body, `id="e-`)
		m := next.FindStringSubmatch(body)
		if m == nil {
			break
		}
		path = "/admin/events" + strings.ReplaceAll(m[1], "&amp;", "&")
	}
	if count != events+1 {
		t.Errorf("the pages have %d events", count)
	}
}
