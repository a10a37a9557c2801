package main

import (
	"strings"
	"testing"

	"github.com/bilbycast/edge-agent/cmd/internal/cli"
)

// --repair declares the version the repair, of a node and of a group.
func TestRepair(t *testing.T) {
	t.Parallel()
	m := startManager(t)
	defer m.demo(2, "")()
	ids := m.grouped(2)
	action := func(id string) string {
		list, err := m.client().Commands(t.Context(), id, 1, "")
		if err != nil || len(list.Commands) != 1 {
			t.Fatalf("%+v, %v", list, err)
		}
		return string(list.Commands[0].Action)
	}
	if _, errs, code := m.run("upgrade", ids[0], "1.1.0", "--repair", "--wait"); code != cli.OK {
		t.Fatalf("%d %s", code, errs)
	}
	if a := action(ids[0]); !strings.Contains(a, `"repair":true`) {
		t.Errorf("the command is %s", a)
	}
	if _, errs, code := m.run("rollout", "start", demoGroup, "1.2.0", "--repair", "--settle-secs", "0", "--wait"); code != cli.OK {
		t.Fatalf("%d %s", code, errs)
	}
	for _, id := range ids {
		if a := action(id); !strings.Contains(a, `"repair":true`) || !strings.Contains(a, "1.2.0") {
			t.Errorf("the command is %s", a)
		}
	}
}
