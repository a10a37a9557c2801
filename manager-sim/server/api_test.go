package server_test

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/bilbycast/edge-agent/wire"
	"github.com/gorilla/websocket"
	"github.com/santhosh-tekuri/jsonschema/v6"
)

// document is what the tests read of openapi.json.
type document struct {
	OpenAPI string `json:"openapi"`
	Paths   map[string]map[string]struct {
		RequestBody struct{ Content content }
		Responses   map[string]struct{ Content content }
	}
}

type content map[string]struct {
	Schema struct {
		Ref string `json:"$ref"`
	}
}

// readOpenAPI returns the manager's description of itself, and what compiles the
// schemas in it.
func (m *manager) readOpenAPI() (document, *jsonschema.Compiler) {
	m.t.Helper()
	resp := m.do("", "GET", "/api/v1/openapi.json", "", nil)
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		m.t.Fatal(err)
	}
	var d document
	if err := json.Unmarshal(text, &d); err != nil {
		m.t.Fatal(err)
	}
	raw, err := jsonschema.UnmarshalJSON(strings.NewReader(string(text)))
	if err != nil {
		m.t.Fatal(err)
	}
	c := jsonschema.NewCompiler()
	c.DefaultDraft(jsonschema.Draft2020)
	c.AssertFormat()
	if err := c.AddResource("mem:///openapi.json", raw); err != nil {
		m.t.Fatal(err)
	}
	return d, c
}

// fits checks a text against a schema of openapi.json.
func (m *manager) fits(ref, text string) error {
	_, c := m.openAPI()
	schema, err := c.Compile("mem:///openapi.json" + ref)
	if err != nil {
		return err
	}
	v, err := jsonschema.UnmarshalJSON(strings.NewReader(text))
	if err != nil {
		return err
	}
	return schema.Validate(v)
}

var inPath = regexp.MustCompile(`\\\{\w+\\\}`)

// template returns the path of the document that a path is one of.
func (d document) template(path string) string {
	path, _, _ = strings.Cut(path, "?")
	if _, ok := d.Paths[path]; ok {
		return path
	}
	for t := range d.Paths {
		if regexp.MustCompile("^" + inPath.ReplaceAllString(regexp.QuoteMeta(t), "[^/]+") + "$").MatchString(path) {
			return t
		}
	}
	return ""
}

// described checks an answer against what openapi.json says.
func (m *manager) described(method, path string, resp *http.Response, body []byte) {
	m.t.Helper()
	d, _ := m.openAPI()
	said, ok := d.Paths[d.template(path)][strings.ToLower(method)]
	if !ok {
		if resp.StatusCode != http.StatusNotFound && resp.StatusCode != http.StatusMethodNotAllowed {
			m.t.Errorf("openapi.json has no %s %s", method, path)
		}
		if err := m.fits("#/components/schemas/Problem", string(body)); err != nil {
			m.t.Errorf("%s %s: %s: %v", method, path, body, err)
		}
		return
	}
	r, ok := said.Responses[strconv.Itoa(resp.StatusCode)]
	if !ok {
		if resp.StatusCode < 400 {
			m.t.Errorf("openapi.json has no status %d of %s %s", resp.StatusCode, method, path)
		}
		r = said.Responses["default"]
	}
	if len(r.Content) == 0 {
		return
	}
	kind, _, _ := strings.Cut(resp.Header.Get("Content-Type"), ";")
	of, ok := r.Content[kind]
	if !ok {
		m.t.Errorf("%s %s: %d has the type %q, want one of %v", method, path, resp.StatusCode, kind, r.Content)
		return
	}
	if err := m.fits(of.Schema.Ref, string(body)); err != nil {
		m.t.Errorf("%s %s: %d %s is not as described: %v", method, path, resp.StatusCode, body, err)
	}
}

// Every call that openapi.json describes is made, with a body that it allows,
// and answered as it says; and it describes every call of the program's own.
func TestEveryCallIsAsDescribed(t *testing.T) {
	t.Parallel()
	m := start(t)
	d, _ := m.openAPI()
	if !strings.HasPrefix(d.OpenAPI, "3.1.") {
		t.Errorf("openapi is %q", d.OpenAPI)
	}
	made := map[string]bool{}
	call := func(status int, method, path, body string, to any) {
		t.Helper()
		template := d.template(path)
		made[method+" "+template] = true
		if body != "" {
			if err := m.fits(d.Paths[template][strings.ToLower(method)].RequestBody.Content["application/json"].Schema.Ref, body); err != nil {
				t.Errorf("%s %s: openapi.json does not allow %s: %v", method, path, body, err)
			}
		}
		m.into(status, method, path, body, to)
	}
	g, _ := m.group(3, nil)
	made["POST /api/v1/groups"], made["PUT /api/v1/nodes/{id}/group"] = true, true
	var nodes struct {
		Nodes []struct{ ID string }
		Next  string
	}
	call(200, "GET", "/api/v1/nodes?limit=2", "", &nodes)
	if len(nodes.Nodes) != 2 || nodes.Next != nodes.Nodes[1].ID {
		t.Fatalf("got %+v", nodes)
	}
	id := nodes.Nodes[0].ID
	var more struct {
		Nodes []struct{ ID string }
		Next  string
	}
	call(200, "GET", "/api/v1/nodes?limit=2&after="+nodes.Next, "", &more)
	if len(more.Nodes) != 1 || more.Next != "" {
		t.Errorf("the last page is %+v", more)
	}
	call(202, "POST", "/api/v1/nodes/"+id+"/upgrade", `{"version":"1.1.0","channel":"stable"}`, nil)
	m.until("its end", func() bool {
		var n struct {
			State string `json:"upgrade_state"`
		}
		call(200, "GET", "/api/v1/nodes/"+id, "", &n)
		return n.State == "updated"
	})
	call(200, "GET", "/api/v1/nodes/"+id+"/commands", "", nil)
	var connections struct {
		Connections []struct{ State, Version string }
	}
	call(200, "GET", "/api/v1/nodes/"+id+"/connections", "", &connections)
	var story []string
	for _, c := range slices.Backward(connections.Connections) {
		story = append(story, c.State+" "+c.Version)
	}
	if got := strings.Join(story, ", "); got != "authenticated 1.0.0, disconnected , authenticated 1.1.0" {
		t.Errorf("the node's connections: %s", got)
	}
	call(200, "GET", "/api/v1/events?per_page=2", "", nil)
	call(200, "GET", "/api/v1/releases/edge", "", nil)
	call(200, "GET", "/api/v1/groups", "", nil)
	call(200, "GET", "/api/v1/groups/"+g, "", nil)
	call(200, "POST", "/api/v1/groups/"+g+"/upgrade", `{"version":"1.2.0","dry_run":true}`, nil)
	var plan struct {
		RolloutID string `json:"rollout_id"`
	}
	call(202, "POST", "/api/v1/groups/"+g+"/upgrade", `{"version":"1.2.0","settle_secs":60,"limit_secs":60,"life_secs":60,"threshold":1,"strategy":"staged"}`, &plan)
	call(200, "GET", "/api/v1/rollouts", "", nil)
	call(200, "GET", "/api/v1/rollouts/"+plan.RolloutID, "", nil)
	call(200, "POST", "/api/v1/rollouts/"+plan.RolloutID+"/abort", "", nil)
	call(200, "GET", "/api/v1/audit-log?limit=1", "", nil)
	call(201, "POST", "/api/v1/users", `{"name":"ann","password":"`+password+`","role":"viewer","groups":["`+g+`"]}`, nil)
	call(200, "GET", "/api/v1/users", "", nil)
	call(204, "DELETE", "/api/v1/users/ann", "", nil)
	call(201, "POST", "/api/v1/tokens", `{"name":"ci","role":"viewer"}`, nil)
	for path, methods := range d.Paths {
		for method := range methods {
			name := strings.ToUpper(method) + " " + path
			if !made[name] && name != "GET /api/v1/events/stream" && name != "GET /metrics" { // those have tests of their own
				t.Errorf("%s is described, and was not called", name)
			}
		}
	}
}

// Pages that are gone through by "next" have each entry once, whatever is added
// meanwhile.
func TestPagesAreStable(t *testing.T) {
	t.Parallel()
	m := start(t)
	n, _ := m.register()
	add := func(from, to int) {
		for i := from; i < to; i++ {
			n.send(event(fmt.Sprint("e", i)))
			n.next()
		}
	}
	add(0, 7)
	var page struct {
		Events []struct {
			Seq int64
		}
		Total int
		Next  string
	}
	var got []int64
	for after := ""; ; after = "&after=" + page.Next {
		page.Next = ""
		m.into(200, "GET", "/api/v1/events?per_page=3"+after, "", &page)
		for _, e := range page.Events {
			got = append(got, e.Seq)
		}
		if page.Next == "" {
			break
		}
		add(len(got)+100, len(got)+103)
	}
	if len(got) != 8 || !slices.IsSortedFunc(got, func(a, b int64) int { return int(b - a) }) { // 7 and the one of register
		t.Errorf("the pages have %v", got)
	}
	for _, path := range []string{"/api/v1/events?after=x", "/api/v1/audit-log?after=-1", "/api/v1/audit-log?limit=1001", "/api/v1/nodes?limit=0", "/api/v1/nodes?after=nobody"} {
		m.into(http.StatusBadRequest, "GET", path, "", nil)
	}
}

// A request with a key is carried out once, and answered alike; the same key
// with another request is refused.
func TestIdempotencyKeys(t *testing.T) {
	t.Parallel()
	m := start(t)
	_, ack := m.register()
	path := "/api/v1/nodes/" + ack.NodeID + "/upgrade"
	ask := func(token, key, path, body string) (int, string, string) {
		resp := m.do(token, "POST", path, body, http.Header{"Idempotency-Key": {key}})
		defer resp.Body.Close()
		b, _ := io.ReadAll(resp.Body)
		m.described("POST", path, resp, b)
		return resp.StatusCode, string(b), resp.Header.Get("Idempotency-Replayed")
	}
	status, first, replayed := ask(admin, "k", path, `{"version":"1.1.0"}`)
	if status != 202 || replayed != "" {
		t.Fatal(status, first)
	}
	if status, again, replayed := ask(admin, "k", path, `{"version":"1.1.0"}`); status != 202 || again != first || replayed != "true" {
		t.Errorf("again: %d %s", status, again)
	}
	if status, text, _ := ask(admin, "k", path, `{"version":"1.2.0"}`); status != 422 || !strings.Contains(text, "key_reused") {
		t.Errorf("another body: %d %s", status, text)
	}
	if status, text, _ := ask(admin, strings.Repeat("k", 256), path, `{"version":"1.2.0"}`); status != 400 {
		t.Errorf("a long key: %d %s", status, text)
	}
	// What was refused was not carried out: the key is free.
	if status, _, _ := ask(admin, "k2", "/api/v1/groups", `{"name":""}`); status != 400 {
		t.Errorf("a bad name: %d", status)
	}
	if status, _, _ := ask(admin, "k2", "/api/v1/groups", `{"name":"site"}`); status != 201 {
		t.Errorf("then a good one: %d", status)
	}
	// The token is told once, and is nowhere kept.
	if status, _, _ := ask(admin, "k3", "/api/v1/tokens", `{"name":"ci","role":"viewer"}`); status != 201 {
		t.Errorf("a token: %d", status)
	}
	if status, text, _ := ask(admin, "k3", "/api/v1/tokens", `{"name":"ci","role":"viewer"}`); status != 409 || strings.Contains(text, `"token"`) {
		t.Errorf("a token again: %d %s", status, text)
	}
	// Many at once: one is carried out.
	const many = 20
	ids := make(chan string, many)
	for range many {
		go func() {
			resp := m.do(admin, "POST", path, `{"version":"1.3.0"}`, http.Header{"Idempotency-Key": {"race"}})
			defer resp.Body.Close()
			b, _ := io.ReadAll(resp.Body)
			if resp.StatusCode == 202 {
				ids <- string(b)
			} else {
				ids <- ""
			}
		}()
	}
	told := map[string]bool{}
	for range many {
		if id := <-ids; id != "" {
			told[id] = true
		}
	}
	var list struct{ Commands []any }
	m.into(200, "GET", "/api/v1/nodes/"+ack.NodeID+"/commands", "", &list)
	if len(list.Commands) != 2 || len(told) != 1 {
		t.Errorf("%d commands, %d answers", len(list.Commands), len(told))
	}
}

// A stream that is taken up again begins with what was missed, in order, once.
func TestStreamReplaysWhatWasMissed(t *testing.T) {
	t.Parallel()
	m := start(t)
	n, _ := m.register()
	add := func(from, to int) {
		for i := from; i < to; i++ {
			n.send(event(fmt.Sprint("e", i)))
			n.next()
		}
	}
	// read returns the ids of k events of a new stream, and what went before them.
	read := func(last string, k int) (ids []string, other string) {
		t.Helper()
		h := http.Header{}
		if last != "" {
			h.Set("Last-Event-ID", last)
		}
		resp := m.do(admin, "GET", "/api/v1/events/stream", "", h)
		defer resp.Body.Close()
		lines := bufio.NewScanner(resp.Body)
		for first := true; len(ids) < k && lines.Scan(); first = false {
			if first {
				add(1000+len(last)*1000, 1001+len(last)*1000) // one that is live
			}
			if id, ok := strings.CutPrefix(lines.Text(), "id: "); ok {
				ids = append(ids, id)
			} else if strings.Contains(lines.Text(), `"gap"`) {
				other = "gap"
			}
		}
		return ids, other
	}
	add(0, 5)
	ids, _ := read("", 1)
	if len(ids) != 1 || ids[0] != "7" { // after that of register, and five
		t.Fatalf("a new stream: %v", ids)
	}
	if ids, gap := read("3", 5); strings.Join(ids, " ") != "4 5 6 7 8" || gap != "" {
		t.Errorf("since 3: %v %s", ids, gap)
	}
	add(5, 210)
	if ids, gap := read("03", 201); gap != "gap" || len(ids) != 201 || ids[200] != "214" {
		t.Errorf("since long ago: %d events to %s, %q", len(ids), ids[len(ids)-1], gap)
	}
	resp := m.do(admin, "GET", "/api/v1/events/stream", "", http.Header{"Last-Event-ID": {"x"}})
	resp.Body.Close()
	if resp.StatusCode != http.StatusBadRequest {
		t.Errorf("an id that is none: %d", resp.StatusCode)
	}
}

func TestReadyMetricsAndAnOrderlyEnd(t *testing.T) {
	t.Parallel()
	m := start(t)
	n, _ := m.register()
	status := func(path string) int {
		resp := m.do("", "GET", path, "", nil)
		resp.Body.Close()
		return resp.StatusCode
	}
	if status("/healthz") != 200 || status("/readyz") != 200 || status("/metrics") != http.StatusUnauthorized {
		t.Error("healthz, readyz or metrics")
	}
	_, text := m.call("GET", "/metrics", "")
	for _, want := range []string{"manager_nodes_online 1", `manager_events_total{severity="info"} 1`, "manager_http_request_duration_seconds_count"} {
		if want == "manager_http_request_duration_seconds_count" {
			_, text = m.call("GET", "/metrics", "") // the first one is counted by now
		}
		if !strings.Contains(text, want) {
			t.Errorf("the metrics have no %s:\n%s", want, text)
		}
	}
	m.Close()
	n.conn.SetReadDeadline(time.Now().Add(10 * time.Second))
	for {
		_, b, err := n.conn.ReadMessage()
		if err == nil {
			if _, err := wire.Decode(b); err == nil {
				continue
			}
		}
		if !websocket.IsCloseError(err, websocket.CloseServiceRestart) {
			t.Errorf("a node is told %v", err)
		}
		break
	}
	if status("/readyz") != http.StatusServiceUnavailable || status("/healthz") != 200 {
		t.Error("a manager that stops says that it is ready")
	}
}
