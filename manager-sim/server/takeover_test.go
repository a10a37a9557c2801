package server_test

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"

	"github.com/bilbycast/edge-agent/manager-sim/api"
	"github.com/bilbycast/edge-agent/wire"
)

// token creates a token with a role in a group.
func (m *manager) token(name, role, groupID string) (t api.TokenCreated) {
	m.t.Helper()
	m.into(http.StatusCreated, "POST", "/api/v1/tokens", `{"name":"`+name+`","role":"`+role+`","groups":["`+groupID+`"]}`, &t)
	return t
}

// grouped registers a node, and puts it into a new group.
func (m *manager) grouped() (*node, *wire.RegisterAck, api.Group) {
	m.t.Helper()
	n, reg := m.register()
	var g api.Group
	m.into(http.StatusCreated, "POST", "/api/v1/groups", `{"name":"a"}`, &g)
	m.into(http.StatusOK, "PUT", "/api/v1/nodes/"+reg.NodeID+"/group", `{"group_id":"`+g.ID+`"}`, nil)
	return n, reg, g
}

// schedule begins a rollout with a token.
func (m *manager) schedule(token, groupID, body string) (p api.RolloutPlan) {
	m.t.Helper()
	code, text := m.as(token, "POST", "/api/v1/groups/"+groupID+"/upgrade", body)
	if code != http.StatusAccepted {
		m.t.Fatal(code, text)
	}
	if err := json.Unmarshal([]byte(text), &p); err != nil {
		m.t.Fatal(err)
	}
	return p
}

// A rollout whose starter lost the right pauses. When another person resumes it, its commands
// have the rights of that person: one that was sent and got lost, and one that was held before
// it was sent.
func TestAnotherPersonResumes(t *testing.T) {
	t.Parallel()
	for name, lost := range map[string]bool{"sent and lost": true, "never sent": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := startBlockable(t)
			n, reg, g := b.grouped()
			ann, bob := b.token("ann", "group_admin", g.ID), b.token("bob", "group_admin", g.ID)
			id := b.schedule(ann.Token, g.ID, `{"version":"1.1.0","strategy":"immediate"}`).RolloutID
			first := n.command().CommandID
			n.conn.Close() // the command got lost
			b.nodeIs(reg.NodeID, false)
			if !lost {
				b.damage("UPDATE commands SET state = 'pending', sent_at = 0")
			}
			b.into(http.StatusNoContent, "DELETE", "/api/v1/tokens/"+ann.ID, "", nil)
			n = b.again(reg, "1.0.0")
			n.synced("no-command")
			b.until("the pause", func() bool { return b.rollout(id).Status == "paused" })
			if code, text := b.as(bob.Token, "POST", "/api/v1/rollouts/"+id+"/resume", b.seen(id)); code != http.StatusOK {
				t.Fatal(code, text)
			}
			if c := n.command(); c.CommandID != first || c.Action.Version != "1.1.0" {
				t.Errorf("the node gets %+v", c)
			}
			if v := b.node(reg.NodeID); v.RequestedBy != "bob" {
				t.Errorf("requested by %s", v.RequestedBy)
			}
		})
	}
}

// A user who gets the name of one that was removed does not get its rights: what the one before
// started pauses, also while its nodes are offline.
func TestAUserWithTheNameOfARemovedOne(t *testing.T) {
	t.Parallel()
	m := start(t)
	n, reg, g := m.grouped()
	ann := `{"name":"ann","password":"` + password + `","role":"group_admin","groups":["` + g.ID + `"]}`
	m.into(http.StatusCreated, "POST", "/api/v1/users", ann, nil)
	_, i := m.signedIn("ann", password)
	n.conn.Close()
	m.nodeIs(reg.NodeID, false)
	code, text := m.page(i, "POST", "/api/v1/groups/"+g.ID+"/upgrade", `{"version":"1.1.0","strategy":"immediate"}`)
	var plan api.RolloutPlan
	if err := json.Unmarshal([]byte(text), &plan); code != http.StatusAccepted || err != nil {
		t.Fatal(code, text)
	}
	m.into(http.StatusNoContent, "DELETE", "/api/v1/users/ann", "", nil)
	m.into(http.StatusCreated, "POST", "/api/v1/users", ann, nil)
	m.until("the pause", func() bool {
		return strings.Contains(m.rollout(plan.RolloutID).Reason, "ann, who started or resumed it last, may no longer upgrade this group")
	})
	m.again(reg, "1.0.0").synced("no-command")
	_, i = m.signedIn("ann", password)
	if code, text := m.page(i, "POST", "/api/v1/rollouts/"+plan.RolloutID+"/resume", m.seen(plan.RolloutID)); code != http.StatusOK {
		t.Fatal(code, text)
	}
	m.until("the command", func() bool { return m.node(reg.NodeID).UpgradeState == string(api.Sent) })
}
