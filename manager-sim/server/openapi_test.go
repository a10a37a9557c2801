package server_test

import (
	"encoding/json"
	"io"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/bilbycast/edge-agent/manager-sim/api"
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

// readOpenAPI returns the manager's openapi.json, and a compiler of its schemas.
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
	m.fitting.Lock() // the compiler is not safe for concurrent use
	defer m.fitting.Unlock()
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

// template returns the path of the document that matches a path.
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

// described checks an answer against openapi.json.
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

// Every call that openapi.json describes is made, with a body that it allows, and answered
// as it describes. It describes every route of the program.
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
	call(404, "POST", "/api/v1/nodes/"+id+"/withdraw", `{"command_id":"none","reason":"wrong version"}`, nil)
	m.actionCalls(call, id)
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
	if _, err := m.Store.MarkDuplicate(t.Context(), id, api.Duplicate{Addresses: []string{"192.0.2.1", "192.0.2.2"}, Since: time.Now()}); err != nil {
		t.Fatal(err)
	}
	call(200, "POST", "/api/v1/nodes/"+id+"/resolve", "", nil)
	call(204, "DELETE", "/api/v1/nodes/"+id, `{"reason":"scrap"}`, nil)
	call(200, "GET", "/api/v1/nodes?removed=true&id_prefix="+id[:6], "", nil)
	call(200, "GET", "/api/v1/audit-log?limit=1", "", nil)
	call(201, "POST", "/api/v1/users", `{"name":"ann","password":"`+password+`","role":"viewer","groups":["`+g+`"]}`, nil)
	call(200, "GET", "/api/v1/users", "", nil)
	call(204, "DELETE", "/api/v1/users/ann", "", nil)
	call(201, "POST", "/api/v1/tokens", `{"name":"ci","role":"viewer"}`, nil)
	m.accessCalls(call, g)
	for path, methods := range d.Paths {
		for method := range methods {
			name := strings.ToUpper(method) + " " + path
			if !made[name] && name != "GET /api/v1/events/stream" && name != "GET /metrics" { // those have tests of their own
				t.Errorf("%s is described, and was not called", name)
			}
		}
	}
}
