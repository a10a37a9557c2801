package main

import (
	"bytes"
	"testing"

	"github.com/bilbycast/edge-agent/manager-sim/api"
	"github.com/bilbycast/edge-agent/manager-sim/rollout"
)

// A failed node is printed with its own message first, then with the meaning and the
// remedy of the code, if the code is known.
func TestRolloutShowsFailures(t *testing.T) {
	t.Parallel()
	r := api.Rollout{ID: "r", Version: "1.1.0", Status: rollout.Paused, Waves: []int{3}}
	add := func(id string, state rollout.NodeState, code, message string) {
		r.Nodes = append(r.Nodes, api.RolloutNode{ID: id, State: state, Code: code, Message: message})
	}
	const known = "upgrade_rolled_back"
	add("n1", "rolled_back", known, "exit \x1b[1m2")
	add("n2", "failed", "upgrade_of_the_future", "no such thing")
	add("n3", "updated", "", "")
	add("n4", "failed", "upgrade_of_the_future", "")
	add("n5", rollout.NodeDependency, rollout.Dependency, "no route to db")
	text := "  n1 rolled back (" + known + "): exit ?[1m2\n    " + meaning(known) + "\n    " + remedy(known) + "\n" +
		"  n2 failed (upgrade_of_the_future): no such thing\n  n4 failed (upgrade_of_the_future)\n"
	dependency := "  n5 rolled back, probably a dependency (dependency): no route to db\n    " + meaning("dependency") + "\n    " + remedy("dependency") + "\n"
	text += dependency
	head := summary(r) + "\n"
	for _, tt := range []struct {
		shown map[string]string
		want  string
	}{{nil, head + text}, {map[string]string{}, head + text}, {map[string]string{"n1": failureOf(r.Nodes[0]), "n4": "another"},
		head + "  n2 failed (upgrade_of_the_future): no such thing\n  n4 failed (upgrade_of_the_future)\n" + dependency}} {
		var out bytes.Buffer
		printRollout(&out, r, tt.shown)
		if out.String() != tt.want {
			t.Errorf("%q\nwant\n%q", out.String(), tt.want)
		}
		if tt.shown == nil {
			continue
		}
		out.Reset()
		if printRollout(&out, r, tt.shown); out.String() != head {
			t.Errorf("a second time: %q", out.String())
		}
	}
}
