package server_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/bilbycast/edge-agent/manager-sim/api"
	"github.com/bilbycast/edge-agent/manager-sim/server/secret"
	"github.com/bilbycast/edge-agent/manager-sim/store"
	"github.com/bilbycast/edge-agent/release"
	"github.com/bilbycast/edge-agent/wire"
)

// trial sends a health beat of a version that is on trial, and returns when it is stored.
func (n *node) trial(version, trial, waits string) {
	n.t.Helper()
	h := &wire.Health{Status: "ok", Version: version, Capabilities: []string{wire.CapabilityUpgrade}, Trial: trial,
		Upgrade: &wire.Upgrade{Status: wire.StatusPendingHealth, CurrentVersion: version, Channels: []string{"stable"}}}
	if waits != "" {
		h.Hold = &wire.Hold{Reason: waits, Since: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)}
	}
	n.send(h)
	n.synced(fmt.Sprint("trial-", version, trial, time.Now().UnixNano()))
}

func (m *manager) view(id string) (n api.Node) {
	m.t.Helper()
	m.into(http.StatusOK, "GET", "/api/v1/nodes/"+id, "", &n)
	return n
}

// staged requests 1.1.0 for a new node, which restarts into it.
func (m *manager) staged() (n *node, reg *wire.RegisterAck, command string) {
	m.t.Helper()
	return m.stagedSince(0)
}

// stagedSince is staged, with a command that was sent that long ago.
func (m *manager) stagedSince(ago time.Duration) (n *node, reg *wire.RegisterAck, command string) {
	m.t.Helper()
	n, reg = m.register()
	m.into(http.StatusAccepted, "POST", "/api/v1/nodes/"+reg.NodeID+"/upgrade", `{"version":"1.1.0"}`, nil)
	command = n.command().CommandID
	if err := m.Store.RecordSent(m.t.Context(), command, time.Now().Add(-ago)); err != nil {
		m.t.Fatal(err)
	}
	n.reports(command, release.Staged, "1.0.0", "1.1.0", "staged")
	n.ack(&wire.CommandAck{CommandID: command, Success: true, Data: &wire.AckData{Status: "staged"}})
	n.conn.Close()
	return m.again(reg, "1.1.0"), reg, command
}

// A newer version is refused only while one is on trial without a result. Under guard, and
// while a version is unproven, it is accepted, sent, and decides the state of the node.
func TestANewerVersionDuringATrial(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		trial, waits string
		completed    bool
		accepted     bool
		state, text  string
	}{
		"on trial":                      {trial: wire.TrialOpen, state: "proving", text: "on trial"},
		"an earlier agent":              {state: "proving", text: "on trial"},
		"a trial of the future":         {trial: "other", state: "proving", text: "on trial"},
		"under guard":                   {trial: wire.TrialGuard, completed: true, accepted: true, state: "updated", text: "under guard"},
		"under guard, its event is due": {trial: wire.TrialGuard, accepted: true, state: "proving", text: "under guard"},
		"unproven":                      {trial: wire.TrialUnproven, waits: "an answer", accepted: true, state: "proving", text: "unproven: waits for an answer, since 2026-01-02 03:04:05 UTC"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m := start(t)
			n, reg, command := m.staged()
			n.trial("1.1.0", tt.trial, tt.waits)
			if tt.completed {
				n.reports(command, release.Completed, "1.0.0", "1.1.0", "healthy")
			}
			v := m.view(reg.NodeID)
			if string(v.UpgradeState) != tt.state || v.Upgradable != tt.accepted || v.TrialText() != tt.text {
				t.Errorf("%s, upgradable %t, %q", v.UpgradeState, v.Upgradable, v.TrialText())
			}
			code, text := m.call("POST", "/api/v1/nodes/"+reg.NodeID+"/upgrade", `{"version":"1.2.0"}`)
			if !tt.accepted {
				if code != http.StatusConflict || !strings.Contains(text, "upgrade_in_progress") || !strings.Contains(text, "on trial") {
					t.Errorf("a newer version: %d %s", code, text)
				}
				return
			}
			if code != http.StatusAccepted {
				t.Fatalf("a newer version: %d %s", code, text)
			}
			if c := n.command(); c.Action.Version != "1.2.0" {
				t.Errorf("the node gets %s", c.Action.Version)
			}
			if v := m.view(reg.NodeID); v.TargetVersion != "1.2.0" || v.Upgradable || v.UpgradeState != api.Sent {
				t.Errorf("afterwards: %s %s, upgradable %t", v.TargetVersion, v.UpgradeState, v.Upgradable)
			}
			m.into(http.StatusConflict, "POST", "/api/v1/nodes/"+reg.NodeID+"/upgrade", `{"version":"1.3.0"}`, nil)
		})
	}
}

// A version on trial that the device itself began to run is an upgrade in progress, too: an
// operator gets the reason, and a rollout commands the node when the trial has a result.
func TestATrialThatTheDeviceBegan(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		trial    string
		accepted bool
	}{{wire.TrialOpen, false}, {wire.TrialUnproven, true}, {wire.TrialGuard, true}, {"", true}} {
		t.Run(tt.trial, func(t *testing.T) {
			t.Parallel()
			m := start(t)
			n, reg := m.register()
			free, freeReg := m.register()
			var g struct{ ID string }
			m.into(http.StatusCreated, "POST", "/api/v1/groups", `{"name":"site one"}`, &g)
			for _, id := range []string{reg.NodeID, freeReg.NodeID} {
				m.into(http.StatusOK, "PUT", "/api/v1/nodes/"+id+"/group", `{"group_id":"`+g.ID+`"}`, nil)
			}
			n.conn.Close()
			n = m.again(reg, "1.1.0") // from a stick
			n.send(&wire.Health{Status: "ok", Version: "1.1.0", Capabilities: []string{wire.CapabilityUpgrade}, Trial: tt.trial})
			n.synced("on-trial")
			if v := m.view(reg.NodeID); v.Upgradable != tt.accepted || !tt.accepted && v.NotUpgradable.Reason != "Version 1.1.0 is on trial on the node, without a result yet." {
				t.Errorf("upgradable %t, %+v", v.Upgradable, v.NotUpgradable)
			}
			if !tt.accepted {
				code, text := m.call("POST", "/api/v1/nodes/"+reg.NodeID+"/upgrade", `{"version":"1.2.0"}`)
				if code != http.StatusConflict || !strings.Contains(text, "upgrade_in_progress") {
					t.Errorf("an operator's request: %d %s", code, text)
				}
			}
			m.into(http.StatusAccepted, "POST", "/api/v1/groups/"+g.ID+"/upgrade", `{"version":"1.2.0","strategy":"immediate"}`, nil)
			free.command()
			if !tt.accepted {
				n.synced("nothing-came")
				if v := m.view(reg.NodeID); v.CommandID != "" {
					t.Errorf("the node on trial has the command %s", v.CommandID)
				}
				n.health("1.1.0") // it was kept
			}
			if c := n.command(); c.Action.Version != "1.2.0" {
				t.Errorf("the node gets %s", c.Action.Version)
			}
		})
	}
}

// What a node reports about its trial is bounded and printable, and ends with the trial.
func TestTheTrialOfANode(t *testing.T) {
	t.Parallel()
	m := start(t)
	n, reg, command := m.staged()
	n.trial("1.1.0", wire.TrialUnproven, "no\x1b[2J answer\u202e"+strings.Repeat("x", 100_000))
	v := m.view(reg.NodeID)
	if v.Trial != api.TrialUnproven || v.Hold == nil || len(v.Hold.Reason) > wire.MaxHold || !strings.HasPrefix(v.Hold.Reason, "no?[2J answer?x") {
		t.Errorf("%q, %+v", v.Trial, v.Hold)
	}
	n.reports(command, release.Completed, "1.0.0", "1.1.0", "healthy")
	n.health("1.1.0")
	n.synced("kept")
	if v := m.view(reg.NodeID); v.Trial != "" || v.Hold != nil || v.TrialText() != "" || v.UpgradeState != api.Updated {
		t.Errorf("when it was kept: %+v", v)
	}
}

// An upgrade that completed and then rolled back, under guard, counts as rolled back.
func TestARollbackUnderGuard(t *testing.T) {
	t.Parallel()
	m := start(t)
	n, reg, command := m.staged()
	n.trial("1.1.0", wire.TrialGuard, "")
	n.reports(command, release.Completed, "1.0.0", "1.1.0", "healthy")
	n.conn.Close()
	n = m.again(reg, "1.0.0")
	n.reports(command, release.RolledBack, "1.1.0", "1.0.0", "exit status 1")
	n.health("1.0.0")
	n.synced("back")
	if v := m.view(reg.NodeID); v.UpgradeState != api.RolledBack || v.Error != "exit status 1" || v.TrialText() != "" || !v.Upgradable {
		t.Errorf("got %+v", v)
	}
}

// upgrade_superseded ends its command, and is no failure.
func TestASupersededVersion(t *testing.T) {
	t.Parallel()
	m := start(t)
	n, reg, command := m.staged()
	n.trial("1.1.0", wire.TrialUnproven, "an answer")
	n.reports(command, release.Superseded, "1.0.0", "1.1.0", "1.2.0 took its place")
	if v := m.view(reg.NodeID); v.UpgradeState != api.Superseded || v.ErrorCode != "" || !v.Upgradable {
		t.Errorf("got %+v", v)
	}
	_, text := m.call("GET", "/api/v1/events?node_id="+reg.NodeID, "")
	if !strings.Contains(text, `"severity":"info","category":"upgrade","message":"1.2.0 took its place","error_code":"upgrade_superseded"`) {
		t.Errorf("events %s", text)
	}
}

// A version on trial fails at the time limit, and an unproven one never does. No limit runs
// while no manager runs: the node shows that the manager was away.
func TestTimeLimitsOfATrial(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		sent, away time.Duration // ago; the manager was away until now
		trial      string
		state      api.UpgradeState
		text       string
	}{
		"on trial":                        {sent: 50 * time.Minute, trial: wire.TrialOpen, state: api.Proving, text: "on trial"},
		"at the limit":                    {sent: time.Hour, trial: wire.TrialOpen, state: api.Failed, text: "on trial"},
		"unproven":                        {sent: 99 * time.Hour, trial: wire.TrialUnproven, state: api.Proving, text: "unproven: waits for an answer, since 2026-01-02 03:04:05 UTC"},
		"manager was away":                {sent: 3 * time.Hour, away: 2*time.Hour + 50*time.Minute, trial: wire.TrialOpen, state: api.Proving, text: "on trial (manager was away)"},
		"manager was away, and the limit": {sent: 3 * time.Hour, away: 110 * time.Minute, trial: wire.TrialOpen, state: api.Failed, text: "on trial"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m := start(t)
			n, reg, _ := m.stagedSince(tt.sent)
			n.trial("1.1.0", tt.trial, "an answer")
			n.conn.Close()
			m.nodeIs(reg.NodeID, false)
			if tt.away > 0 {
				m.restart(tt.away)
			}
			if v := m.view(reg.NodeID); v.UpgradeState != tt.state || v.TrialText() != tt.text {
				t.Errorf("%s, %q", v.UpgradeState, v.TrialText())
			}
		})
	}
}

// A node that never came back from its restart, because the manager was away, is on trial.
func TestAnOutageBeforeTheNodeIsBack(t *testing.T) {
	t.Parallel()
	m := start(t)
	n, reg := m.register()
	m.into(http.StatusAccepted, "POST", "/api/v1/nodes/"+reg.NodeID+"/upgrade", `{"version":"1.1.0"}`, nil)
	command := n.command().CommandID
	n.reports(command, release.Staged, "1.0.0", "1.1.0", "staged")
	if err := m.Store.RecordSent(t.Context(), command, time.Now().Add(-25*time.Hour)); err != nil {
		t.Fatal(err)
	}
	m.restart(25 * time.Hour)
	if v := m.view(reg.NodeID); v.UpgradeState != api.Staged || v.TrialText() != "on trial (manager was away)" || v.ManagerAwaySecs < 24*3600 {
		t.Errorf("%s, %q, %d", v.UpgradeState, v.TrialText(), v.ManagerAwaySecs)
	}
}

// A command that waits for its node does not expire while no manager runs.
func TestACommandWaitsThroughAnOutage(t *testing.T) {
	t.Parallel()
	for away, want := range map[time.Duration]api.UpgradeState{0: api.Failed, 29 * time.Hour: api.Queued} {
		m := start(t)
		n, reg := m.register()
		n.conn.Close()
		m.nodeIs(reg.NodeID, false)
		c := store.Command{ID: "c", NodeID: reg.NodeID, Version: "1.1.0", Channel: "stable", Action: []byte(`{"type":"upgrade_binary"}`), CreatedAt: time.Now().Add(-30 * time.Hour)}
		if err := m.Store.AddCommand(t.Context(), c, api.AuditEntry{Time: time.Now(), Details: []byte("{}")}); err != nil {
			t.Fatal(err)
		}
		if away > 0 {
			m.restart(away)
		}
		if v := m.view(reg.NodeID); v.UpgradeState != want {
			t.Errorf("away for %v: %s %s", away, v.UpgradeState, v.ErrorCode)
		}
		n = m.again(reg, "1.0.0")
		if want == api.Queued {
			n.command()
		}
		n.synced("all-it-gets")
	}
}

// A right secret is never locked out, whatever came from its address; neither is a probe.
func TestARightSecretAfterManyWrongOnes(t *testing.T) {
	t.Parallel()
	m := start(t)
	_, reg := m.register()
	_, other := m.register()
	for i := range 100 {
		wrong := &wire.Auth{NodeID: reg.NodeID, NodeSecret: secret.New(), Probe: i%2 == 0}
		message, pause := m.refused(wrong)
		if wrong.Probe && (message == "" || pause != 0) {
			t.Fatalf("probe %d: %q, %v", i, message, pause)
		}
	}
	for _, r := range []*wire.RegisterAck{reg, other} {
		if ok, _ := m.back(r).(*wire.AuthOK); ok == nil {
			t.Errorf("node %s is refused", r.NodeID)
		}
		m.probe(r)
	}
	if message, _ := m.refused(&wire.Auth{NodeID: other.NodeID, NodeSecret: "wrong"}); !strings.Contains(message, "is wrong") {
		t.Errorf("a node whose own secret is wrong gets %q", message)
	}
}
