package web_test

import (
	"fmt"
	"html"
	"net/url"
	"strings"
	"testing"

	"github.com/bilbycast/edge-agent/manager-sim/rollout"
)

// has checks that a page has all the texts in this order.
func has(t *testing.T, body string, texts ...string) {
	t.Helper()
	rest := html.UnescapeString(body)
	for _, text := range texts {
		at := strings.Index(rest, text)
		if at < 0 {
			t.Errorf("the page lacks %q, or has it too early: %s", text, body)
			return
		}
		rest = rest[at+len(text):]
	}
}

func hasNot(t *testing.T, body string, texts ...string) {
	t.Helper()
	for _, text := range texts {
		if strings.Contains(html.UnescapeString(body), text) {
			t.Errorf("the page has %q: %s", text, body)
		}
	}
}

// Every action that removes or ends something has a page that describes the effects.
// Its form works without JavaScript and sends the reason.
func TestActsAreConfirmed(t *testing.T) {
	t.Parallel()
	f, p := overFake(t)
	f.full()
	f.on("POST /api/v1/rollouts/r1/abort", 200, object{})
	f.on("DELETE /api/v1/users/alice", 204, nil)
	f.on("DELETE /api/v1/nodes/changed-1", 204, nil)
	f.on("DELETE /api/v1/tokens/t1", 204, nil)
	for _, tt := range []struct {
		page, opener string
		call         string // of the API
		effect       string
	}{
		{"/admin/rollouts/r1/abort", "/admin/rollouts/r1", "POST /api/v1/rollouts/r1/abort", "starts no new upgrades"},
		{"/admin/users/alice/remove", "/admin/users", "DELETE /api/v1/users/alice", "alice cannot sign in any more"},
		{"/admin/nodes/changed-1/remove", "/admin/nodes/changed-1", "DELETE /api/v1/nodes/changed-1", "revokes the node's secret"},
		{"/admin/tokens/t1/revoke", "/admin/tokens", "DELETE /api/v1/tokens/t1", "refuses every program"},
	} {
		before := f.last()
		opener := p.get(tt.opener, 200)
		has(t, opener, `data-dialog href="`+tt.page+`"`)
		hasNot(t, opener, `action="`+tt.page+`"`) // no button that acts at once
		has(t, p.get(tt.page, 200), `id="dialog"`, tt.effect, `method="post" action="`+tt.page+`"`, `name="reason"`)
		if f.last() != before {
			t.Fatalf("the page itself called %s", f.last())
		}
		p.post(tt.page, 303, url.Values{"reason": {" a faulty release "}})
		if want := tt.call + ` {"reason":"a faulty release"}`; f.last() != want {
			t.Errorf("the form called %s, want %s", f.last(), want)
		}
		p.post(tt.page, 303, nil)
		if f.last() != tt.call {
			t.Errorf("without a reason the form called %s, want %s", f.last(), tt.call)
		}
	}
}

// The page of an action shows a refusal by the API, and keeps the reason.
func TestRefusedActsAreShownAgain(t *testing.T) {
	t.Parallel()
	f, p := overFake(t)
	f.full()
	f.on("DELETE /api/v1/users/alice", 409, refusal(409, "last_super_admin", "alice is the last super admin"))
	f.on("DELETE /api/v1/nodes/changed-1", 409, refusal(409, "not_now", "the node is upgrading"))
	f.on("DELETE /api/v1/tokens/t1", 409, refusal(409, "not_now", "try again"))
	f.on("POST /api/v1/rollouts/r1/abort", 409, refusal(409, "not_now", "the rollout has ended"))
	for page, problem := range map[string]string{"/admin/users/alice/remove": "alice is the last super admin", "/admin/nodes/changed-1/remove": "the node is upgrading",
		"/admin/tokens/t1/revoke": "try again", "/admin/rollouts/r1/abort": "the rollout has ended"} {
		_, body := p.post(page, 409, url.Values{"reason": {"because"}})
		has(t, body, problem, ">because</textarea>")
	}
	f.on("POST /api/v1/nodes/{id}/resolve", 409, refusal(409, "not_now", "both devices are still connected"))
	_, body := p.post("/admin/nodes/"+longID+"/resolve", 409, nil)
	has(t, body, "both devices are still connected", "Two devices use this identity")
	f.on("PUT /api/v1/nodes/{id}/group", 409, refusal(409, "not_now", "a rollout runs"))
	_, body = p.post("/admin/nodes/changed-1/group", 409, url.Values{"group_id": {"g1"}})
	has(t, body, "a rollout runs")
	f.on("POST /api/v1/pending-nodes/{id}/accept", 409, refusal(409, "not_now", "no longer pending"))
	_, body = p.post("/admin/pending-nodes/x/accept", 409, nil)
	has(t, body, "<h1>Managed nodes</h1>", "no longer pending")
}

// The node's own message comes before the general help on a code. A refusal by the API
// is shown unchanged.
func TestCausesComeFirst(t *testing.T) {
	t.Parallel()
	f, p := overFake(t)
	cause := nodeRecord("n1", object{"upgrade_state": "failed", "error_code": "upgrade_network_error", "error": "lookup releases.example: no such host", "target_version": "1.2.0", "requested_by": "alice", "health": "degraded",
		"upgradable": false, "not_upgradable": object{"code": "no_capability", "reason": "The node reports: the unit has no watchdog.", "remedy": "Run edge-agent doctor on the device."}})
	strange := nodeRecord("n2", object{"upgrade_state": "failed", "target_version": "1.2.0", "error_code": "upgrade_from_the_future", "error": "what only a newer node knows"})
	later := nodeRecord("n3", object{"upgrade_state": "changed", "target_version": "1.2.0", "version": "1.1.0", "error": "rolling back from 1.2.0 to 1.1.0: an operator rolled back"})
	back := nodeRecord("n4", object{"upgrade_state": "rolled_back", "target_version": "1.3.0", "error_code": "upgrade_rolled_back", "error": "exited at once", "requested_by": "carol"})
	nodes := []object{cause, strange, later, back}
	f.on("GET /api/v1/nodes", 200, object{"nodes": nodes})
	f.on("GET /api/v1/groups/g1", 200, object{"id": "g1", "name": "Site one", "nodes": nodes})
	f.on("GET /api/v1/rollouts/r9", 200, object{"id": "r9", "group_id": "g1", "group_name": "Site one", "created_by": "bob", "version": "1.2.0", "status": "paused", "reason": "2 nodes failed.", "created_at": stamp, "waves": []int{2},
		"nodes": []object{{"id": "n1", "state": "failed", "code": "upgrade_network_error", "attempt": 1, "message": "lookup of the first attempt"}, {"id": "n2", "state": "failed", "code": "upgrade_disk_full", "attempt": 1}}})
	for i, n := range nodes {
		f.on(fmt.Sprintf("GET /api/v1/nodes/n%d", i+1), 200, n)
	}
	f.nodePages()
	for _, page := range []string{"/admin/nodes", "/admin/groups/g1", "/admin/nodes/n1"} {
		body := p.get(page, 200)
		has(t, body, "degraded")
		has(t, body, "upgrade failed", "lookup releases.example: no such host", "upgrade_network_error", "could not download the release", "Remedy:", "proxy settings",
			"The node reports: the unit has no watchdog. Run edge-agent doctor on the device.")
		hasNot(t, body, "Set enabled = true", `title="`)
	}
	body := p.get("/admin/nodes", 200)
	has(t, body, "what only a newer node knows", "upgrade_from_the_future", "no description of the code")
	for _, body := range []string{body, p.get("/admin/nodes/n3", 200)} {
		has(t, body, "runs another version", "The last upgrade, to 1.2.0, completed. The device now runs 1.1.0.", "rolling back from 1.2.0 to 1.1.0: an operator rolled back")
	}
	hasNot(t, p.get("/admin/nodes/n3", 200), "Remedy:", "✕", "no description of the code")
	for _, body := range []string{body, p.get("/admin/nodes/n4", 200)} {
		has(t, body, "rolled back</span> <span>from 1.3.0", "Running 1.0.0. Version 1.3.0 was rolled back.", "exited at once")
		hasNot(t, body, "to 1.3.0", "requested by carol, ")
	}
	has(t, p.get("/admin/nodes/n1", 200), "upgrade failed</span> <span>version 1.2.0", "1.2.0 was requested by alice", "192.0.2.7", "2026-03-04 05:06:07 UTC")
	body = p.get("/admin/rollouts/r9", 200)
	has(t, body, "2 nodes failed.", "Site one", "by bob", "lookup of the first attempt", "upgrade_network_error", "upgrade_disk_full")
	hasNot(t, body, "what only a newer node knows", "lookup releases.example") // messages of other upgrades
}

// A rollout counts each kind of failure. After its end no node waits.
func TestRolloutsCountTheirNodes(t *testing.T) {
	t.Parallel()
	f, p := overFake(t)
	f.on("GET /api/v1/groups", 200, object{"groups": []object{{"id": "g1", "name": "Site one"}}})
	states := []rollout.NodeState{rollout.NodeFailed, rollout.NodeRolledBack, rollout.NodeRolledBack, rollout.NodeUpdated, rollout.NodeWaiting, rollout.NodeWaiting}
	missed := []object{{"id": "n0", "state": rollout.NodeUpdated}, {"id": "n1", "state": rollout.NodeMissed}}
	nodes := []object{}
	for i, s := range states {
		nodes = append(nodes, object{"id": fmt.Sprint("n", i), "state": s, "attempt": 1})
	}
	var list []object
	for _, status := range []rollout.Status{rollout.Paused, rollout.Aborted} {
		r := object{"id": status, "group_id": "g1", "group_name": "Site one", "version": "1.2.0", "channel": "stable", "strategy": "staged", "from": "1.0.0", "status": status, "nodes": nodes, "waves": []int{6}, "created_at": stamp, "ended_at": stamp}
		list = append(list, r)
		f.on("GET /api/v1/rollouts/"+string(status), 200, r)
	}
	f.on("GET /api/v1/rollouts/completed", 200, object{"id": "completed", "group_id": "g1", "group_name": "Site one", "version": "1.2.0", "status": rollout.Completed, "nodes": missed, "waves": []int{2}, "ended_at": stamp})
	has(t, p.get("/admin/rollouts/completed", 200), "1 of 2 finished: 1 updated. 1 not upgraded.")
	f.on("GET /api/v1/rollouts", 200, object{"rollouts": list})
	has(t, p.get("/admin/rollouts", 200), "4 of 6 finished, 1 failed, 2 rolled back<", "4 of 6 finished, 1 failed, 2 rolled back, 2 not upgraded<")
	has(t, p.get("/admin/rollouts/paused", 200), "Before this rollout, most nodes ran 1.0.0.", "4 of 6 finished: 1 updated, 1 failed, 2 rolled back. 2 waiting.")
	aborted := p.get("/admin/rollouts/aborted", 200)
	has(t, aborted, "4 of 6 finished: 1 updated, 1 failed, 2 rolled back. 2 not upgraded.")
	hasNot(t, aborted, "waiting")
	body := p.get("/admin/rollouts/paused/abort", 200)
	has(t, body, "2 nodes still wait and keep their current version.", "1 updated node keeps the new version.")
	hasNot(t, body, "running upgrade")
}

// nodePages answers the calls that the pages of any node and group make.
func (f *fakeAPI) nodePages() {
	f.on("GET /api/v1/nodes/{id}/commands", 200, object{"commands": []object{}})
	f.on("GET /api/v1/nodes/{id}/actions", 200, object{"actions": []object{}})
	f.on("GET /api/v1/nodes/{id}/connections", 200, object{"connections": []object{}})
	f.on("GET /api/v1/groups", 200, object{"groups": []object{{"id": "g1", "name": "Site one"}}})
	f.on("GET /api/v1/events", 200, object{"events": []object{}})
	f.on("GET /api/v1/rollouts", 200, object{"rollouts": []object{}})
	f.on("GET /api/v1/pending-nodes", 200, object{"nodes": []object{}})
}

func TestDuplicateIdentities(t *testing.T) {
	t.Parallel()
	f, p := overFake(t)
	f.full()
	f.on("POST /api/v1/nodes/{id}/resolve", 200, object{})
	body := p.get("/admin/nodes/"+longID, 200)
	has(t, body, "Two devices use this identity", "192.0.2.7", "2001:db8:aaaa:bbbb:cccc:dddd:eeee:ffff", "stop the service", "credentials.json", "registration token", "config.toml", "Resolved", "/resolve")
	has(t, p.get("/admin/nodes", 200), "Two devices use this identity", "What to do")
	f.on("GET /api/v1/nodes/near", 200, nodeRecord("near", object{"duplicate": object{"addresses": []string{"192.0.2.7", "192.0.2.7"}, "since": stamp}}))
	has(t, p.get("/admin/nodes/near", 200), "Two devices use this identity", "192.0.2.7", "(both devices)")
	p.post("/admin/nodes/"+longID+"/resolve", 303, nil)
	if f.last() != "POST /api/v1/nodes/"+longID+"/resolve" {
		t.Error(f.last())
	}
}

func TestPendingNodes(t *testing.T) {
	t.Parallel()
	f, p := overFake(t)
	f.full()
	f.on("POST /api/v1/pending-nodes/{id}/accept", 201, object{"id": "n9"})
	f.on("DELETE /api/v1/pending-nodes/{id}", 204, nil)
	id := "9" + longID[1:]
	has(t, p.get("/admin/nodes", 200), "Nodes that this manager does not know", id, "2001:db8:aaaa:bbbb:cccc:dddd:eeee:ffff", "edge 1.0.0", "2026-03-04 05:06:07 UTC", "/admin/pending-nodes/"+id+"/accept", "/admin/pending-nodes/"+id+"/dismiss")
	resp, _ := p.post("/admin/pending-nodes/"+id+"/accept", 303, url.Values{"group_id": {"g1"}})
	if want := "POST /api/v1/pending-nodes/" + id + `/accept {"group_id":"g1"}`; f.last() != want || resp.Header.Get("Location") != "/admin/nodes/n9" {
		t.Errorf("%s, then %s", f.last(), resp.Header.Get("Location"))
	}
	for _, filter := range []string{"?q=edge", "?removed=yes", "?state=idle"} { // one line with a link elsewhere
		body := p.get("/admin/nodes"+filter, 200)
		has(t, body, `href="/admin/nodes#pending"`, "2 nodes that this manager does not know")
		hasNot(t, body, id)
	}
	p.post("/admin/pending-nodes/"+id+"/dismiss", 303, nil)
	if f.last() != "DELETE /api/v1/pending-nodes/"+id {
		t.Error(f.last())
	}
}

// An empty list shows why it is empty.
func TestEmptyListsSayWhy(t *testing.T) {
	t.Parallel()
	f, p := overFake(t)
	f.full()
	for _, q := range []string{"?q=nothing", "?state=queued", "?group=none", "?online=no&q=staging", "?health=nonsense"} {
		body := p.get("/admin/nodes"+q, 200)
		has(t, body, "No nodes match.", `href="/admin/nodes"`, "Clear the filter")
		hasNot(t, body, "registered yet")
	}
	s := open(t)
	root := s.root()
	body := root.get("/admin/nodes", 200)
	has(t, body, "No nodes have registered yet.")
	hasNot(t, body, "No nodes match")
	g := root.group("site")
	s.node("n1", "")
	has(t, root.user("gert", "viewer", g).get("/admin/nodes", 200), "No nodes are in your groups yet.")
	has(t, root.get("/admin/events?search=nothing", 200), "No events match.", "Clear the filter")
	has(t, root.get("/admin/audit?actor=nobody", 200), "No records match.", "Clear the filter")
}

// A refusal of a filter is shown above the form, which keeps its values.
func TestRefusedFilters(t *testing.T) {
	t.Parallel()
	f, p := overFake(t)
	f.on("GET /api/v1/events", 400, refusal(400, "bad_request", "severity \"bad\" is not one of info, minor, warning, major, critical"))
	f.on("GET /api/v1/groups", 200, object{"groups": []object{}})
	f.on("GET /api/v1/audit-log", 400, refusal(400, "bad_request", "after is not a number"))
	has(t, p.get("/admin/events?severity=bad&node_id=abc", 400), "<h1>Events</h1>", `role="alert"`, "is not one of info", "<form", `<option selected>bad</option>`, `value="abc"`)
	has(t, p.get("/admin/audit?after=x&actor=a", 400), "<h1>Audit trail</h1>", "after is not a number", "<form", `value="a"`)
	for _, path := range []string{"/admin/events?severity=bad&format=csv", "/admin/events?severity=bad&format=jsonl", "/admin/audit?after=x&format=csv"} {
		resp, body := p.fetch(path, 400)
		if resp.Header.Get("Content-Disposition") != "" {
			t.Errorf("%s answers a file: %s", path, body)
		}
	}
}

// An upgrade to an unpublished version shows the published ones, and can be requested
// anyway.
func TestUnpublishedVersions(t *testing.T) {
	t.Parallel()
	f, p := overFake(t)
	f.full()
	f.on("POST /api/v1/nodes/{id}/upgrade", 409, refusal(409, "not_published", "version 9.9.9 is not published for edge on channel stable"))
	form := url.Values{"version": {"9.9.9"}, "channel": {"stable"}}
	has(t, p.get("/admin/nodes/changed-1/upgrade", 200), "1.1.0")
	hasNot(t, p.get("/admin/nodes/changed-1/upgrade", 200), "allow_unlisted")
	_, body := p.post("/admin/nodes/changed-1/upgrade", 409, form)
	has(t, body, "version 9.9.9 is not published for edge", `<option value="9.9.9" selected>9.9.9 (not published)`, "Published: 1.1.0, 1.2.0-", `name="allow_unlisted"`)
	form.Set("allow_unlisted", "yes")
	p.post("/admin/nodes/changed-1/upgrade", 409, form)
	if want := `POST /api/v1/nodes/changed-1/upgrade {"allow_unlisted":true,"channel":"stable","version":"9.9.9"}`; f.last() != want {
		t.Errorf("%s, want %s", f.last(), want)
	}
}

// A command that an offline node has not received can be replaced.
func TestQueuedUpgradesCanBeReplaced(t *testing.T) {
	t.Parallel()
	f, p := overFake(t)
	n := nodeRecord("n1", object{"online": false, "upgrade_state": "queued", "target_version": "1.1.0", "requested_by": "alice", "upgradable": false,
		"not_upgradable": object{"code": "upgrade_in_progress", "reason": "alice requested 1.1.0; it is waiting to be sent.", "remedy": "The node is offline."}})
	f.on("GET /api/v1/nodes", 200, object{"nodes": []object{n}})
	f.on("GET /api/v1/nodes/n1", 200, n)
	f.on("GET /api/v1/releases/edge", 200, object{"releases": []object{{"version": "1.2.0"}}})
	f.on("POST /api/v1/nodes/n1/upgrade", 202, object{"command_id": "c"})
	f.nodePages()
	for _, path := range []string{"/admin/nodes", "/admin/nodes/n1"} {
		has(t, p.get(path, 200), "alice requested 1.1.0; it is waiting to be sent. The node is offline.")
		has(t, p.get(path, 200), `href="/admin/nodes/n1/upgrade">Replace`)
	}
	has(t, p.get("/admin/nodes/n1/upgrade", 200), `name="replaces"`, "has not received the upgrade to 1.1.0 that alice requested")
	p.post("/admin/nodes/n1/upgrade", 303, url.Values{"version": {"1.2.0"}, "channel": {"stable"}, "replaces": {"c1"}})
	if want := `POST /api/v1/nodes/n1/upgrade {"channel":"stable","replaces":"c1","version":"1.2.0"}`; f.last() != want {
		t.Errorf("%s, want %s", f.last(), want)
	}
}

// The form that rolls a group back describes its effects, and sends the reason.
func TestRollBackIsConfirmed(t *testing.T) {
	t.Parallel()
	f, p := overFake(t)
	f.full()
	has(t, p.get("/admin/rollouts/"+longID, 200), "/admin/groups/g1/upgrade?rollback=yes&strategy=immediate&version=1.0.0")
	has(t, p.get("/admin/groups/g1/upgrade?rollback=yes&strategy=immediate&version=1.1.0", 200), "Roll back group", "sets every node of the group to version 1.1.0", "nothing starts before you confirm it", `name="rollback"`)
	form := url.Values{"rollback": {"yes"}, "version": {"1.1.0"}, "channel": {"stable"}, "strategy": {"immediate"}, "settle_secs": {"60"}, "threshold": {"1"}}
	_, body := p.post("/admin/groups/g1/upgrade", 200, form)
	has(t, body, "Upgrades 12 nodes to", "all at once", "2 are offline and will be upgraded when they reconnect.", `name="reason"`, "Roll back the group")
	form.Set("confirm", "yes")
	form.Set("reason", "1.2.0 leaks memory")
	p.post("/admin/groups/g1/upgrade", 303, form)
	if want := `POST /api/v1/groups/g1/upgrade {"channel":"stable","reason":"1.2.0 leaks memory","settle_secs":60,"strategy":"immediate","threshold":1,"version":"1.1.0"}`; f.last() != want {
		t.Errorf("%s, want %s", f.last(), want)
	}
	form.Set("settle_secs", "soon")
	_, body = p.post("/admin/groups/g1/upgrade", 400, form)
	has(t, body, `The settle window must be a whole number, not "soon".`, "<form")
}

// A list shows the beginning of a long cause of "No upgrade now", and the node's page
// the whole cause.
func TestLongCausesAreShortInLists(t *testing.T) {
	t.Parallel()
	f, p := overFake(t)
	reason := "The node offers no upgrades. It reports: " + strings.Repeat("the unit has a drop-in that edge-agent does not know; ", 40) + "the end."
	n := nodeRecord("n1", object{"upgradable": false, "not_upgradable": object{"code": "no_capability", "reason": reason, "remedy": "Correct this on the device."}})
	f.on("GET /api/v1/nodes", 200, object{"nodes": []object{n}})
	f.on("GET /api/v1/nodes/n1", 200, n)
	f.nodePages()
	body := p.get("/admin/nodes", 200)
	has(t, body, "No upgrade now:", "It reports: the unit has", "…", `href="/admin/nodes/n1"`, "Correct this on the device.")
	hasNot(t, body, "the end.", reason[:250])
	has(t, p.get("/admin/nodes/n1", 200), "No upgrade now:", reason, "Correct this on the device.")
}

// The page of a node shows its warnings as texts, and no heading where there are none.
func TestWarningsOfANodeAreShown(t *testing.T) {
	t.Parallel()
	f, p := overFake(t)
	f.nodePages()
	f.on("GET /api/v1/nodes/n1", 200, nodeRecord("n1", object{"warnings": []string{"config.toml has mode 0644", "<script>alert(1)</script>"}}))
	body := p.get("/admin/nodes/n1", 200)
	has(t, body, "<dt>Warnings</dt>", "config.toml has mode 0644", "<script>alert(1)")
	has(t, body, "<dd>ok</dd>")
	if strings.Contains(body, "<script>alert(1)") || !strings.Contains(body, "&lt;script&gt;alert(1)") { // has unescapes
		t.Errorf("a warning is not a text: %s", body)
	}
	f, p = overFake(t)
	f.nodePages()
	f.on("GET /api/v1/nodes/n1", 200, nodeRecord("n1", nil))
	hasNot(t, p.get("/admin/nodes/n1", 200), "<dt>Warnings</dt>")
}

func TestUsersAndTokensAreManaged(t *testing.T) {
	t.Parallel()
	f, p := overFake(t)
	f.full()
	f.on("POST /api/v1/users", 201, object{"name": "carol", "warning": "carol has no group and sees no nodes"})
	f.on("PATCH /api/v1/users/alice", 200, object{})
	f.on("PUT /api/v1/password", 204, nil)
	_, body := p.post("/admin/users", 200, url.Values{"name": {"carol"}, "password": {password}, "role": {"viewer"}})
	has(t, body, `role="status"`, "User carol added. Warning: carol has no group and sees no nodes")
	has(t, body, "none: this user sees no nodes") // of alice
	has(t, p.get("/admin/users/alice", 200), "/admin/users/alice/access", "/admin/users/alice/password")
	p.get("/admin/users/nobody", 404)
	for _, tt := range []struct {
		path string
		form url.Values
		call string
	}{
		{"/admin/users/alice/access", url.Values{"role": {"operator"}, "groups": {"g1", "g2"}}, `PATCH /api/v1/users/alice {"groups":["g1","g2"],"role":"operator"}`},
		{"/admin/users/alice/access", url.Values{"role": {"viewer"}}, `PATCH /api/v1/users/alice {"groups":[],"role":"viewer"}`},
		{"/admin/users/alice/password", url.Values{"password": {password}}, `PATCH /api/v1/users/alice {"password":"` + password + `"}`},
	} {
		p.post(tt.path, 303, tt.form)
		if f.last() != tt.call {
			t.Errorf("%s, want %s", f.last(), tt.call)
		}
	}
	_, body = p.post("/admin/password", 400, url.Values{"old": {"a"}, "new": {"b"}, "again": {"c"}})
	has(t, body, "not the same")
	_, body = p.post("/admin/password", 200, url.Values{"old": {"old one"}, "new": {password}, "again": {password}})
	has(t, body, "Your password was changed.")
	hasNot(t, body, password)
	if want := `PUT /api/v1/password {"new":"` + password + `","old":"old one"}`; f.last() != want {
		t.Errorf("%s, want %s", f.last(), want)
	}
	has(t, p.get("/admin/tokens", 200), "operator", "by alice", "2026-03-04 05:06:07 UTC", "expired", "/admin/tokens/t1/revoke")
	_, body = p.post("/admin/tokens", 200, url.Values{"name": {"ci"}, "role": {"operator"}, "groups": {"g1"}, "expires_in_secs": {"3600"}})
	has(t, body, "Token ci created. Warning: Token ci has no group and sees no nodes.", "Copy the token now", `<code class="id">`)
	if want := `POST /api/v1/tokens {"expires_in_secs":3600,"groups":["g1"],"name":"ci","role":"operator"}`; f.last() != want {
		t.Errorf("%s, want %s", f.last(), want)
	}
	hasNot(t, p.get("/admin/tokens", 200), "Copy the token now")
}
