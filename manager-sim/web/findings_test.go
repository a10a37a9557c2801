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
	f.on("GET /api/v1/nodes/{id}/actions", 200, object{"actions": []object{}})
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

// The page of a node shows events that belong to no command: of a release from a stick, or
// of a command of another manager.
func TestEventsWithoutACommand(t *testing.T) {
	t.Parallel()
	command := object{"command_id": "c1", "version": "1.1.0", "channel": "stable", "requested_by": "alice", "created_at": stamp}
	event := func(seq int, command, message string) object {
		return object{"seq": seq, "node_id": "n1", "command_id": command, "received_at": stamp, "severity": "critical", "error_code": "upgrade_rolled_back", "message": message,
			"details": object{"journal": []string{"a <b>line</b>"}, "trial": object{"link": "what " + message + " found"}}}
	}
	events := []object{event(2, "unknown", "another manager"), event(1, "", "a stick")}
	for name, tt := range map[string]struct {
		commands []object
		next     string
		events   []object
		shown    []string
		not      []string
	}{
		"no command":     {[]object{}, "", events, []string{"Without a command", "not requested here", "what a stick found", "what another manager found", "a <b>line</b>"}, []string{"No upgrades yet"}},
		"a command":      {[]object{command}, "", events, []string{"command c1", "Without a command", "what a stick found", "what another manager found"}, nil},
		"older commands": {[]object{command}, "more", events, []string{"Without a command", "what a stick found"}, []string{"what another manager found"}},
		"no event":       {[]object{}, "", []object{}, []string{"No upgrades yet"}, []string{"Without a command"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f, p := overFake(t)
			f.on("GET /api/v1/nodes/{id}/actions", 200, object{"actions": []object{}})
			f.on("GET /api/v1/nodes/{id}/connections", 200, object{"connections": []object{}})
			f.on("GET /api/v1/groups", 200, object{"groups": []object{}})
			f.on("GET /api/v1/nodes/n1", 200, nodeRecord("n1", object{"upgrade_state": "idle"}))
			f.on("GET /api/v1/nodes/{id}/commands", 200, object{"commands": tt.commands, "next": tt.next})
			f.on("GET /api/v1/events", 200, object{"total": len(tt.events), "events": tt.events})
			page := p.get("/admin/nodes/n1", 200)
			has(t, page, tt.shown...)
			hasNot(t, page, tt.not...)
		})
	}
}
