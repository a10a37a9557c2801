package web_test

import (
	"context"
	"encoding/json"
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

	"github.com/bilbycast/edge-agent/manager-sim/api"
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
	store *store.Store
	m     *server.Server
	http  *httptest.Server
}

func open(t *testing.T) *site {
	t.Helper()
	st, err := store.Open(t.Context(), filepath.Join(t.TempDir(), "db"))
	if err != nil {
		t.Fatal(err)
	}
	releases := func(_ context.Context, deviceType, channel string) ([]api.Release, error) {
		var list []api.Release
		for _, v := range []string{"2.1.0", "2.0.0", "1.9.0", "1.0.0"} {
			list = append(list, api.Release{Version: v, Channel: channel, DeviceType: deviceType})
		}
		return list, nil
	}
	m, err := server.New(server.Config{Store: st, PasswordMemory: 32, AdminToken: "token", Log: zerolog.Nop(), Releases: releases})
	if err != nil {
		t.Fatal(err)
	}
	h, err := web.Handler(m, m.Users, zerolog.Nop())
	if err != nil {
		t.Fatal(err)
	}
	s := &site{t, "", st, m, httptest.NewTLSServer(h)}
	s.url = s.http.URL
	t.Cleanup(func() { m.Close(); s.http.Close(); st.Close() })
	return s
}

// person is the browser of one person.
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
	claim, err := s.m.Users.NewClaim(s.t.Context())
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

// inline matches what the policy forbids, in a page without the values of attributes.
var (
	inline = regexp.MustCompile(`(?i)<script(?: [^>]*)?>[^<]|<style|<[^>]+ (?:style|on\w+)=|<img`)
	value  = regexp.MustCompile(`"[^"]*"`)
)

// strict checks the headers and the content of every answer to a browser.
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
	_, body := p.fetch(path, status)
	return body
}

func (p *person) fetch(path string, status int) (*http.Response, string) {
	p.t.Helper()
	req, err := http.NewRequestWithContext(p.t.Context(), http.MethodGet, p.url+path, nil)
	if err != nil {
		p.t.Fatal(err)
	}
	return p.do(req, status)
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

var revisions = regexp.MustCompile(`name="revision" value="([^"]+)"`)

// seen returns the revision in the forms of the page of a rollout.
func (p *person) seen(page string) url.Values {
	p.t.Helper()
	m := revisions.FindStringSubmatch(p.get(page, 200))
	if m == nil {
		p.t.Fatalf("the forms of %s have no revision", page)
	}
	return url.Values{"revision": {m[1]}}
}

// user adds a user, who then signs in.
func (p *person) user(name, role, group string) *person {
	p.t.Helper()
	p.post("/admin/users", 303, url.Values{"name": {name}, "password": {password}, "role": {role}, "groups": {group}})
	u := p.stranger()
	u.post("/admin/sign-in", 303, url.Values{"name": {name}, "password": {password}})
	return u
}

// node adds a node that can be upgraded and reports hostile texts.
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
	must(s.store.RecordHealth(ctx, store.Node{ID: id, Version: hostile, LastSeen: now, Capabilities: []string{"upgrade", hostile}, Upgrade: json.RawMessage(`{"channels":["stable"]}`), Warnings: []string{hostile}}))
	if group != "" {
		must(s.store.SetGroup(ctx, id, group, api.AuditEntry{Time: now, Details: json.RawMessage(`{}`)}))
	}
}

func (s *site) event(e api.Event) {
	s.t.Helper()
	e.Time, e.ReceivedAt, e.Category, e.Details = time.Now(), time.Now(), "upgrade", json.RawMessage(`{"journal":["<script>alert(1)</script>"]}`)
	if e.Severity == "" {
		e.Severity = "info"
	}
	if _, err := s.store.AddEvent(s.t.Context(), &e); err != nil {
		s.t.Fatal(err)
	}
}

// group adds a group with its form and returns its id.
func (p *person) group(name string) string {
	p.t.Helper()
	resp, _ := p.post("/admin/groups", 303, url.Values{"name": {name}})
	return strings.TrimPrefix(resp.Header.Get("Location"), "/admin/groups/")
}

// end ends the node's commands, as a refusal by the node does.
func (s *site) end(node string) {
	s.t.Helper()
	cs, err := s.store.Commands(s.t.Context(), node, -1)
	if err != nil {
		s.t.Fatal(err)
	}
	for _, c := range cs {
		if _, err := s.store.RecordAck(s.t.Context(), store.Command{ID: c.ID, NodeID: node, AckedAt: time.Now(), ErrorCode: "upgrade_network_error", Error: "no network"}); err != nil {
			s.t.Fatal(err)
		}
	}
}
