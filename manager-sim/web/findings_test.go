package web_test

import (
	"strings"
	"testing"
)

// The pages say of a rolled back version what its trial found: the starts, and both probes.
func TestFindingsOfATrial(t *testing.T) {
	t.Parallel()
	f, p := overFake(t)
	node := nodeRecord("n1", object{"upgrade_state": "rolled_back", "target_version": "1.1.0"})
	f.on("GET /api/v1/nodes/n1", 200, node)
	f.on("GET /api/v1/nodes/{id}/connections", 200, object{"connections": []object{}})
	f.on("GET /api/v1/groups", 200, object{"groups": []object{}})
	f.on("GET /api/v1/nodes/{id}/commands", 200, object{"commands": []object{{"command_id": "c1", "version": "1.1.0", "channel": "stable", "requested_by": "alice", "created_at": stamp}}})
	f.on("GET /api/v1/events", 200, object{"total": 2, "events": []object{{"seq": 1, "node_id": "n1", "command_id": "c1", "received_at": stamp, "severity": "critical", "error_code": "upgrade_rolled_back", "message": "rolled back",
		"details": object{"failed_starts": []string{"exit status 3 <b>", ""}, "trial": object{"contradictions": 6, "link": "the link found", "probe": "reached held", "probe_before": "held before", "not_counted": []string{"a reboot"}}}},
		{"seq": 2, "node_id": "n1", "command_id": "c1", "received_at": stamp, "severity": "info", "error_code": "upgrade_staged", "message": "staged", "details": object{"trial": 7}}}})
	for _, path := range []string{"/admin/nodes/n1", "/admin/events"} {
		body := p.get(path, 200)
		has(t, body, "What the trial found", "Start 1 failed", "exit status 3 <b>", "Start 2 failed", "the node does not know why", "Start that did not count", "a reboot",
			"6 times the previous version reached the manager", "the link found", "reached held", "held before")
		if n := strings.Count(body, "What the trial found"); n != 1 {
			t.Errorf("%s: %d events have findings", path, n)
		}
	}
}
