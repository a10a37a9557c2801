package server_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/bilbycast/edge-agent/manager-sim/api"
	"github.com/bilbycast/edge-agent/wire"
)

// A command whose requester's record cannot be read waits, and the API says why. The session of
// its node stays, and the right does not count as revoked. When the record is repaired, the
// command is sent.
func TestACommandOfAnUnreadableRequesterWaits(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		who  string
		lost bool
	}{{"user", true}, {"user", false}, {"token", true}, {"token", false}} {
		t.Run(fmt.Sprintf("%s, lost %t", c.who, c.lost), func(t *testing.T) {
			t.Parallel()
			b := startBlockable(t)
			n, reg, g := b.grouped()
			token := b.token("op", "operator", g.ID)
			b.into(http.StatusCreated, "POST", "/api/v1/users", `{"name":"ann","password":"correct horse battery","role":"operator","groups":["`+g.ID+`"]}`, nil)
			path := "/api/v1/nodes/" + reg.NodeID
			if code, text := b.as(token.Token, "POST", path+"/upgrade", `{"version":"1.1.0"}`); code != http.StatusAccepted {
				t.Fatal(code, text)
			}
			id := n.command().CommandID
			n.conn.Close()
			b.nodeIs(reg.NodeID, false)
			if !c.lost {
				b.damage("UPDATE commands SET state = 'pending', sent_at = 0")
			}
			table := "api_tokens"
			if c.who == "user" {
				table = "users"
				b.damage("UPDATE commands SET acting = 'ann'")
			}
			b.damage("UPDATE " + table + " SET groups = 'nope'")
			n = b.again(reg, "1.0.0")
			n.send(event("stays"))
			if got, ok := n.next().(*wire.EventAck); !ok {
				t.Fatalf("the node gets %+v", got)
			}
			var v api.Node
			b.until("the reason", func() bool {
				b.into(http.StatusOK, "GET", path, "", &v)
				return v.NotUpgradable != nil && strings.Contains(v.NotUpgradable.Reason, "the record cannot be read")
			})
			if v.UpgradeState.Ended() || !v.Online {
				t.Errorf("%s, online %t", v.UpgradeState, v.Online)
			}
			if c.who == "user" {
				if code, text := b.call("PATCH", "/api/v1/users/ann", `{"role":"viewer"}`); code != http.StatusInternalServerError || !strings.Contains(text, "Give the user its groups anew") {
					t.Errorf("%d %s", code, text)
				}
				b.into(http.StatusOK, "PATCH", "/api/v1/users/ann", `{"groups":["`+g.ID+`"]}`, nil)
			} else {
				b.damage("UPDATE api_tokens SET groups = ?", `["`+g.ID+`"]`)
			}
			n.health("1.0.0")
			if got := n.command(); got.CommandID != id {
				t.Errorf("it gets %+v", got)
			}
		})
	}
}

// A user whose record cannot be read can be removed, with the tokens that it created, also one
// that cannot be read. Then its commands lose their reason.
func TestAnUnreadableUserIsRemoved(t *testing.T) {
	t.Parallel()
	b := startBlockable(t)
	n, reg, g := b.grouped()
	b.into(http.StatusCreated, "POST", "/api/v1/users", `{"name":"root","password":"correct horse battery","role":"super_admin","groups":[]}`, nil)
	b.into(http.StatusCreated, "POST", "/api/v1/users", `{"name":"ann","password":"correct horse battery","role":"super_admin","groups":["`+g.ID+`"]}`, nil)
	b.token("by-ann", "viewer", g.ID)
	b.into(http.StatusAccepted, "POST", "/api/v1/nodes/"+reg.NodeID+"/upgrade", `{"version":"1.1.0"}`, nil)
	n.command()
	n.conn.Close()
	b.nodeIs(reg.NodeID, false)
	b.damage("UPDATE commands SET acting = 'ann'")
	b.damage("UPDATE users SET groups = 'nope' WHERE name = 'ann'")
	b.damage("UPDATE api_tokens SET groups = 'nope', created_by = 'ann'")
	b.into(http.StatusNoContent, "DELETE", "/api/v1/users/ann", "", nil)
	var tokens api.TokenList
	b.into(http.StatusOK, "GET", "/api/v1/tokens", "", &tokens)
	if len(tokens.Tokens) != 0 || tokens.Unreadable != 0 {
		t.Errorf("%+v", tokens)
	}
	n = b.again(reg, "1.0.0")
	n.synced("back")
	b.until("the withdrawal", func() bool { return b.view(reg.NodeID).UpgradeState == api.Withdrawn })
}

// A rollout pauses if the record of who started it cannot be read: its reason names the record.
// The sessions of its nodes stay, and another person may resume it.
func TestARolloutOfAnUnreadablePerson(t *testing.T) {
	t.Parallel()
	b := startBlockable(t)
	n, reg, g := b.grouped()
	ann, bob := b.token("ann", "group_admin", g.ID), b.token("bob", "group_admin", g.ID)
	id := b.schedule(ann.Token, g.ID, `{"version":"1.1.0","strategy":"immediate"}`).RolloutID
	first := n.command().CommandID
	n.conn.Close()
	b.nodeIs(reg.NodeID, false)
	b.damage("UPDATE api_tokens SET groups = 'nope' WHERE id = ?", ann.ID)
	n = b.again(reg, "1.0.0")
	n.synced("stays")
	b.until("the pause", func() bool { return b.rollout(id).Status == "paused" })
	if r := b.rollout(id); !strings.HasPrefix(r.Reason, "broken: the right of ann") || !strings.Contains(r.Reason, "the record cannot be read") {
		t.Error(r.Reason)
	}
	n.synced("still-there")
	if code, text := b.as(bob.Token, "POST", "/api/v1/rollouts/"+id+"/resume", b.seen(id)); code != http.StatusOK {
		t.Fatal(code, text)
	}
	if c := n.command(); c.CommandID != first {
		t.Errorf("the node gets %+v", c)
	}
}

// A node whose own record cannot be read keeps its session, and what it reports is stored. It
// gets no command before the record is repaired, but a withdrawal.
func TestAnUnreadableNodeKeepsItsSession(t *testing.T) {
	t.Parallel()
	b := startBlockable(t)
	n, reg := b.register()
	path := "/api/v1/nodes/" + reg.NodeID
	b.into(http.StatusAccepted, "POST", path+"/upgrade", `{"version":"1.1.0"}`, nil)
	id := n.command().CommandID
	n.conn.Close()
	b.nodeIs(reg.NodeID, false)
	b.damage("UPDATE nodes SET duplicate = 'nope'")
	n = b.withFeatures(reg, wire.FeatureWithdraw)
	n.send(&wire.Health{Status: wire.StatusOK, Version: "1.0.0", Capabilities: []string{wire.CapabilityUpgrade}, Upgrade: &wire.Upgrade{Progress: &wire.Progress{BytesDone: 1}}})
	n.send(event("stays"))
	if got, ok := n.next().(*wire.EventAck); !ok {
		t.Fatalf("the node gets %+v", got)
	}
	b.damage("UPDATE nodes SET duplicate = NULL")
	n.health("1.0.0")
	if c := n.command(); c.CommandID != id {
		t.Errorf("it gets %+v", c)
	}
}

// Damaged numbers of a node, such as the count of its events, do not end its session.
func TestDamagedCountsOfANode(t *testing.T) {
	t.Parallel()
	b := startBlockable(t)
	n, _ := b.register()
	for i, damage := range []string{"event_count = 9223372036854775807", "event_bytes = 9223372036854775807", "event_count = -5", "event_bytes = -9223372036854775808"} {
		b.damage("UPDATE nodes SET " + damage)
		n.synced(fmt.Sprint("stays-", i))
	}
}

// A command to an action whose requester's record cannot be read waits, and ends no session.
func TestAnActionOfAnUnreadableRequesterWaits(t *testing.T) {
	t.Parallel()
	b := startBlockable(t)
	n, reg, g := b.grouped()
	token := b.token("op", "operator", g.ID)
	b.offline(n, reg)
	b.offline(b.acting(reg, "reboot"), reg)
	path := "/api/v1/nodes/" + reg.NodeID + "/actions"
	if code, text := b.as(token.Token, "POST", path, `{"action":"reboot"}`); code != http.StatusAccepted {
		t.Fatal(code, text)
	}
	b.damage("UPDATE api_tokens SET groups = 'nope'")
	n = b.acting(reg, "reboot")
	n.send(event("stays"))
	if got, ok := n.next().(*wire.EventAck); !ok {
		t.Fatalf("the node gets %+v", got)
	}
	b.damage("UPDATE api_tokens SET groups = ?", `["`+g.ID+`"]`)
	n.health("1.0.0")
	if c := n.command(); c.Action.Type != "reboot" {
		t.Errorf("it gets %+v", c)
	}
}
