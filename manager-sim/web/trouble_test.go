package web_test

import (
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/bilbycast/edge-agent/manager-sim/api"
	"github.com/bilbycast/edge-agent/manager-sim/server/secret"
	"github.com/bilbycast/edge-agent/wire"
	"github.com/gorilla/websocket"
)

// A super admin accepts or dismisses a node with unknown credentials on the page of
// nodes. Nobody else can.
func TestUnknownNodesAreAcceptedOnThePage(t *testing.T) {
	t.Parallel()
	s := open(t)
	root := s.root()
	g := root.group("site one")
	admin := root.user("gina", "group_admin", g)
	const accepted, dismissed = "0f0e0d0c-0b0a-4908-8706-050403020100", "1f0e0d0c-0b0a-4908-8706-050403020100"
	for _, id := range []string{accepted, dismissed} {
		d := websocket.Dialer{TLSClientConfig: s.http.Client().Transport.(*http.Transport).TLSClientConfig}
		conn, _, err := d.DialContext(t.Context(), "wss"+strings.TrimPrefix(s.url, "https")+wire.Path, nil)
		if err != nil {
			t.Fatal(err)
		}
		b, err := wire.Encode(&wire.Auth{NodeID: id, NodeSecret: secret.New(), SoftwareVersion: "1.0.0", DeviceType: "edge", ProtocolVersion: wire.ProtocolVersion}, time.Now())
		if err == nil {
			err = conn.WriteMessage(websocket.TextMessage, b)
		}
		if err != nil {
			t.Fatal(err)
		}
		for err == nil { // until the manager has refused it
			_, _, err = conn.ReadMessage()
		}
		conn.Close()
	}
	has(t, root.get("/admin/nodes", 200), "Nodes that this manager does not know", accepted, dismissed)
	hasNot(t, admin.get("/admin/nodes", 200), accepted)
	admin.post("/admin/pending-nodes/"+accepted+"/accept", 403, url.Values{"group_id": {g}})
	resp, _ := root.post("/admin/pending-nodes/"+accepted+"/accept", 303, url.Values{"group_id": {g}})
	has(t, root.get(resp.Header.Get("Location"), 200), accepted, "site one")
	root.post("/admin/pending-nodes/"+dismissed+"/dismiss", 303, nil)
	hasNot(t, root.get("/admin/nodes", 200), "Nodes that this manager does not know")
	root.post("/admin/pending-nodes/"+dismissed+"/accept", 404, nil)
}

// A node whose identity two devices use is marked until an operator resolves it.
func TestDuplicatesAreResolvedOnThePage(t *testing.T) {
	t.Parallel()
	s := open(t)
	root := s.root()
	g := root.group("site one")
	s.node("n1", g)
	operator := root.user("otto", "operator", g)
	if _, err := s.store.MarkDuplicate(t.Context(), "n1", api.Duplicate{Addresses: []string{"192.0.2.7", "192.0.2.8"}, Since: time.Now()}); err != nil {
		t.Fatal(err)
	}
	for _, p := range []*person{root, operator} {
		has(t, p.get("/admin/nodes/n1", 200), "Two devices use this identity", "192.0.2.7", "192.0.2.8", "credentials.json", "No upgrade now:")
		hasNot(t, p.get("/admin/nodes", 200), `href="/admin/nodes/n1/upgrade"`)
	}
	hasNot(t, operator.get("/admin/nodes/n1", 200), "/admin/nodes/n1/resolve")
	operator.post("/admin/nodes/n1/resolve", 403, nil)
	root.post("/admin/nodes/n1/resolve", 303, nil)
	hasNot(t, root.get("/admin/nodes/n1", 200), "Two devices use this identity")
}

// An unpublished version is refused with a list of the published ones, for a node and
// for a group, unless the operator requests it anyway.
func TestUnpublishedVersionsOfTheManager(t *testing.T) {
	t.Parallel()
	s := open(t)
	root := s.root()
	g := root.group("site one")
	s.node("n1", g)
	form := url.Values{"version": {"9.9.9"}, "channel": {"stable"}, "strategy": {"staged"}}
	for _, path := range []string{"/admin/groups/" + g + "/upgrade", "/admin/nodes/n1/upgrade"} {
		_, body := root.post(path, 409, form)
		has(t, body, `role="alert"`, "9.9.9", "9.9.9 (not published)", "Published: 2.1.0, 2.0.0, 1.9.0, 1.0.0.", `name="allow_unlisted"`)
	}
	form.Set("allow_unlisted", "yes")
	_, body := root.post("/admin/groups/"+g+"/upgrade", 200, form)
	has(t, body, "Upgrades 1 node to", "9.9.9", `name="allow_unlisted"`)
	root.post("/admin/nodes/n1/upgrade", 303, form)
	has(t, root.get("/admin/nodes", 200), "queued", "root requested 9.9.9 on")
	has(t, root.get("/admin/nodes/n1", 200), "queued</span> <span>upgrade to 9.9.9", "9.9.9 was requested by root", "Replace the upgrade…", "requested", "9.9.9 (stable) by root")
	root.post("/admin/nodes/n1/upgrade", 409, url.Values{"version": {"2.1.0"}, "channel": {"stable"}})
	queued := regexp.MustCompile(`name="replaces" value="([^"]+)"`).FindStringSubmatch(root.get("/admin/nodes/n1/upgrade", 200))
	root.post("/admin/nodes/n1/upgrade", 303, url.Values{"version": {"2.1.0"}, "channel": {"stable"}, "replaces": {queued[1]}})
	has(t, root.get("/admin/nodes/n1", 200), "upgrade to 2.1.0", "2.1.0 was requested by root")
}

// A list that leaves out what the manager cannot read says so.
func TestPagesCountWhatCannotBeRead(t *testing.T) {
	t.Parallel()
	f, p := overFake(t)
	f.on("GET /api/v1/rollouts", 200, api.RolloutList{Rollouts: []api.Rollout{}, Unreadable: 2})
	f.on("GET /api/v1/groups", 200, api.GroupList{Groups: []api.Group{}})
	has(t, p.get("/admin/rollouts", 200), `role="alert"`, "2 entries are not shown, because the manager cannot read them.")
}

// While the database cannot be used, a sign-in and a page get 503, and no password is called
// wrong.
func TestPagesWhileTheStoreIsAway(t *testing.T) {
	t.Parallel()
	s := open(t)
	root := s.root()
	s.store.Close()
	resp, body := root.post("/admin/sign-in", 503, url.Values{"name": {"root"}, "password": {"a long password"}})
	has(t, body, "The database of the manager cannot be used now.")
	hasNot(t, body, "wrong")
	if resp.Header.Get("Retry-After") == "" {
		t.Error("there is no Retry-After")
	}
	has(t, root.get("/admin/nodes", 503), "The database of the manager cannot be used now.")
}

// A node whose record the manager cannot read has the pages that remove it and withdraw its
// upgrade.
func TestPagesOfANodeThatCannotBeRead(t *testing.T) {
	t.Parallel()
	f, p := overFake(t)
	f.full()
	f.on("GET /api/v1/nodes/n9", 500, object{"type": "about:blank", "title": "Internal Server Error", "status": 500, "code": "internal", "detail": `node "n9": its record cannot be read: no JSON. Remove the node, or repair its record in the manager's database`})
	f.on("GET /api/v1/nodes/n9/commands", 200, api.CommandList{Commands: []api.Command{{ID: "c9", Version: "1.2.0"}}})
	has(t, p.get("/admin/nodes/n9", 500), "Remove the node, or repair its record")
	has(t, p.get("/admin/nodes/n9/remove", 200), "Remove node n9")
	has(t, p.get("/admin/nodes/n9/withdraw", 200), "Withdraw the upgrade of node n9", "1.2.0", "command=c9")
}
