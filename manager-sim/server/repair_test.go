package server_test

import (
	"net/http"
	"strings"
	"testing"

	"github.com/bilbycast/edge-agent/manager-sim/api"
	"github.com/bilbycast/edge-agent/wire"
)

// auditOf returns the details of the audit trail's entries with an action.
func (m *manager) auditOf(action string) (details []string) {
	m.t.Helper()
	var log api.AuditList
	m.into(http.StatusOK, "GET", "/api/v1/audit-log?action="+action, "", &log)
	for _, e := range log.Entries {
		details = append(details, string(e.Details))
	}
	return details
}

// A request may declare its version the repair. The command tells the node, and the audit
// trail keeps it. Without it neither has the field.
func TestARepairOfANode(t *testing.T) {
	t.Parallel()
	for body, repair := range map[string]bool{`{"version":"1.1.0","repair":true}`: true, `{"version":"1.1.0"}`: false} {
		m := start(t)
		n, reg := m.register()
		m.into(http.StatusAccepted, "POST", "/api/v1/nodes/"+reg.NodeID+"/upgrade", body, nil)
		if a := n.command().Action; a.Repair != repair || strings.Contains(string(a.Raw), "repair") != repair {
			t.Errorf("%s: the node gets %s", body, a.Raw)
		}
		want := `{"channel":"stable","version":"1.1.0"}`
		if repair {
			want = `{"channel":"stable","repair":true,"version":"1.1.0"}`
		}
		if got := m.auditOf("node.upgrade.request"); len(got) != 1 || got[0] != want {
			t.Errorf("%s: audit %q", body, got)
		}
	}
}

// Each command of a rollout has the field, also those of a later wave and of a manager that
// restarted, because the rollout keeps it.
func TestARepairOfAGroup(t *testing.T) {
	t.Parallel()
	m := start(t)
	g, _ := m.group(3, nil)
	var plan api.RolloutPlan
	m.into(http.StatusAccepted, "POST", "/api/v1/groups/"+g+"/upgrade", `{"version":"1.1.0","settle_secs":0,"repair":true}`, &plan)
	m.until("the end", func() bool { return m.rollout(plan.RolloutID).Status == "completed" })
	var r api.Rollout
	m.into(http.StatusOK, "GET", "/api/v1/rollouts/"+plan.RolloutID, "", &r)
	if !r.Repair || len(r.Nodes) != 3 {
		t.Errorf("%+v", r)
	}
	for _, n := range r.Nodes {
		var list api.CommandList
		m.into(http.StatusOK, "GET", "/api/v1/nodes/"+n.ID+"/commands", "", &list)
		var a wire.Action
		if err := a.UnmarshalJSON(list.Commands[0].Action); err != nil || !a.Repair {
			t.Errorf("%s: %s, %v", n.ID, list.Commands[0].Action, err)
		}
	}
	if got := m.auditOf("group.upgrade.schedule"); len(got) != 1 || !strings.Contains(got[0], `"repair":true`) {
		t.Errorf("audit %q", got)
	}
}
