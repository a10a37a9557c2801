package server_test

import (
	"encoding/json"
	"net/http"
	"testing"
	"time"

	"github.com/bilbycast/edge-agent/manager-sim/api"
	"github.com/bilbycast/edge-agent/manager-sim/rollout"
	"github.com/bilbycast/edge-agent/manager-sim/store"
	"github.com/bilbycast/edge-agent/release"
	"github.com/bilbycast/edge-agent/wire"
)

// The limit of a single upgrade begins when it is sent, and again with each progress that its node
// reports. The same progress again is none. Then the upgrade has failed, and the node gets
// another one; a late outcome still counts.
func TestTheLimitOfASingleUpgrade(t *testing.T) {
	t.Parallel()
	m := start(t)
	n, reg := m.register()
	path := "/api/v1/nodes/" + reg.NodeID
	for _, body := range []string{`{"version":"1.1.0","limit_secs":59}`, `{"version":"1.1.0","limit_secs":-1}`, `{"version":"1.1.0","limit_secs":86401}`} {
		m.into(http.StatusBadRequest, "POST", path+"/upgrade", body, nil)
	}
	m.into(http.StatusAccepted, "POST", path+"/upgrade", `{"version":"1.1.0","limit_secs":600}`, nil)
	id := n.command().CommandID
	is := func(what string, want api.UpgradeState, code string) {
		t.Helper()
		if v := m.view(reg.NodeID); v.UpgradeState != want || v.ErrorCode != code {
			t.Errorf("%s: %s %q, want %s %q", what, v.UpgradeState, v.ErrorCode, want, code)
		}
	}
	beats := 0
	reports := func(done int64) wire.Upgrade {
		u := wire.Upgrade{Status: "staging", CurrentVersion: "1.0.0", TargetVersion: "1.1.0", Channels: []string{"stable"}, Progress: &wire.Progress{Phase: "download", BytesDone: done, BytesTotal: 100}}
		n.send(&wire.Health{Status: wire.StatusOK, Version: "1.0.0", Capabilities: []string{wire.CapabilityUpgrade}, Upgrade: &u})
		return u
	}
	beat := func(done int64) wire.Upgrade {
		u := reports(done)
		beats++
		n.synced(string(rune('a' + beats)))
		return u
	}
	sent := func(ago time.Duration) {
		t.Helper()
		if err := m.Store.RecordSent(t.Context(), id, time.Now().Add(-ago)); err != nil {
			t.Fatal(err)
		}
	}
	progress := func(want time.Time) {
		t.Helper()
		if n, err := m.Store.Node(t.Context(), reg.NodeID); err != nil || n.ProgressAt.Sub(want).Abs() > 20*time.Second {
			t.Errorf("the last progress is of %v, want %v; %v", n.ProgressAt, want, err)
		}
	}
	was := func(u wire.Upgrade, ago time.Duration) time.Time { // sets when the node reported that
		t.Helper()
		b, err := json.Marshal(u)
		if err != nil {
			t.Fatal(err)
		}
		rec := store.Node{ID: reg.NodeID, Version: "1.0.0", LastSeen: time.Now(), Health: wire.StatusOK, Capabilities: []string{wire.CapabilityUpgrade}, Upgrade: b, ProgressAt: time.Now().Add(-ago)}
		if err := m.Store.RecordHealth(t.Context(), rec); err != nil {
			t.Fatal(err)
		}
		return rec.ProgressAt
	}
	sent(540 * time.Second)
	is("before the limit", api.Sent, "")
	beat(1)
	sent(time.Hour)
	is("with progress", api.Sent, "")
	at := was(beat(2), 540*time.Second)
	beat(2)
	progress(at)
	n.conn.Close()
	m.nodeIs(reg.NodeID, false)
	a := auth()
	a.RegistrationToken, a.NodeID, a.NodeSecret, a.Features = "", reg.NodeID, reg.NodeSecret, []string{wire.FeatureWithdraw}
	n = m.dial()
	n.send(a)
	if _, ok := n.next().(*wire.AuthOK); !ok {
		t.Fatal("not accepted")
	}
	reports(2)
	if c := n.command(); c.CommandID != id {
		t.Fatalf("it gets %+v", c)
	}
	sent(time.Hour) // it was sent again
	beat(2)
	progress(at)
	u := beat(3)
	progress(time.Now())
	is("with more progress", api.Sent, "")
	was(u, 601*time.Second)
	is("at the limit", api.Failed, rollout.TimeLimit)
	if w := n.command(); w.Action.Type != wire.ActionWithdraw || w.Action.CommandID != id {
		t.Errorf("it gets %+v", w)
	}
	is("withdrawn", api.Failed, rollout.TimeLimit)
	if v := m.view(reg.NodeID); !v.MayStillRun {
		t.Error("the view does not say that the node may still carry it out")
	}
	n.ack(&wire.CommandAck{CommandID: id, Error: "the manager withdrew it", ErrorCode: release.Withdrawn})
	n.ack(&wire.CommandAck{CommandID: id + "-withdraw", Success: true})
	is("after the answer", api.Failed, rollout.TimeLimit)
	if v := m.view(reg.NodeID); v.MayStillRun || !v.Upgradable {
		t.Errorf("after the answer: may still run %t, %+v", v.MayStillRun, v.NotUpgradable)
	}
}

// An upgrade that ends after its limit, because the node did not obey the withdrawal, is recorded.
func TestAnOutcomeAfterTheLimitOfASingleUpgrade(t *testing.T) {
	t.Parallel()
	m := start(t)
	n, reg := m.register()
	m.into(http.StatusAccepted, "POST", "/api/v1/nodes/"+reg.NodeID+"/upgrade", `{"version":"1.1.0","limit_secs":600}`, nil)
	id := n.command().CommandID
	if err := m.Store.RecordSent(t.Context(), id, time.Now().Add(-time.Hour)); err != nil {
		t.Fatal(err)
	}
	m.until("it is withdrawn", func() bool {
		c, err := m.Store.Command(t.Context(), id)
		return err == nil && c.State == store.CommandWithdrawn
	})
	n.reports(id, release.Staged, "1.0.0", "1.1.0", "staged")
	n.reports(id, release.Completed, "1.0.0", "1.1.0", "healthy")
	n.health("1.1.0")
	n.synced("late")
	if v := m.view(reg.NodeID); v.UpgradeState != api.Updated {
		t.Errorf("%s %q", v.UpgradeState, v.ErrorCode)
	}
}
