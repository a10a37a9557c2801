package web_test

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/bilbycast/edge-agent/manager-sim/rollout"
	"github.com/bilbycast/edge-agent/manager-sim/server/secret"
	"github.com/bilbycast/edge-agent/manager-sim/web"
	"github.com/bilbycast/edge-agent/release"
	"github.com/rs/zerolog"
)

// fakeAPI answers the calls of the pages with records of the test, and records the
// calls that change something.
type fakeAPI struct {
	t   *testing.T
	mux *http.ServeMux

	mu    sync.Mutex
	calls []string // "METHOD path body"
}

// object is a record of the API.
type object map[string]any

func (f *fakeAPI) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodGet {
		b, err := io.ReadAll(r.Body)
		if err != nil {
			f.t.Error(err)
		}
		f.mu.Lock()
		f.calls = append(f.calls, strings.TrimSpace(r.Method+" "+r.URL.Path+" "+sorted(f.t, b)))
		f.mu.Unlock()
	}
	f.mux.ServeHTTP(w, r)
}

// sorted returns a JSON text with its keys in order.
func sorted(t *testing.T, b []byte) string {
	if len(b) == 0 {
		return ""
	}
	var v any
	if err := json.Unmarshal(b, &v); err != nil {
		t.Errorf("a page sends %q: %v", b, err)
	}
	b, err := json.Marshal(v)
	if err != nil {
		t.Error(err)
	}
	return string(b)
}

// last returns the last call that changed something.
func (f *fakeAPI) last() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.calls) == 0 {
		return ""
	}
	return f.calls[len(f.calls)-1]
}

// on answers the calls of a pattern.
func (f *fakeAPI) on(pattern string, status int, v any) {
	f.mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(status)
		if v != nil {
			if err := json.NewEncoder(w).Encode(v); err != nil {
				f.t.Error(err)
			}
		}
	})
}

func refusal(status int, code, detail string) object {
	return object{"status": status, "code": code, "detail": detail}
}

// overFake returns a fake API and a person. The pages show the fake API, and the person
// is signed in as the first administrator. The caller adds the answers.
func overFake(t *testing.T) (*fakeAPI, *person) {
	t.Helper()
	s := open(t)
	root := s.root()
	f := &fakeAPI{t: t, mux: http.NewServeMux()}
	pages, err := web.New(f, s.m.Users, zerolog.Nop())
	if err != nil {
		t.Fatal(err)
	}
	over := httptest.NewUnstartedServer(pages)
	over.StartTLS()
	t.Cleanup(over.Close)
	p := &person{&site{t, over.URL, s.store, s.m, over}, root.c}
	c := *over.Client()
	c.CheckRedirect, c.Jar = root.c.CheckRedirect, root.c.Jar // the cookie is for 127.0.0.1, whatever the port
	p.c = &c
	return f, p
}

var (
	stamp    = time.Date(2026, 3, 4, 5, 6, 7, 0, time.UTC)
	longID   = "0f0e0d0c-0b0a-4908-8706-050403020100"
	longText = "open /opt/edge/versions/1.2.0/" + strings.Repeat("very-long-directory-name/", 12) + ": no space left on device"
)

// failedNodes returns a node for each code of a failure, with the node's message.
func failedNodes() []object {
	var list []object
	for i, code := range release.Codes() {
		if code.Severity() == release.Info {
			continue
		}
		state := "failed"
		if code == release.RolledBack {
			state = "rolled_back"
		}
		list = append(list, nodeRecord(fmt.Sprintf("%08d-0000-4000-8000-000000000000", i), object{
			"upgrade_state": state, "error_code": code, "error": "the node's own message of " + string(code), "target_version": "1.2.0"}))
	}
	return list
}

func nodeRecord(id string, more object) object {
	n := object{"id": id, "device_type": "edge", "group_id": "g1", "group_name": "Site one", "online": true, "address": "192.0.2.7", "health": "ok", "version": "1.0.0",
		"upgrade_state": "idle", "capabilities": []string{"upgrade"}, "upgradable": true, "registered_at": stamp, "last_seen": stamp}
	for k, v := range more {
		n[k] = v
	}
	return n
}

// full answers every call with the longest texts that a manager can return.
func (f *fakeAPI) full() (nodes []object) {
	nodes = append(failedNodes(),
		nodeRecord(longID, object{"warnings": []string{longText}, "upgrade_state": "failed", "error_code": "upgrade_disk_full", "error": longText, "requested_by": strings.Repeat("a", 64), "target_version": "1.2.0-" + strings.Repeat("rc.", 20) + "1",
			"version": "1.0.0-" + strings.Repeat("alpha.", 20) + "1", "device_type": strings.Repeat("edge", 16), "address": "2001:db8:aaaa:bbbb:cccc:dddd:eeee:ffff", "health": "degraded",
			"capabilities": []string{"upgrade", strings.Repeat("c", 64)}, "group_name": strings.Repeat("W", 64),
			"duplicate": object{"addresses": []string{"192.0.2.7", "2001:db8:aaaa:bbbb:cccc:dddd:eeee:ffff"}, "since": stamp}, "upgradable": false,
			"not_upgradable": object{"code": "duplicate_identity", "reason": "Two devices use this identity.", "remedy": "Give one of them an identity of its own, then press Resolved."}}),
		nodeRecord("changed-1", object{"actions": []string{"reboot", strings.Repeat("a", 64)}, "upgrade_state": "changed", "error": "rolling back from 1.2.0 to 1.0.0: an operator rolled back", "target_version": "1.2.0", "requested_by": "alice"}),
		nodeRecord("staging-1", object{"upgrade_state": "staging", "target_version": "1.2.0", "upgrade": object{"progress": object{"bytes_done": 40, "bytes_total": 100}}, "upgradable": false,
			"not_upgradable": object{"code": "upgrade_in_progress", "reason": "alice requested 1.2.0 at 05:06; it is staging.", "remedy": "Wait until it has ended."}}),
		nodeRecord("unproven-1", object{"upgrade_state": "proving", "target_version": "1.0.0", "trial": "unproven", "hold": object{"reason": longText, "since": stamp}}),
		nodeRecord("removed-1", object{"removed_at": stamp, "online": false, "upgradable": false}),
	)
	f.on("GET /api/v1/nodes", 200, object{"nodes": nodes})
	for _, n := range nodes {
		f.on("GET /api/v1/nodes/"+n["id"].(string), 200, n)
	}
	f.on("GET /api/v1/nodes/{id}/commands", 200, object{"commands": []object{{"command_id": strings.Repeat("c0", 16), "version": "1.2.0", "channel": "stable", "requested_by": "alice",
		"created_at": stamp, "sent_at": stamp, "acked_at": stamp, "error_code": "upgrade_disk_full", "error": longText}}})
	f.on("GET /api/v1/nodes/{id}/actions", 200, object{"actions": []object{
		{"command_id": longID, "action": strings.Repeat("a", 64), "state": "ended", "created_at": stamp, "requested_by": strings.Repeat("a", 64), "params_bytes": 65536, "error_code": "action_failed", "error": longText, "result": strings.Repeat("r", 900)},
		{"command_id": strings.Repeat("c1", 16), "action": "reboot", "state": "pending", "created_at": stamp, "expires_at": stamp, "requested_by": "alice"}}})
	f.on("GET /api/v1/nodes/{id}/connections", 200, object{"connections": []object{{"time": stamp, "state": "disconnected"}}})
	f.on("GET /api/v1/groups", 200, object{"groups": []object{{"id": "g1", "name": "Site one"}, {"id": "g2", "name": strings.Repeat("W", 64)}}})
	for _, id := range []string{"g1", "g2"} {
		f.on("GET /api/v1/groups/"+id, 200, object{"id": id, "name": strings.Repeat("W", 64), "nodes": nodes, "versions": object{"1.0.0": 9, "1.0.0-" + strings.Repeat("alpha.", 20) + "1": 1}, "active_rollout": "r1"})
	}
	var waves []object
	for _, n := range nodes {
		waves = append(waves, object{"id": n["id"], "state": "failed", "attempt": 2, "code": n["error_code"]})
	}
	r := object{"id": "r1", "group_id": "g1", "group_name": strings.Repeat("W", 64), "created_by": "alice", "version": "1.2.0-" + strings.Repeat("rc.", 20) + "1", "channel": "stable", "strategy": "staged", "from": "1.0.0",
		"status": "paused", "reason": "5 nodes failed or were rolled back in wave 1 of 2.", "nodes": waves, "waves": []int{2, len(waves)}, "created_at": stamp, "ended_at": stamp}
	ended := object{}
	for k, v := range r {
		ended[k] = v
	}
	ended["id"], ended["status"], ended["strategy"] = longID, rollout.Aborted, rollout.Immediate
	f.on("GET /api/v1/rollouts", 200, object{"rollouts": []object{r, ended}, "next": "x"})
	f.on("GET /api/v1/rollouts/r1", 200, r)
	f.on("GET /api/v1/rollouts/"+longID, 200, ended)
	f.on("GET /api/v1/events", 200, object{"total": 2, "next": "7", "events": []object{
		{"seq": 9, "node_id": longID, "command_id": strings.Repeat("c0", 16), "received_at": stamp, "severity": "critical", "error_code": "upgrade_rolled_back", "message": longText, "details": object{"journal": []string{longText, longText}, "failed_starts": []string{longText, ""},
			"trial": object{"contradictions": 6, "link": longText, "probe": "wss://m.example/ws: reached held", "probe_before": longText, "not_counted": []string{"an operator restarted the service"}}}},
		{"seq": 8, "node_id": longID, "received_at": stamp, "severity": strings.Repeat("x", 32), "error_code": strings.Repeat("e", 64), "message": strings.Repeat("m", 1000)}}})
	f.on("GET /api/v1/audit-log", 200, object{"total": 1, "entries": []object{{"seq": 3, "time": stamp, "actor": strings.Repeat("a", 64), "action": "group.upgrade.schedule", "target": "g1", "details": object{"reason": longText, "groups": []string{"g1", "g2"}, "failure_count": 2}}}})
	f.on("GET /api/v1/releases/{type}", 200, object{"releases": []object{{"version": "1.1.0"}, {"version": "1.2.0-" + strings.Repeat("rc.", 20) + "1"}}})
	f.on("POST /api/v1/groups/{id}/upgrade", 200, object{"node_count": 12, "offline": 2, "waves": [][]string{{longID}, {longID, longID, longID, longID, longID, longID, longID, longID}}, "estimated_secs": 600,
		"left_out": []object{{"node_id": longID, "reason": longText}}})
	f.on("GET /api/v1/users", 200, object{"users": []object{{"name": "alice", "role": "viewer", "created_at": stamp}, {"name": strings.Repeat("b", 64), "role": "group_admin", "groups": []string{"g1", "g2", strings.Repeat("g", 36)}, "created_at": stamp}}})
	f.on("GET /api/v1/tokens", 200, object{"tokens": []object{{"id": "t1", "name": strings.Repeat("b", 64), "role": "operator", "groups": []string{"g2"}, "created_at": stamp, "created_by": "alice", "expires_at": stamp, "last_used_at": stamp}}})
	f.on("POST /api/v1/tokens", 201, object{"id": "t2", "token": secret.New(), "warning": "Token ci has no group and sees no nodes."})
	f.on("GET /api/v1/pending-nodes", 200, object{"nodes": []object{{"id": "9" + longID[1:], "address": "2001:db8:aaaa:bbbb:cccc:dddd:eeee:ffff", "device_type": "edge", "version": "1.0.0", "first_seen": stamp, "last_seen": stamp},
		{"id": "8" + longID[1:], "address": "127.0.0.1", "device_type": "edge", "version": "1.0.0", "first_seen": stamp, "last_seen": stamp}}})
	return nodes
}
