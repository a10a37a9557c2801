package web_test

import (
	"bytes"
	"context"
	"encoding/csv"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"regexp"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"github.com/bilbycast/edge-agent/manager-sim/api"
	"github.com/bilbycast/edge-agent/manager-sim/web"
	"github.com/rs/zerolog"
)

// This test uses only plain links and forms.
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
	if err := s.store.RecordConnect(t.Context(), "n1", "2.0.0", "", time.Now()); err != nil {
		t.Fatal(err)
	}
	form := root.get("/admin/nodes/n1/upgrade", 200)
	for _, want := range []string{"2.1.0 (newer)", "2.0.0 (running now)", "1.9.0 (older major"} {
		if !strings.Contains(form, want) {
			t.Errorf("the form does not say %q: %s", want, form)
		}
	}
	if _, body := root.post("/admin/nodes/n1/upgrade", 400, url.Values{"version": {"latest"}, "channel": {"stable"}}); !strings.Contains(body, "latest") || !strings.Contains(body, `id="dialog"`) {
		t.Errorf("a refused form is not shown again: %s", body)
	}
	root.post("/admin/nodes/n1/upgrade", 303, url.Values{"version": {"2.1.0"}, "channel": {"stable"}})
	if body := root.get("/admin/nodes/n1", 200); !strings.Contains(body, "requested") || !strings.Contains(body, "queued") {
		t.Errorf("the node's page: %s", body)
	}
	rollOut := url.Values{"version": {"2.1.0"}, "channel": {"stable"}, "strategy": {"staged"}, "settle_secs": {"60"}, "threshold": {"1"}}
	root.get("/admin/groups/"+g+"/upgrade", 200)
	if _, body := root.post("/admin/groups/"+g+"/upgrade", 200, rollOut); !strings.Contains(body, "Upgrades 2 nodes") || !strings.Contains(body, "2 are offline and will be upgraded when they reconnect") {
		t.Errorf("the plan: %s", body)
	}
	if body := root.get("/admin/rollouts", 200); !strings.Contains(body, "No rollouts yet") {
		t.Error("the plan has begun a rollout")
	}
	rollOut.Set("confirm", "yes")
	resp, _ := root.post("/admin/groups/"+g+"/upgrade", 303, rollOut)
	rollout := resp.Header.Get("Location")
	root.post("/admin/groups/"+g+"/upgrade", 409, rollOut) // one at a time
	root.post(rollout+"/resume", 428, nil)
	root.post(rollout+"/resume", 409, root.seen(rollout))
	root.post(rollout+"/pause", 303, nil)
	old := root.seen(rollout)
	root.post(rollout+"/skip", 303, url.Values{"node_id": {"n2"}, "revision": old["revision"]})
	if _, body := root.post(rollout+"/resume", 412, old); !strings.Contains(body, "since then 1 more node left out: n2") || !strings.Contains(body, `id="resume"`) {
		t.Errorf("the page of a refused act does not show what is new: %s", body)
	}
	root.post(rollout+"/skip", 409, url.Values{"node_id": {"nobody"}, "revision": root.seen(rollout)["revision"]})
	root.post(rollout+"/resume", 303, root.seen(rollout))
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

// A text of a node is shown as text everywhere.
func TestHostileTextIsText(t *testing.T) {
	t.Parallel()
	s := open(t)
	root := s.root()
	g := root.group("site")
	s.node("n1", g)
	s.event(api.Event{EventID: "1", NodeID: "n1", Message: hostile, ErrorCode: hostile, Severity: "critical", CommandID: "c"})
	for _, path := range []string{"/admin/nodes", "/admin/nodes/n1", "/admin/nodes/n1/upgrade", "/admin/groups", "/admin/groups/" + g, "/admin/events", "/admin/events?search=" + url.QueryEscape(hostile), "/admin/audit?actor=" + url.QueryEscape(hostile), "/admin/nodes?q=" + url.QueryEscape(hostile)} {
		if body := root.get(path, 200); !strings.Contains(body, "&lt;script&gt;") { // and strict has looked for more
			t.Errorf("%s does not show it: %s", path, body)
		}
	}
}

func TestPagesNeedASession(t *testing.T) {
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
			t.Errorf("next=%q opens %q, want %q", next, got, want)
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

// A page of another site cannot act for a person who is signed in here.
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

// A person without a right sees no button for it, and a request is refused and
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
		tt.p.post("/admin/nodes/n1/upgrade", tt.postUpgrade, url.Values{"version": {"2.1.0"}, "channel": {"stable"}})
		s.end("n1")
		tt.p.post("/admin/groups/"+mine+"/upgrade", tt.postSchedule, url.Values{"version": {"2.1.0"}, "channel": {"stable"}})
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

// An export has every matching record once, and nothing that a spreadsheet would run as
// a formula.
func TestExports(t *testing.T) {
	t.Parallel()
	s := open(t)
	root := s.root()
	s.node("n1", "")
	const events = 450 // more than two pages of the API
	for i := range events {
		s.event(api.Event{EventID: fmt.Sprint(i), NodeID: "n1", Message: "=HYPERLINK(\"http://evil.example\")", ErrorCode: "@code"})
	}
	s.event(api.Event{EventID: "x", NodeID: "n1", Message: "other", Severity: "critical"})
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

// An operator's reason reaches the audit trail, and a removed node keeps its page.
func TestReasonsAreInTheAuditTrail(t *testing.T) {
	t.Parallel()
	s := open(t)
	root := s.root()
	g := root.group("site one")
	s.node("n1", g)
	root.user("ann", "viewer", g)
	rollOut := url.Values{"version": {"2.1.0"}, "channel": {"stable"}, "strategy": {"immediate"}, "settle_secs": {"60"}, "threshold": {"1"}, "rollback": {"yes"}, "confirm": {"yes"}, "reason": {"2.2.0 leaks memory"}}
	resp, _ := root.post("/admin/groups/"+g+"/upgrade", 303, rollOut)
	at := resp.Header.Get("Location")
	has(t, root.get(at, 200), "site one", "1 waiting", "by root")
	has(t, root.get("/admin/rollouts", 200), "site one", "by root")
	root.post(at+"/abort", 303, url.Values{"reason": {"a wrong version"}})
	root.get(at+"/abort", 303) // it has ended
	root.post("/admin/users/ann/remove", 303, url.Values{"reason": {"ann left"}})
	root.post("/admin/tokens", 200, url.Values{"name": {"ci"}, "role": {"viewer"}, "groups": {g}, "expires_in_secs": {"3600"}})
	revoke := regexp.MustCompile(`/admin/tokens/[^/]+/revoke`).FindString(root.get("/admin/tokens", 200))
	root.post(revoke, 303, url.Values{"reason": {"ci was replaced"}})
	root.get(revoke, 404)
	root.post("/admin/nodes/n1/remove", 303, url.Values{"reason": {"device retired"}})
	trail := root.get("/admin/audit", 200)
	for _, reason := range []string{"2.2.0 leaks memory", "a wrong version", "ann left", "ci was replaced", "device retired"} {
		has(t, trail, reason)
	}
	body := root.get("/admin/nodes/n1", 200)
	has(t, body, "This node was removed", "UTC")
	hasNot(t, body, "/admin/nodes/n1/remove", "/admin/nodes/n1/upgrade")
	has(t, root.get("/admin/nodes?removed=yes", 200), "1 node, removed", `href="/admin/nodes/n1"`)
	body = root.get("/admin/nodes", 200)
	has(t, body, "All nodes were removed.", "/admin/nodes?removed=yes")
	hasNot(t, body, "registered yet")
	has(t, root.get("/admin/events?severity=bad", 400), "severity ", "is not one of info, minor", "<form")
	has(t, root.get("/admin/events?node_id=nobody", 404), `role="alert"`, "<form")
	if _, body := root.post("/admin/groups/"+g+"/upgrade", 409, url.Values{"version": {"2.1.0"}, "channel": {"stable"}, "strategy": {"staged"}}); !strings.Contains(body, `role="alert"`) {
		t.Errorf("a group without nodes: %s", body)
	}
}

// The audit trail shows the names of groups. The beginning of a node's id finds its
// events.
func TestRecordsAreFoundByName(t *testing.T) {
	t.Parallel()
	s := open(t)
	root := s.root()
	g := root.group("site one")
	s.node("0f0e0d0c-one", g)
	s.event(api.Event{EventID: "1", NodeID: "0f0e0d0c-one", Message: "it happened"})
	has(t, root.get("/admin/events?node_id=0f0e", 200), "it happened")
	root.get("/admin/events?node_id=0f", 404)
	root.post("/admin/nodes/0f0e0d0c-one/group", 303, url.Values{"group_id": {""}})
	root.post("/admin/nodes/0f0e0d0c-one/group", 303, url.Values{"group_id": {g}})
	trail := root.get("/admin/audit", 200)
	has(t, trail, "node.group.set", "group:", "site one ("+g+")", "group:", "none", "group.create", "site one", "group id:", g)
	hasNot(t, trail, "null", "{")
	has(t, root.get("/admin/audit?target=site+one", 200), "1 record", "group.create")
}

// An incomplete form changes nothing on any page, and is not logged as an error of the
// manager.
func TestIncompleteFormsAreRefused(t *testing.T) {
	t.Parallel()
	s := open(t)
	root := s.root()
	var logged bytes.Buffer
	pages, err := web.New(s.m, s.m.Users, zerolog.New(&logged).Level(zerolog.WarnLevel))
	if err != nil {
		t.Fatal(err)
	}
	u, err := url.Parse(s.url)
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		err    error
		status int
	}{{io.ErrUnexpectedEOF, 400}, {os.ErrDeadlineExceeded, 408}, {nil, 413}} {
		for _, path := range []string{"/admin/sign-in", "/admin/claim", "/admin/users", "/admin/password", "/admin/nodes/n1/upgrade", "/admin/tokens", "/admin/groups"} {
			body := io.MultiReader(strings.NewReader("name=root&password="), iotest.ErrReader(tt.err))
			if tt.err == nil {
				body = strings.NewReader(strings.Repeat("a", 70<<10))
			}
			r := httptest.NewRequestWithContext(t.Context(), http.MethodPost, s.url+path, body)
			r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
			for _, c := range root.c.Jar.Cookies(u) {
				r.AddCookie(c)
			}
			rec := httptest.NewRecorder()
			pages.ServeHTTP(rec, r)
			if rec.Code != tt.status || !strings.Contains(rec.Body.String(), "The form") {
				t.Errorf("%s, %v: %d %s", path, tt.err, rec.Code, rec.Body)
			}
		}
	}
	// A browser that goes away while its password is checked.
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	r := httptest.NewRequestWithContext(ctx, http.MethodPost, s.url+"/admin/sign-in", strings.NewReader("name=root&password=wrong"))
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	rec := httptest.NewRecorder()
	pages.ServeHTTP(rec, r)
	if rec.Code != 400 || logged.Len() > 0 {
		t.Errorf("%d, and the log has %s", rec.Code, &logged)
	}
}

// The pages change users and passwords within the manager's rules.
func TestUsersAreChanged(t *testing.T) {
	t.Parallel()
	s := open(t)
	root := s.root()
	g := root.group("site one")
	_, body := root.post("/admin/users", 200, url.Values{"name": {"ann"}, "password": {password}, "role": {"viewer"}})
	has(t, body, "User ann added. Warning: ", "none: this user sees no nodes")
	ann := s.stranger()
	ann.post("/admin/sign-in", 303, url.Values{"name": {"ann"}, "password": {password}})
	has(t, ann.get("/admin/nodes", 200), "Your user has no group, so it sees no nodes.")
	root.post("/admin/users/ann/access", 303, url.Values{"role": {"operator"}, "groups": {g}})
	has(t, ann.get("/admin/nodes", 200), "No nodes are in your groups yet.")
	has(t, root.get("/admin/users/ann", 200), `<option value="operator" selected>`, `value="`+g+`" checked`)
	next := password + " 2"
	_, body = ann.post("/admin/password", 400, url.Values{"old": {"wrong one"}, "new": {next}, "again": {next}})
	has(t, body, "The current password is wrong.", "<form")
	_, body = ann.post("/admin/password", 400, url.Values{"old": {password}, "new": {"short"}, "again": {"short"}})
	has(t, body, `role="alert"`, "<form")
	ann.post("/admin/password", 200, url.Values{"old": {password}, "new": {next}, "again": {next}})
	ann.get("/admin/nodes", 200) // and stays signed in
	root.post("/admin/users/ann/password", 303, url.Values{"password": {password}})
	ann.get("/admin/nodes", 303)
	for _, path := range []string{"/admin/users/root/remove", "/admin/users/root/access"} {
		_, body = root.post(path, 409, url.Values{"role": {"viewer"}})
		has(t, body, "last super admin")
	}
	root.get("/admin/nodes", 200)
}
