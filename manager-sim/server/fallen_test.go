package server_test

import (
	"encoding/json"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/bilbycast/edge-agent/manager-sim/api"
	"github.com/bilbycast/edge-agent/manager-sim/rollout"
	"github.com/bilbycast/edge-agent/manager-sim/server"
	"github.com/bilbycast/edge-agent/release"
	"github.com/bilbycast/edge-agent/wire"
)

// pair is a rollout of 1.1.0 to a node of its first wave and one of its second.
type pair struct {
	*manager
	id            string // of the rollout
	first         *node
	firstReg      *wire.RegisterAck
	second        *node
	secondReg     *wire.RegisterAck
	command       string // of the first node
	secondCommand string
}

// startPair begins a rollout. before runs with both nodes before it begins.
func startPair(t *testing.T, c server.Config, body string, before func(m *manager, n *node, id string)) *pair {
	t.Helper()
	p := &pair{manager: startWith(t, c)}
	nodes, regs := map[string]*node{}, map[string]*wire.RegisterAck{}
	var g struct{ ID string }
	p.into(http.StatusCreated, "POST", "/api/v1/groups", `{"name":"site one"}`, &g)
	for range 2 {
		n, reg := p.register()
		nodes[reg.NodeID], regs[reg.NodeID] = n, reg
		p.into(http.StatusOK, "PUT", "/api/v1/nodes/"+reg.NodeID+"/group", `{"group_id":"`+g.ID+`"}`, nil)
		if before != nil {
			before(p.manager, n, reg.NodeID)
		}
	}
	var plan api.RolloutPlan
	p.into(http.StatusAccepted, "POST", "/api/v1/groups/"+g.ID+"/upgrade", body, &plan)
	p.id = plan.RolloutID
	p.first, p.firstReg = nodes[plan.Waves[0][0]], regs[plan.Waves[0][0]]
	p.second, p.secondReg = nodes[plan.Waves[1][0]], regs[plan.Waves[1][0]]
	p.command = p.first.command().CommandID
	return p
}

// kept lets a node stage 1.1.0 and keep it.
func (p *pair) kept(n *node, reg *wire.RegisterAck, command string) *node {
	p.t.Helper()
	n.reports(command, release.Staged, "1.0.0", "1.1.0", "staged")
	n.conn.Close()
	n = p.again(reg, "1.1.0")
	n.reports(command, release.Completed, "1.0.0", "1.1.0", "healthy")
	n.health("1.1.0")
	n.synced("kept")
	return n
}

func (p *pair) rollout() (r api.Rollout) {
	p.t.Helper()
	p.into(http.StatusOK, "GET", "/api/v1/rollouts/"+p.id, "", &r)
	return r
}

// of returns how the rollout shows the first node.
func (p *pair) of() api.RolloutNode {
	p.t.Helper()
	ns := p.rollout().Nodes
	return ns[slices.IndexFunc(ns, func(n api.RolloutNode) bool { return n.ID == p.firstReg.NodeID })]
}

// A node that kept the version and then vanishes, reports degraded, or runs another version
// pauses the rollout, in the settle window and in the next wave. When it is well again it
// counts as updated, and the rollout stays paused until an operator resumes it.
func TestANodeThatFallsPausesTheRollout(t *testing.T) {
	t.Parallel()
	degraded := func(p *pair) {
		p.first.send(&wire.Health{Status: "degraded", Version: "1.1.0", Capabilities: []string{wire.CapabilityUpgrade}})
		p.first.synced("degraded")
	}
	for name, tt := range map[string]struct {
		fall    func(p *pair)
		code    string
		message string
		recover func(p *pair)
	}{
		"vanished": {func(p *pair) { p.first.conn.Close() }, rollout.Vanished, "offline, last seen 20", func(p *pair) { p.first = p.again(p.firstReg, "1.1.0") }},
		"degraded": {degraded, rollout.Degraded, "", func(p *pair) { p.first.health("1.1.0"); p.first.synced("ok") }},
		"another version": {func(p *pair) { p.first.conn.Close(); p.first = p.again(p.firstReg, "1.0.0") }, rollout.OtherVersion, "it runs 1.0.0",
			func(p *pair) { p.first.conn.Close(); p.first = p.again(p.firstReg, "1.1.0") }},
	} {
		for wave, settle := range []string{`"settle_secs":3600`, `"settle_secs":0`} {
			t.Run(name+" in "+[]string{"the settle window", "the next wave"}[wave], func(t *testing.T) {
				t.Parallel()
				var c server.Config
				if tt.code == rollout.Vanished { // the others are offline for a moment, too
					c.VanishAfter = time.Millisecond
				}
				p := startPair(t, c, `{"version":"1.1.0",`+settle+`}`, nil)
				p.first = p.kept(p.first, p.firstReg, p.command)
				if wave == 1 {
					p.secondCommand = p.second.command().CommandID
				} else {
					p.until("the settle window", func() bool { return p.rollout().Status == rollout.Settling })
				}
				tt.fall(p)
				p.until("the pause", func() bool { return p.rollout().Status == rollout.Paused })
				r, n := p.rollout(), p.of()
				if !strings.Contains(r.Reason, "("+n.ID+") in wave") || r.Counts[rollout.NodeFailed] != 1 || r.Wave != wave {
					t.Errorf("wave %d, %q, %v", r.Wave, r.Reason, r.Counts)
				}
				if n.State != rollout.NodeFailed || n.Code != tt.code || !strings.HasPrefix(n.Message, tt.message) {
					t.Errorf("the node is %+v", n)
				}
				tt.recover(p)
				p.until("it is well", func() bool { return p.of().State == rollout.NodeUpdated })
				if r := p.rollout(); r.Status != rollout.Paused || r.Reason != "" {
					t.Errorf("afterwards: %s, %q", r.Status, r.Reason)
				}
			})
		}
	}
}

// What is not the release's fault pauses nothing: a node that was degraded before its
// command, or during its trial, and one that an operator upgrades meanwhile.
func TestWhatIsNoFall(t *testing.T) {
	t.Parallel()
	ill := func(n *node, version string) {
		n.send(&wire.Health{Status: "degraded", Version: version, Capabilities: []string{wire.CapabilityUpgrade}})
		n.synced("ill-" + version)
	}
	for name, tt := range map[string]struct {
		before func(m *manager, n *node, id string)
		run    func(p *pair)
	}{
		"degraded before": {func(_ *manager, n *node, _ string) { ill(n, "1.0.0") }, func(p *pair) {
			p.first = p.kept(p.first, p.firstReg, p.command)
			ill(p.first, "1.1.0")
		}},
		"degraded in its trial": {nil, func(p *pair) {
			p.first.reports(p.command, release.Staged, "1.0.0", "1.1.0", "staged")
			p.first.conn.Close()
			p.first = p.again(p.firstReg, "1.1.0")
			ill(p.first, "1.1.0")
			p.first.reports(p.command, release.Completed, "1.0.0", "1.1.0", "healthy")
			p.until("it counts", func() bool { return p.of().State == rollout.NodeUpdated })
			p.first.synced("something-is-new")
		}},
		"another command": {nil, func(p *pair) {
			p.first = p.kept(p.first, p.firstReg, p.command)
			p.until("it counts", func() bool { return p.of().State == rollout.NodeUpdated })
			p.into(http.StatusAccepted, "POST", "/api/v1/nodes/"+p.firstReg.NodeID+"/upgrade", `{"version":"1.2.0"}`, nil)
			p.first.command()
			p.first.conn.Close()
			p.again(p.firstReg, "1.2.0").health("1.2.0")
		}},
		"away for less than usual": {func(m *manager, _ *node, id string) {
			for _, err := range []error{m.Store.RecordDisconnect(t.Context(), id, time.Now().Add(-2*time.Hour)),
				m.Store.RecordConnect(t.Context(), id, "1.0.0", "127.0.0.1", time.Now().Add(-time.Hour))} {
				if err != nil {
					t.Fatal(err)
				}
			}
		}, func(p *pair) {
			p.first = p.kept(p.first, p.firstReg, p.command)
			p.until("it counts", func() bool { return p.of().State == rollout.NodeUpdated })
			p.first.conn.Close()
			p.nodeIs(p.firstReg.NodeID, false)
		}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := startPair(t, server.Config{VanishAfter: time.Millisecond}, `{"version":"1.1.0","settle_secs":1}`, tt.before)
			tt.run(p)
			p.secondCommand = p.second.command().CommandID // the settle window has passed
			if r := p.rollout(); r.Status != rollout.Running || p.of().State != rollout.NodeUpdated {
				t.Errorf("%s, %q, %+v", r.Status, r.Reason, p.of())
			}
		})
	}
}

// age moves the time of all commands of a rollout back.
func (p *pair) age(d time.Duration) {
	p.t.Helper()
	stored, err := p.Store.Rollout(p.t.Context(), p.id)
	if err != nil {
		p.t.Fatal(err)
	}
	var r rollout.Rollout
	if err := json.Unmarshal(stored.State, &r); err != nil {
		p.t.Fatal(err)
	}
	for i := range r.Nodes {
		if n := &r.Nodes[i]; !n.Since.IsZero() {
			n.Since, n.SinceUp = n.Since.Add(-d), 0 // as in the state of an earlier version
		}
	}
	if stored.State, err = json.Marshal(r); err != nil {
		p.t.Fatal(err)
	}
	if err := p.Store.SaveRollout(p.t.Context(), stored, nil, nil); err != nil {
		p.t.Fatal(err)
	}
}

// A wave waits for an unproven node, which is counted apart and shown with what it waits
// for. At the time limit the rollout pauses with its name, and goes on without it when an
// operator resumes. A late outcome counts.
func TestUnprovenNodesOfARollout(t *testing.T) {
	t.Parallel()
	p := startPair(t, server.Config{}, `{"version":"1.1.0","settle_secs":0}`, nil)
	p.first.reports(p.command, release.Staged, "1.0.0", "1.1.0", "staged")
	p.first.conn.Close()
	p.first = p.again(p.firstReg, "1.1.0")
	p.first.trial("1.1.0", wire.TrialUnproven, "an answer")
	p.until("it counts as unproven", func() bool { return p.rollout().Counts[rollout.NodeUnproven] == 1 })
	r, n := p.rollout(), p.of()
	if r.Status != rollout.Running || r.Wave != 0 || n.Code != "" || n.Hold == nil || n.Hold.Reason != "an answer" {
		t.Errorf("%s in wave %d, %+v", r.Status, r.Wave, n)
	}
	p.age(time.Hour)
	p.until("the pause", func() bool { return p.rollout().Status == rollout.Paused })
	if r := p.rollout(); r.Reason != "1 node unproven ("+p.firstReg.NodeID+") in wave 1 of 2" || r.Counts[rollout.NodeFailed] != 0 || r.Counts[rollout.NodeUnproven] != 1 {
		t.Errorf("%q, %v", r.Reason, r.Counts)
	}
	p.into(http.StatusOK, "POST", "/api/v1/rollouts/"+p.id+"/resume", p.seen(p.id), nil)
	p.second.command()
	if n := p.of(); n.State != rollout.NodeUnproven {
		t.Errorf("after it was resumed: %+v", n)
	}
	p.first.reports(p.command, release.RolledBack, "1.1.0", "1.0.0", "the link of 1.1.0 is broken")
	p.until("the rollback counts", func() bool { return p.rollout().Counts[rollout.NodeRolledBack] == 1 })
	if r := p.rollout(); r.Status != rollout.Paused || r.Reason != "1 node rolled back in wave 2 of 2" {
		t.Errorf("%s, %q", r.Status, r.Reason)
	}
}

// A newer version that an operator requested takes the place of an unproven one: the
// rollout goes on without the node.
func TestASupersededNodeOfARollout(t *testing.T) {
	t.Parallel()
	p := startPair(t, server.Config{}, `{"version":"1.1.0","settle_secs":0}`, nil)
	p.first.reports(p.command, release.Staged, "1.0.0", "1.1.0", "staged")
	p.first.conn.Close()
	p.first = p.again(p.firstReg, "1.1.0")
	p.first.trial("1.1.0", wire.TrialUnproven, "an answer")
	p.into(http.StatusAccepted, "POST", "/api/v1/nodes/"+p.firstReg.NodeID+"/upgrade", `{"version":"1.2.0"}`, nil)
	p.first.command()
	p.first.reports(p.command, release.Superseded, "1.0.0", "1.1.0", "1.2.0 took its place")
	p.second.command()
	if r := p.rollout(); r.Status != rollout.Running || r.Counts[rollout.NodeSkipped] != 1 || p.of().State != rollout.NodeSkipped {
		t.Errorf("%s, %v", r.Status, r.Counts)
	}
}

// An upgrade that completed and rolls back under guard, in the settle window, counts as
// rolled back, and pauses the rollout.
func TestARollbackUnderGuardPausesTheRollout(t *testing.T) {
	t.Parallel()
	p := startPair(t, server.Config{}, `{"version":"1.1.0"}`, nil)
	p.first = p.kept(p.first, p.firstReg, p.command)
	p.first.trial("1.1.0", wire.TrialGuard, "")
	p.until("the settle window", func() bool { return p.rollout().Status == rollout.Settling })
	p.first.reports(p.command, release.RolledBack, "1.1.0", "1.0.0", "exit status 1")
	p.until("the pause", func() bool { return p.rollout().Status == rollout.Paused })
	if r := p.rollout(); r.Reason != "1 node rolled back in wave 1 of 2" || p.of().Message != "exit status 1" {
		t.Errorf("%q, %+v", r.Reason, p.of())
	}
}

// The time limit of a rollout does not run while no manager runs.
func TestARolloutAndAnOutage(t *testing.T) {
	t.Parallel()
	for away, paused := range map[time.Duration]bool{2 * time.Hour: false, time.Hour: true} {
		p := startPair(t, server.Config{}, `{"version":"1.1.0","limit_secs":3600}`, nil)
		p.first.reports(p.command, release.Staged, "1.0.0", "1.1.0", "staged")
		p.Close() // before the command grows old, so that the rollout is not paused here
		p.age(150 * time.Minute)
		p.restart(away)
		p.first = p.again(p.firstReg, "1.1.0")
		p.first.synced("back")
		if paused {
			p.until("the pause", func() bool { return p.rollout().Status == rollout.Paused })
			continue
		}
		p.first.reports(p.command, release.Completed, "1.0.0", "1.1.0", "healthy")
		p.until("it is updated", func() bool { return p.of().State == rollout.NodeUpdated })
		if r := p.rollout(); r.Status != rollout.Settling {
			t.Errorf("away for %v: %s, %q", away, r.Status, r.Reason)
		}
	}
}

// Nobody vanishes in an outage of the manager: an absence does not run either.
func TestNobodyVanishesInAnOutage(t *testing.T) {
	t.Parallel()
	for away, vanishes := range map[time.Duration]bool{2 * time.Hour: false, time.Minute: true} {
		p := startPair(t, server.Config{}, `{"version":"1.1.0","settle_secs":1}`, nil)
		p.first = p.kept(p.first, p.firstReg, p.command)
		p.until("the settle window", func() bool { return p.rollout().Status != rollout.Running || p.of().State == rollout.NodeUpdated })
		p.Close()
		if err := p.Store.RecordConnect(t.Context(), p.firstReg.NodeID, "1.1.0", "127.0.0.1", time.Now().Add(-2*time.Hour)); err != nil {
			t.Fatal(err)
		}
		p.restart(away)
		if vanishes {
			p.until("the pause", func() bool { return p.rollout().Status == rollout.Paused && p.of().Code == rollout.Vanished })
			continue
		}
		p.again(p.secondReg, "1.0.0").command() // the next wave begins
		if n := p.of(); n.State != rollout.NodeUpdated {
			t.Errorf("away for %v: %+v", away, n)
		}
	}
}
