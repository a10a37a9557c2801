package server_test

import (
	"net/http"
	"testing"

	"github.com/bilbycast/edge-agent/manager-sim/api"
	"github.com/bilbycast/edge-agent/wire"
)

// A node that returns long after the withdrawal of its command gets that all the same: it may
// still carry the command out.
func TestALateWithdrawal(t *testing.T) {
	t.Parallel()
	b := startBlockable(t)
	n, reg := b.register()
	path := "/api/v1/nodes/" + reg.NodeID
	b.into(http.StatusAccepted, "POST", path+"/upgrade", `{"version":"1.1.0"}`, nil)
	id := n.command().CommandID
	n.conn.Close()
	b.nodeIs(reg.NodeID, false)
	b.into(http.StatusOK, "POST", path+"/withdraw", `{"command_id":"`+id+`"}`, nil)
	const days = 40 * 24 * 3600 * 1000
	b.damage("UPDATE commands SET created_at = created_at - ?, sent_at = sent_at - ?, withdrawn_at = withdrawn_at - ?", days, days, days)
	n = b.withFeatures(reg, wire.FeatureWithdraw)
	c := n.command()
	if c.Action.Type != wire.ActionWithdraw || c.Action.CommandID != id {
		t.Errorf("it gets %+v", c)
	}
	n.ack(&wire.CommandAck{CommandID: c.CommandID, Success: true})
	n.conn.Close()
	b.nodeIs(reg.NodeID, false)
	n = b.withFeatures(reg, wire.FeatureWithdraw)
	n.synced("nothing-after-the-answer")
}

// A revision that is damaged keeps nobody from pausing, resuming and aborting a rollout.
func TestAnExtremeRevision(t *testing.T) {
	t.Parallel()
	for _, revision := range []int64{1<<63 - 1, 0, -1 << 63} {
		b := startBlockable(t)
		path, _ := b.waitingRollout(1)
		b.damage("UPDATE rollouts SET revision = ?", revision)
		var v api.Rollout
		b.into(http.StatusOK, "POST", path+"/pause", "", &v)
		b.into(http.StatusOK, "POST", path+"/resume", `{"revision":"`+v.Decision+`"}`, nil)
		b.into(http.StatusOK, "POST", path+"/abort", "", &v)
		if v.Status != "aborted" {
			t.Errorf("%d: %s", revision, v.Status)
		}
	}
}

// A retry withdraws what a node has begun once, and then requests the new attempt.
func TestARetryWithdrawsOnce(t *testing.T) {
	t.Parallel()
	b := startBlockable(t)
	n, reg, g := b.grouped()
	n.conn.Close()
	b.nodeIs(reg.NodeID, false)
	n = b.withFeatures(reg, wire.FeatureWithdraw)
	n.synced("health")
	id := b.schedule(admin, g.ID, `{"version":"1.1.0","strategy":"immediate"}`).RolloutID
	first := n.command().CommandID
	n.reports(first, "upgrade_started", "1.0.0", "1.1.0", "started")
	b.damage("UPDATE commands SET sent_at = sent_at - 7200000") // its time limit is over
	b.damage(`UPDATE rollouts SET revision = revision + 1, state = replace(state, '"state":"commanded"', '"code":"time_limit","state":"failed"')`)
	n.synced("wakes-the-engine")
	b.until("the pause", func() bool { return b.rollout(id).Status == "paused" })
	b.into(http.StatusOK, "POST", "/api/v1/rollouts/"+id+"/retry", b.seen(id), nil)
	if c := n.command(); c.Action.Type != wire.ActionWithdraw || c.Action.CommandID != first {
		t.Errorf("it gets %+v", c)
	}
	if c := n.command(); c.CommandID == first || c.Action.Version != "1.1.0" {
		t.Errorf("then it gets %+v", c)
	}
	n.send(event("last"))
	if got, ok := n.next().(*wire.EventAck); !ok {
		t.Errorf("then it gets %+v", got)
	}
}

// While a table of the database is missing, a call of the API gets 503, as /readyz does.
func TestACallWithoutATable(t *testing.T) {
	t.Parallel()
	b := startBlockable(t)
	b.damage("ALTER TABLE rollouts RENAME TO elsewhere")
	for _, path := range []string{"/api/v1/rollouts", "/readyz"} {
		if code, text, retry := b.get(path); code != http.StatusServiceUnavailable || retry == "" {
			t.Errorf("%s: %d %q %s", path, code, retry, text)
		}
	}
	b.damage("ALTER TABLE elsewhere RENAME TO rollouts")
	b.until("the table is back", func() bool { code, _, _ := b.get("/api/v1/rollouts"); return code == http.StatusOK })
}
