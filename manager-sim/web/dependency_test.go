package web_test

import (
	"testing"

	"github.com/bilbycast/edge-agent/manager-sim/rollout"
	"github.com/bilbycast/edge-agent/release"
)

// The pages show a rollback for what is probably a dependency as that, and nowhere as a
// failure of the version.
func TestARollbackForADependencyOnThePages(t *testing.T) {
	t.Parallel()
	f, p := overFake(t)
	const words = "rolled back, probably a dependency"
	node := nodeRecord("n1", object{"upgrade_state": "rolled_back", "target_version": "1.1.0", "version": "1.0.0", "dependency": true, "error_code": release.RolledBack, "error": "no route to db"})
	f.on("GET /api/v1/nodes/n1", 200, node)
	f.on("GET /api/v1/nodes", 200, object{"nodes": []object{node}})
	f.on("GET /api/v1/nodes/{id}/actions", 200, object{"actions": []object{}})
	f.on("GET /api/v1/nodes/{id}/connections", 200, object{"connections": []object{}})
	f.on("GET /api/v1/groups", 200, object{"groups": []object{{"id": "g1", "name": "Site one"}}})
	f.on("GET /api/v1/pending-nodes", 200, object{"nodes": []object{}})
	f.on("GET /api/v1/groups/g1", 200, object{"id": "g1", "name": "Site one", "nodes": []object{node}})
	f.on("GET /api/v1/nodes/{id}/commands", 200, object{"commands": []object{{"command_id": "c1", "version": "1.1.0", "channel": "stable", "created_at": stamp}}})
	f.on("GET /api/v1/events", 200, object{"total": 1, "events": []object{{"seq": 1, "node_id": "n1", "command_id": "c1", "received_at": stamp, "severity": "critical", "error_code": release.RolledBack, "message": "rolled back", "details": object{"dependency": true}}}})
	r := object{"id": "r1", "group_id": "g1", "group_name": "Site one", "version": "1.1.0", "channel": "stable", "strategy": "staged", "status": rollout.Paused, "waves": []int{2}, "created_at": stamp,
		"nodes": []object{{"id": "n1", "state": rollout.NodeDependency, "code": rollout.Dependency, "message": "no route to db", "attempt": 1}, {"id": "n2", "state": rollout.NodeUpdated, "attempt": 1}}}
	f.on("GET /api/v1/rollouts", 200, object{"rollouts": []object{r}})
	f.on("GET /api/v1/rollouts/r1", 200, r)
	meaning := release.Explain(release.RolledBack).Meaning // it blames the version
	for path, want := range map[string][]string{
		"/admin/nodes/n1": {words + "</span> <span>from 1.1.0", "no route to db", "Probably a dependency of the node is down", "Bring back what the service depends on", "after the rollback the check of the previous version failed as well"},
		"/admin/nodes":    {words + "</span>", "no route to db"},
		"/admin/nodes?state=rolled+back%2C+probably+a+dependency": {words + "</span>", "no route to db"},
		"/admin/groups/g1":   {words + "</span>", "2 of 2 finished, 1 " + words},
		"/admin/rollouts":    {"2 of 2 finished, 1 " + words},
		"/admin/rollouts/r1": {"2 of 2 finished: 1 updated, 1 " + words + ".", `id="retry"`, words + "</span>", "no route to db", "Probably a dependency of the node is down"},
		"/admin/events":      {"Probably a dependency", "after the rollback the check of the previous version failed as well"},
	} {
		body := p.get(path, 200)
		has(t, body, want...)
		hasNot(t, body, meaning, "1 failed", "upgrade failed</span>")
	}
}
