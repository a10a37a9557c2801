package server_test

import (
	"net/http"
	"testing"

	"github.com/bilbycast/edge-agent/manager-sim/api"
)

// A wave that waits for an offline node names it. A moved node is skipped with its group.
func TestAWaveNamesWhomItWaitsFor(t *testing.T) {
	t.Parallel()
	m := start(t)
	n, reg := m.register()
	n.conn.Close()
	m.nodeIs(reg.NodeID, false)
	var a, b struct{ ID string }
	m.into(http.StatusCreated, "POST", "/api/v1/groups", `{"name":"a"}`, &a)
	m.into(http.StatusCreated, "POST", "/api/v1/groups", `{"name":"b"}`, &b)
	m.into(http.StatusOK, "PUT", "/api/v1/nodes/"+reg.NodeID+"/group", `{"group_id":"`+a.ID+`"}`, nil)
	var plan api.RolloutPlan
	m.into(http.StatusAccepted, "POST", "/api/v1/groups/"+a.ID+"/upgrade", `{"version":"1.2.0"}`, &plan)
	var v api.Rollout
	m.into(http.StatusOK, "GET", "/api/v1/rollouts/"+plan.RolloutID, "", &v)
	if want := "waiting for 1 offline node: " + reg.NodeID + " (edge at 127.0.0.1)"; v.WaitingText() != want || v.WaitingFor[0].Name != "edge at 127.0.0.1" || v.WaitingFor[0].Since.IsZero() || v.Acting != "admin" {
		t.Errorf("%q, want %q; %+v", v.WaitingText(), want, v)
	}
	m.into(http.StatusOK, "PUT", "/api/v1/nodes/"+reg.NodeID+"/group", `{"group_id":"`+b.ID+`"}`, nil)
	m.until("the moved node is skipped", func() bool {
		m.into(http.StatusOK, "GET", "/api/v1/rollouts/"+plan.RolloutID, "", &v)
		return v.Nodes[0].State == "skipped"
	})
	if n := v.Nodes[0]; n.Code != "moved" || n.Message != "it is in the group b now" {
		t.Errorf("%+v", n)
	}
}

// A skip that names a waiting node of a rollout that is not paused needs no revision: it decides
// on nothing that its requester has to have seen. Any other one does.
func TestASkipWithoutARevision(t *testing.T) {
	t.Parallel()
	m := start(t)
	n, reg := m.register()
	n.conn.Close()
	m.nodeIs(reg.NodeID, false)
	online, other := m.register()
	online.health("1.0.0")
	online.synced("health")
	var g struct{ ID string }
	m.into(http.StatusCreated, "POST", "/api/v1/groups", `{"name":"a"}`, &g)
	for _, id := range []string{reg.NodeID, other.NodeID} {
		m.into(http.StatusOK, "PUT", "/api/v1/nodes/"+id+"/group", `{"group_id":"`+g.ID+`"}`, nil)
	}
	var plan api.RolloutPlan // which needs no revision either
	m.into(http.StatusAccepted, "POST", "/api/v1/groups/"+g.ID+"/upgrade", `{"version":"1.2.0","strategy":"immediate"}`, &plan)
	path := "/api/v1/rollouts/" + plan.RolloutID
	skip := func(id string) string { return `{"node_id":"` + id + `"}` }
	online.command()
	var v api.Rollout
	m.into(http.StatusPreconditionRequired, "POST", path+"/skip", skip(other.NodeID), nil) // it has a command
	m.into(http.StatusOK, "POST", path+"/pause", "", &v)
	m.into(http.StatusPreconditionRequired, "POST", path+"/skip", skip(reg.NodeID), nil)
	m.into(http.StatusOK, "POST", path+"/resume", `{"revision":"`+v.Decision+`"}`, nil)
	m.into(http.StatusOK, "POST", path+"/skip", skip(reg.NodeID), &v)
	if v.Counts["skipped"] != 1 {
		t.Errorf("%+v", v.Counts)
	}
	m.into(http.StatusPreconditionRequired, "POST", path+"/skip", skip(reg.NodeID), nil) // it is skipped already
	m.into(http.StatusConflict, "POST", path+"/skip", skip("nobody"), nil)
}
