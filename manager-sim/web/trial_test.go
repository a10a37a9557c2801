package web_test

import (
	"strings"
	"testing"
)

// The list of nodes and the page of a node show how far a trial is, and what an unproven
// version waits for.
func TestTrialsAreShown(t *testing.T) {
	t.Parallel()
	f, p := overFake(t)
	f.on("GET /api/v1/groups", 200, object{"groups": []object{}})
	f.on("GET /api/v1/pending-nodes", 200, object{"nodes": []object{}})
	f.on("GET /api/v1/nodes/{id}/commands", 200, object{"commands": []object{}})
	f.on("GET /api/v1/nodes/{id}/actions", 200, object{"actions": []object{}})
	f.on("GET /api/v1/nodes/{id}/connections", 200, object{"connections": []object{}})
	f.on("GET /api/v1/events", 200, object{"events": []object{}})
	chip := func(word string) string { return "</span>" + word + "</span>" }
	var nodes []object
	for id, tt := range map[string]struct {
		node       object
		chip, line string
	}{
		"trial":      {object{"upgrade_state": "proving", "trial": "trial"}, "on trial", ""},
		"away":       {object{"upgrade_state": "proving", "trial": "trial", "manager_away_secs": 7}, "on trial", "on trial (manager was away)"},
		"away-early": {object{"upgrade_state": "staged", "online": false, "manager_away_secs": 7}, "on trial", "on trial (manager was away)"},
		"restarting": {object{"upgrade_state": "staged", "online": false}, "restarting", ""},
		"guard":      {object{"upgrade_state": "updated", "target_version": "1.0.0", "trial": "guard"}, "updated", "under guard"},
		"stale":      {object{"upgrade_state": "updated", "target_version": "1.0.0", "trial": "trial"}, "updated", ""},
		"unproven": {object{"upgrade_state": "proving", "trial": "unproven", "hold": object{"reason": "an <b>answer</b>", "since": stamp}}, "unproven",
			"unproven: waits for an <b>answer</b>, since 2026-03-04 05:06:07 UTC"},
		"unknown": {object{"upgrade_state": "idle", "trial": "unproven"}, "unproven", "unproven: waits for a proof of its link to the manager"},
		"stick":   {object{"upgrade_state": "idle", "trial": "trial"}, "on trial", ""},
		"newer":   {object{"upgrade_state": "failed", "error_code": "upgrade_disk_full", "trial": "unproven", "hold": object{"reason": "an answer"}}, "upgrade failed", "unproven: waits for an answer"},
		"newest":  {object{"upgrade_state": "superseded", "target_version": "1.1.0"}, "superseded", ""},
	} {
		n := nodeRecord(id, tt.node)
		nodes = append(nodes, n)
		f.on("GET /api/v1/nodes/"+id, 200, n)
		page := p.get("/admin/nodes/"+id, 200)
		has(t, page, chip(tt.chip))
		if tt.line != "" {
			has(t, page, `<p class="help">`+tt.line+`</p>`)
		} else {
			hasNot(t, page, "on trial</p>", "guard", "unproven")
		}
	}
	f.on("GET /api/v1/nodes", 200, object{"nodes": nodes})
	all := p.get("/admin/nodes", 200)
	for _, text := range []string{"an <b>answer</b>, since 2026-03-04 05:06:07 UTC", "(manager was away)", "under guard", "11 of 11 nodes"} {
		has(t, all, text)
	}
	if strings.Contains(all, "<b>answer") {
		t.Error("a node's text is HTML")
	}
	list := p.get("/admin/nodes?state=unproven", 200)
	has(t, list, "2 of 11 nodes", "/admin/nodes/unknown")
	hasNot(t, list, "/admin/nodes/guard")
}

// A rollout counts unproven nodes apart, shows what each waits for, and names how a node
// fell that had kept the version.
func TestFallenAndUnprovenNodesOfARollout(t *testing.T) {
	t.Parallel()
	f, p := overFake(t)
	f.on("GET /api/v1/groups", 200, object{"groups": []object{}})
	f.on("GET /api/v1/rollouts/r1", 200, object{"id": "r1", "group_id": "g1", "group_name": "Site one", "version": "1.2.0", "status": "paused", "waves": []int{2, 5}, "created_at": stamp,
		"reason": "1 node vanished (n1), 1 node unproven (n2) in wave 1 of 2", "nodes": []object{
			{"id": "n1", "state": "failed", "code": "node_vanished", "message": "offline, last seen 2026-03-04"},
			{"id": "n2", "state": "unproven", "code": "time_limit", "hold": object{"reason": "an <b>answer</b>", "since": stamp}},
			{"id": "n3", "state": "failed", "code": "node_degraded"},
			{"id": "n4", "state": "failed", "code": "node_other_version", "message": "it runs 1.0.0"},
			{"id": "n5", "state": "updated"}}})
	page := p.get("/admin/rollouts/r1", 200)
	has(t, page, "1 node vanished (n1), 1 node unproven (n2)", "4 of 5 finished: 1 updated, 3 failed. 1 unproven.",
		"vanished</span>", "offline for longer than usual", "an <b>answer</b>, since 2026-03-04 05:06:07 UTC", "degraded</span>", "runs another version</span>", "it runs 1.0.0")
	has(t, p.get("/admin/rollouts/r1/abort", 200), "1 unproven node keeps running the new version on trial.")
}
