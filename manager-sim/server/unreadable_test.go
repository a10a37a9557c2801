package server_test

import (
	"net/http"
	"strings"
	"testing"

	"github.com/bilbycast/edge-agent/manager-sim/api"
)

// damage changes records as nothing in this program does.
func (b *blockable) damage(statement string, args ...any) {
	b.t.Helper()
	if _, err := b.db.ExecContext(b.t.Context(), statement, args...); err != nil {
		b.t.Fatal(err)
	}
}

// waitingRollout begins a rollout that waits for k offline nodes.
func (b *blockable) waitingRollout(k int) (path string, nodes []string) {
	b.t.Helper()
	var g struct{ ID string }
	b.into(http.StatusCreated, "POST", "/api/v1/groups", `{"name":"a"}`, &g)
	for range k {
		n, reg := b.register()
		n.conn.Close()
		b.nodeIs(reg.NodeID, false)
		b.into(http.StatusOK, "PUT", "/api/v1/nodes/"+reg.NodeID+"/group", `{"group_id":"`+g.ID+`"}`, nil)
		nodes = append(nodes, reg.NodeID)
	}
	var plan api.RolloutPlan
	b.into(http.StatusAccepted, "POST", "/api/v1/groups/"+g.ID+"/upgrade", `{"version":"1.2.0","strategy":"immediate"}`, &plan)
	return "/api/v1/rollouts/" + plan.RolloutID, nodes
}

// A rollout that waits for a node whose record cannot be read names it, and the node can be
// moved, skipped and removed.
func TestARolloutWithAnUnreadableNode(t *testing.T) {
	t.Parallel()
	for column, text := range map[string]string{"features": "nope", "capabilities": "{", "hold": "7"} {
		t.Run(column, func(t *testing.T) {
			t.Parallel()
			b := startBlockable(t)
			path, nodes := b.waitingRollout(3)
			for _, id := range nodes[:2] {
				b.damage("UPDATE nodes SET "+column+" = ? WHERE id = ?", text, id)
			}
			var v api.Rollout
			b.into(http.StatusOK, "GET", path, "", &v)
			if v.Status != "waiting" || len(v.WaitingFor) != 3 || !strings.Contains(v.WaitingText(), nodes[0]+" (its record cannot be read)") || !strings.Contains(v.WaitingText(), nodes[2]+" (edge at 127.0.0.1)") {
				t.Errorf("%s: %s", v.Status, v.WaitingText())
			}
			for _, n := range v.Nodes {
				if n.ID == nodes[0] && (!strings.Contains(n.Message, "cannot be read") || !strings.Contains(n.Message, n.ID)) {
					t.Errorf("%+v", n)
				}
			}
			if code, text := b.call("GET", "/api/v1/nodes/"+nodes[0], ""); code != http.StatusInternalServerError || !strings.Contains(text, "cannot be read") || !strings.Contains(text, "Remove the node") {
				t.Errorf("%d %s", code, text)
			}
			b.into(http.StatusOK, "POST", path+"/skip", `{"node_id":"`+nodes[0]+`"}`, &v)
			if v.Counts["skipped"] != 1 || v.Broken != "" {
				t.Errorf("%+v %s", v.Counts, v.Broken)
			}
			b.into(http.StatusOK, "PUT", "/api/v1/nodes/"+nodes[1]+"/group", `{"group_id":""}`, nil)
			b.until("the moved node is skipped", func() bool {
				b.into(http.StatusOK, "GET", path, "", &v)
				return v.Counts["skipped"] == 2 && v.Broken == ""
			})
			for _, id := range nodes[:2] {
				if code, text := b.call("DELETE", "/api/v1/nodes/"+id, `{"reason":"test"}`); code != http.StatusNoContent {
					t.Errorf("%d %s", code, text)
				}
			}
			var list api.NodeList
			b.into(http.StatusOK, "GET", "/api/v1/nodes?removed=true", "", &list)
			if len(list.Nodes) != 2 || list.Unreadable != 0 {
				t.Errorf("%d removed nodes, %d left out", len(list.Nodes), list.Unreadable)
			}
		})
	}
}

// The scope of a node whose record cannot be read is checked all the same.
func TestTheScopeOfAnUnreadableNode(t *testing.T) {
	t.Parallel()
	b := startBlockable(t)
	_, nodes := b.waitingRollout(1)
	b.damage("UPDATE nodes SET features = 'nope'")
	var g, token struct{ ID, Token string }
	b.into(http.StatusCreated, "POST", "/api/v1/groups", `{"name":"b"}`, &g)
	b.into(http.StatusCreated, "POST", "/api/v1/tokens", `{"name":"x","role":"group_admin","groups":["`+g.ID+`"],"expires_in_secs":3600}`, &token)
	for method, body := range map[string]string{"GET": "", "DELETE": `{"reason":"test"}`} {
		if code, text := b.as(token.Token, method, "/api/v1/nodes/"+nodes[0], body); code != http.StatusForbidden || strings.Contains(text, "nope") {
			t.Errorf("%s: %d %s", method, code, text)
		}
	}
}

// A node whose record cannot be read, and that has a command, can be moved; the command is
// withdrawn by a request, or by the move if its requester has no right for the new group.
func TestTheCommandOfAnUnreadableNode(t *testing.T) {
	t.Parallel()
	for _, by := range []string{"request", "move"} {
		b := startBlockable(t)
		n, reg, g := b.grouped()
		token := b.token("op", "operator", g.ID)
		n.conn.Close()
		b.nodeIs(reg.NodeID, false)
		path := "/api/v1/nodes/" + reg.NodeID
		if code, text := b.as(token.Token, "POST", path+"/upgrade", `{"version":"1.1.0"}`); code != http.StatusAccepted {
			t.Fatal(code, text)
		}
		b.damage("UPDATE nodes SET capabilities = 'nope'")
		var list api.CommandList
		b.into(http.StatusOK, "GET", path+"/commands", "", &list)
		if by == "move" {
			b.into(http.StatusOK, "PUT", path+"/group", `{"group_id":""}`, nil)
		} else {
			var v api.Node
			b.into(http.StatusOK, "POST", path+"/withdraw", `{"command_id":"`+list.Commands[0].ID+`"}`, &v)
			if v.ID != reg.NodeID || v.UpgradeState != api.Withdrawn {
				t.Errorf("%s %s", v.ID, v.UpgradeState)
			}
		}
		b.into(http.StatusOK, "GET", path+"/commands", "", &list)
		if c := list.Commands[0]; c.State != "withdrawn" {
			t.Errorf("%s: the command is %s", by, c.State)
		}
	}
}

// A node can be moved while the record of its command's requester cannot be read.
func TestAMoveWithAnUnreadableRequester(t *testing.T) {
	t.Parallel()
	b := startBlockable(t)
	n, reg, g := b.grouped()
	token := b.token("op", "operator", g.ID)
	n.conn.Close()
	b.nodeIs(reg.NodeID, false)
	path := "/api/v1/nodes/" + reg.NodeID
	if code, text := b.as(token.Token, "POST", path+"/upgrade", `{"version":"1.1.0"}`); code != http.StatusAccepted {
		t.Fatal(code, text)
	}
	b.damage("UPDATE api_tokens SET groups = 'nope'")
	b.into(http.StatusOK, "PUT", path+"/group", `{"group_id":""}`, nil)
	if v := b.view(reg.NodeID); v.UpgradeState != api.Queued {
		t.Errorf("the upgrade is %s", v.UpgradeState)
	}
}
