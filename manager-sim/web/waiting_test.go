package web_test

import "testing"

// The page of a rollout names the offline nodes for which it waits, with what is known of them.
func TestARolloutNamesWhomItWaitsFor(t *testing.T) {
	t.Parallel()
	f, p := overFake(t)
	f.full()
	f.on("GET /api/v1/rollouts/r9", 200, object{"id": "r9", "group_id": "g1", "group_name": "Site one", "version": "1.2.0", "status": "running", "waves": []int{2}, "decision": "d.9",
		"waiting_for": []object{{"node_id": "n1-and-more-of-it", "name": "edge at 192.0.2.7", "since": "2026-11-24T03:00:00Z"}, {"node_id": "n2", "since": "2026-11-24T03:00:00Z"}},
		"nodes":       []object{{"id": "n1-and-more-of-it", "state": "waiting"}, {"id": "n2", "state": "waiting"}}})
	has(t, p.get("/admin/rollouts/r9", 200), `href="/admin/nodes/n1-and-more-of-it">n1-and-m</a> (edge at 192.0.2.7), last seen`, `href="/admin/nodes/n2">n2</a>, last seen`)
}
