package server_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/bilbycast/edge-agent/manager-sim/fleet"
	"github.com/bilbycast/edge-agent/wire"
)

type rolloutOf struct {
	ID       string `json:"id"`
	Status   string `json:"status"`
	Reason   string `json:"reason"`
	Decision string `json:"decision"`
	Wave     int    `json:"wave"`

	Revision int
	Counts   map[string]int `json:"counts"`
	Nodes    []struct{ ID, State, Code string }
}

// into makes a call that must answer with the status, and decodes the answer.
func (m *manager) into(status int, method, path, body string, to any) {
	m.t.Helper()
	code, text := m.call(method, path, body)
	if code != status {
		m.t.Fatalf("%s %s: %d %s, want %d", method, path, code, text, status)
	}
	if to != nil {
		if err := json.Unmarshal([]byte(text), to); err != nil {
			m.t.Fatal(err)
		}
	}
}

// seen returns the body of an act on a rollout as it is now.
func (m *manager) seen(rolloutID string) string {
	m.t.Helper()
	return fmt.Sprintf(`{"revision":%q}`, m.rollout(rolloutID).Decision)
}

// group starts k simulated nodes and puts them into a group.
func (m *manager) group(k int, fate func(node int, version string) fleet.Outcome) (groupID string, f *fleet.Fleet) {
	m.t.Helper()
	f, err := fleet.Start(m.t.Context(), fleet.Config{
		URL: "ws" + strings.TrimPrefix(m.http.URL, "http") + wire.Path, Token: registration, Nodes: k, Step: 20 * time.Millisecond, Outcome: fate})
	if err != nil {
		m.t.Fatal(err)
	}
	m.t.Cleanup(f.Wait) // the context of the test is done by then
	var g struct{ ID string }
	m.into(http.StatusCreated, "POST", "/api/v1/groups", `{"name":"site one"}`, &g)
	var list struct {
		Nodes []struct {
			ID           string
			Capabilities []string
		}
	}
	m.until("all nodes to be there", func() bool {
		m.into(http.StatusOK, "GET", "/api/v1/nodes", "", &list)
		for _, n := range list.Nodes {
			if len(n.Capabilities) == 0 {
				return false
			}
		}
		return len(list.Nodes) == k
	})
	for _, n := range list.Nodes {
		m.into(http.StatusOK, "PUT", "/api/v1/nodes/"+n.ID+"/group", `{"group_id":"`+g.ID+`"}`, nil)
	}
	return g.ID, f
}

func (m *manager) until(what string, holds func() bool) {
	m.t.Helper()
	deadline := time.Now().Add(30 * time.Second)
	for !holds() {
		if time.Now().After(deadline) {
			m.t.Fatalf("waiting for %s", what)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

func (m *manager) rollout(id string) rolloutOf {
	m.t.Helper()
	var r rolloutOf
	m.into(http.StatusOK, "GET", "/api/v1/rollouts/"+id, "", &r)
	return r
}

// actions returns the actions in the audit trail about the group's rollouts, oldest first.
func (m *manager) actions() []string {
	m.t.Helper()
	var log struct {
		Entries []struct {
			Action  string
			Details json.RawMessage
		}
	}
	m.into(http.StatusOK, "GET", "/api/v1/audit-log", "", &log)
	var out []string
	for i := len(log.Entries) - 1; i >= 0; i-- {
		if e := log.Entries[i]; strings.HasPrefix(e.Action, "group.upgrade") {
			out = append(out, e.Action+" "+string(e.Details))
		}
	}
	return out
}

func TestRolloutThatGoesWell(t *testing.T) {
	t.Parallel()
	m := start(t)
	g, f := m.group(20, nil)
	var plan struct {
		RolloutID string     `json:"rollout_id"`
		NodeCount int        `json:"node_count"`
		Waves     [][]string `json:"waves"`
	}
	m.into(http.StatusOK, "POST", "/api/v1/groups/"+g+"/upgrade", `{"version":"1.1.0","dry_run":true}`, &plan)
	if plan.RolloutID != "" || plan.NodeCount != 20 || len(plan.Waves) != 3 || len(plan.Waves[0]) != 2 || len(plan.Waves[1]) != 8 || len(plan.Waves[2]) != 10 {
		t.Errorf("the plan is %+v", plan)
	}
	m.into(http.StatusAccepted, "POST", "/api/v1/groups/"+g+"/upgrade", `{"version":"1.1.0","settle_secs":0}`, &plan)
	if code, text := m.call("POST", "/api/v1/groups/"+g+"/upgrade", `{"version":"1.1.0"}`); code != http.StatusConflict || !strings.Contains(text, "active rollout") {
		t.Errorf("a second one: %d %s", code, text)
	}
	m.until("the end", func() bool { return m.rollout(plan.RolloutID).Status == "completed" })
	if r := m.rollout(plan.RolloutID); r.Counts["updated"] != 20 {
		t.Errorf("%+v", r)
	}
	for i, k := range f.UpgradesStarted() {
		if k != 1 {
			t.Errorf("node %d obeyed %d times", i, k)
		}
	}
	want := []string{
		`group.upgrade.schedule {"channel":"stable","node_count":20,"strategy":"staged","version":"1.1.0"}`,
		`group.upgrade.complete {"completed_count":20,"version":"1.1.0"}`,
	}
	if got := m.actions(); strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("audit: %q", got)
	}
	if code, text := m.call("POST", "/api/v1/groups/"+g+"/upgrade", `{"version":"1.1.0"}`); code != http.StatusConflict || !strings.Contains(text, "no node is eligible") {
		t.Errorf("once more: %d %s", code, text)
	}
}

// The first failure pauses the rollout. The next waves do not run until an operator has
// decided.
func TestRolloutPauses(t *testing.T) {
	t.Parallel()
	for _, fate := range []fleet.Outcome{fleet.Refused, fleet.RollsBack} {
		t.Run(string(fate), func(t *testing.T) {
			t.Parallel()
			m := start(t)
			mended := make(chan struct{})
			g, f := m.group(10, func(_ int, version string) fleet.Outcome {
				select {
				case <-mended:
					return fleet.Completes
				default:
					return fate
				}
			})
			var plan struct {
				RolloutID string `json:"rollout_id"`
			}
			m.into(http.StatusAccepted, "POST", "/api/v1/groups/"+g+"/upgrade", `{"version":"1.1.0","settle_secs":0}`, &plan)
			m.until("the pause", func() bool { return m.rollout(plan.RolloutID).Status == "paused" })
			r := m.rollout(plan.RolloutID)
			if r.Wave != 0 || r.Counts["waiting"] != 9 || !strings.Contains(r.Reason, "wave 1 of 3") {
				t.Errorf("%+v", r)
			}
			begun := 0
			for _, k := range f.UpgradesStarted() {
				begun += k
			}
			if begun != 1 {
				t.Errorf("%d nodes began", begun)
			}
			act := func(what string, status int, body string) {
				t.Helper()
				m.into(status, "POST", "/api/v1/rollouts/"+plan.RolloutID+"/"+what, body, nil)
			}
			act("pause", http.StatusOK, "") // twice is once
			act("dance", http.StatusNotFound, "")
			act("skip", http.StatusConflict, `{"node_id":"nobody",`+m.seen(plan.RolloutID)[1:])
			close(mended)
			act("retry", http.StatusOK, m.seen(plan.RolloutID))
			m.until("the end", func() bool { return m.rollout(plan.RolloutID).Status == "completed" })
			if r := m.rollout(plan.RolloutID); r.Counts["updated"] != 10 {
				t.Errorf("%+v", r)
			}
			act("abort", http.StatusConflict, "")
			if got := m.actions(); len(got) != 5 || got[1] != `group.upgrade.paused {"failure_count":1,"version":"1.1.0","wave":1}` {
				t.Errorf("audit: %q", got)
			}
		})
	}
}

// An operator can leave out nodes that fail, resume in spite of failures, or abort.
func TestRolloutSkipResumeAbort(t *testing.T) {
	t.Parallel()
	m := start(t)
	g, _ := m.group(4, func(node int, _ string) fleet.Outcome {
		return fleet.Refused
	})
	var plan struct {
		RolloutID string `json:"rollout_id"`
	}
	m.into(http.StatusAccepted, "POST", "/api/v1/groups/"+g+"/upgrade", `{"version":"1.1.0","settle_secs":0}`, &plan)
	path := "/api/v1/rollouts/" + plan.RolloutID
	paused := func(failed int) func() bool {
		return func() bool {
			r := m.rollout(plan.RolloutID)
			return r.Status == "paused" && r.Counts["failed"] == failed
		}
	}
	m.until("the first pause", paused(1))
	for _, n := range m.rollout(plan.RolloutID).Nodes {
		if n.State == "failed" {
			if n.Code != "upgrade_checksum_mismatch" {
				t.Errorf("code %s", n.Code)
			}
			m.into(http.StatusOK, "POST", path+"/skip", fmt.Sprintf(`{"node_id":%q,"revision":%q}`, n.ID, m.rollout(plan.RolloutID).Decision), nil)
		}
	}
	m.into(http.StatusOK, "POST", path+"/resume", m.seen(plan.RolloutID), nil)
	m.until("the second pause", paused(1))
	m.into(http.StatusConflict, "POST", path+"/skip", `{"node_id":"nobody",`+m.seen(plan.RolloutID)[1:], nil)
	m.into(http.StatusOK, "POST", path+"/abort", "", nil)
	if r := m.rollout(plan.RolloutID); r.Status != "aborted" || r.Counts["skipped"] != 1 {
		t.Errorf("%+v", r)
	}
	m.into(http.StatusAccepted, "POST", "/api/v1/groups/"+g+"/upgrade", `{"version":"1.1.0","strategy":"immediate"}`, nil) // the way is free
}

func TestGroupsRefuse(t *testing.T) {
	t.Parallel()
	m := start(t)
	var g struct{ ID string }
	m.into(http.StatusCreated, "POST", "/api/v1/groups", `{"name":"a"}`, &g)
	for _, tt := range []struct {
		status             int
		method, path, body string
	}{
		{http.StatusConflict, "POST", "/api/v1/groups", `{"name":"a"}`},
		{http.StatusBadRequest, "POST", "/api/v1/groups", `{"name":""}`},
		{http.StatusBadRequest, "POST", "/api/v1/groups", `{"name":"<b>"}`},
		{http.StatusBadRequest, "POST", "/api/v1/groups", `{"nom":"a"}`},
		{http.StatusBadRequest, "POST", "/api/v1/groups", `{"name":"two values"} {"name":"b"}`},
		{http.StatusBadRequest, "POST", "/api/v1/groups", `{"name":"and more"} }`},
		{http.StatusNotFound, "GET", "/api/v1/groups/none", ""},
		{http.StatusNotFound, "POST", "/api/v1/groups/none/upgrade", `{"version":"1.1.0"}`},
		{http.StatusBadRequest, "POST", "/api/v1/groups/" + g.ID + "/upgrade", `{"version":"latest"}`},
		{http.StatusBadRequest, "POST", "/api/v1/groups/" + g.ID + "/upgrade", `{"version":"1.1.0","settle_secs":-1}`},
		{http.StatusConflict, "POST", "/api/v1/groups/" + g.ID + "/upgrade", `{"version":"1.1.0"}`}, // it is empty
		{http.StatusConflict, "POST", "/api/v1/groups/" + g.ID + "/upgrade", `{"version":"1.1.0","strategy":"bold"}`},
		{http.StatusNotFound, "PUT", "/api/v1/nodes/none/group", `{"group_id":"` + g.ID + `"}`},
		{http.StatusNotFound, "GET", "/api/v1/rollouts/none", ""},
		{http.StatusNotFound, "POST", "/api/v1/rollouts/none/abort", ""},
	} {
		m.into(tt.status, tt.method, tt.path, tt.body, nil)
	}
}

// A rollout commands a node that carries out another operator's command when that has
// ended, like an offline node when it reconnects. It skips a removed node.
func TestARolloutAndOtherCommands(t *testing.T) {
	t.Parallel()
	m := start(t)
	n, reg := m.register()
	other, gone := m.register()
	var g struct{ ID string }
	m.into(http.StatusCreated, "POST", "/api/v1/groups", `{"name":"site one"}`, &g)
	for _, id := range []string{reg.NodeID, gone.NodeID} {
		m.into(http.StatusOK, "PUT", "/api/v1/nodes/"+id+"/group", `{"group_id":"`+g.ID+`"}`, nil)
	}
	m.into(http.StatusAccepted, "POST", "/api/v1/nodes/"+reg.NodeID+"/upgrade", `{"version":"1.1.0"}`, nil)
	first := n.command()
	var plan struct {
		RolloutID string `json:"rollout_id"`
	}
	m.into(http.StatusAccepted, "POST", "/api/v1/groups/"+g.ID+"/upgrade", `{"version":"1.2.0","strategy":"immediate"}`, &plan)
	if c := other.command(); c.Action.Version != "1.2.0" {
		t.Errorf("the free node gets %s", c.Action.Version)
	}
	n.synced("nothing-came")
	if v := m.node(reg.NodeID); v.TargetVersion != "1.1.0" || v.UpgradeState != "sent" {
		t.Errorf("the busy node: %+v", v)
	}
	n.ack(&wire.CommandAck{CommandID: first.CommandID, Error: "no network", ErrorCode: "upgrade_network_error"})
	m.until("the node is taken", func() bool { return m.node(reg.NodeID).TargetVersion == "1.2.0" })
	if v := m.node(reg.NodeID); v.RequestedBy != "admin" {
		t.Errorf("requested by %q", v.RequestedBy)
	}
	if code, text := m.call("DELETE", "/api/v1/nodes/"+gone.NodeID, ""); code != http.StatusNoContent {
		t.Fatal(code, text)
	}
	var view struct {
		GroupName string `json:"group_name"`
		CreatedBy string `json:"created_by"`
		Nodes     []struct{ ID, State string }
	}
	m.until("the removed node is skipped", func() bool {
		m.into(http.StatusOK, "GET", "/api/v1/rollouts/"+plan.RolloutID, "", &view)
		for _, x := range view.Nodes {
			if x.ID == gone.NodeID {
				return x.State == "skipped"
			}
		}
		return false
	})
	if view.GroupName != "site one" || view.CreatedBy != "admin" {
		t.Errorf("the rollout is %+v", view)
	}
}

// A rollout is for its group: a node that was moved to another group gets no command from
// it, neither in its wave nor by a retry.
func TestARolloutSkipsMovedNodes(t *testing.T) {
	t.Parallel()
	m := start(t)
	n, reg := m.register()
	var a, b struct{ ID string }
	m.into(http.StatusCreated, "POST", "/api/v1/groups", `{"name":"a"}`, &a)
	m.into(http.StatusCreated, "POST", "/api/v1/groups", `{"name":"b"}`, &b)
	m.into(http.StatusOK, "PUT", "/api/v1/nodes/"+reg.NodeID+"/group", `{"group_id":"`+a.ID+`"}`, nil)
	var plan struct {
		RolloutID string `json:"rollout_id"`
	}
	m.into(http.StatusAccepted, "POST", "/api/v1/groups/"+a.ID+"/upgrade", `{"version":"1.2.0"}`, &plan)
	n.reports(n.command().CommandID, "upgrade_disk_full", "1.0.0", "1.2.0", "12 MB are free on /opt")
	var view struct {
		Status string
		Nodes  []struct{ State, Message string }
	}
	path := "/api/v1/rollouts/" + plan.RolloutID
	m.until("the rollout is paused", func() bool {
		m.into(http.StatusOK, "GET", path, "", &view)
		return view.Status == "paused"
	})
	if view.Nodes[0].Message != "12 MB are free on /opt" {
		t.Errorf("the node is shown as %+v", view.Nodes[0])
	}
	m.into(http.StatusOK, "PUT", "/api/v1/nodes/"+reg.NodeID+"/group", `{"group_id":"`+b.ID+`"}`, nil)
	m.into(http.StatusOK, "POST", path+"/retry", m.seen(plan.RolloutID), nil)
	m.until("the node is skipped", func() bool {
		m.into(http.StatusOK, "GET", path, "", &view)
		return view.Nodes[0].State == "skipped"
	})
	var list struct{ Commands []any }
	if m.into(http.StatusOK, "GET", "/api/v1/nodes/"+reg.NodeID+"/commands", "", &list); len(list.Commands) != 1 {
		t.Errorf("%d commands", len(list.Commands))
	}
}
