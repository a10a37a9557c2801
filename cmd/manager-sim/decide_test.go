package main

import (
	"strings"
	"testing"

	"github.com/bilbycast/edge-agent/cmd/internal/cli"
	"github.com/bilbycast/edge-agent/manager-sim/rollout"
)

// On a terminal, a decision without --revision waits for a person, who sees what is decided.
func TestDecisionsAskOnATerminal(t *testing.T) {
	t.Parallel()
	m := startManager(t)
	show := m.pausedRollout()
	before := show()
	node := before.Nodes[0].ID
	for _, args := range [][]string{{"resume", "site one"}, {"retry", "site one"}, {"skip", "site one", node}} {
		_, errs, code := m.answer("n\n", append([]string{"rollout"}, args...)...)
		asked := strings.Index(errs, "Continue? [y/N]")
		if shown := strings.Index(errs, "upgrade_checksum_mismatch"); code != cli.Failed || shown < 0 || asked < shown || !strings.Contains(errs, before.ID) {
			t.Errorf("%s, not confirmed: exit code %d\n%s", args[0], code, errs)
		}
		if r := show(); r.Status != rollout.Paused || r.Decision != before.Decision {
			t.Fatalf("%s changed the rollout all the same: %+v", args[0], r)
		}
	}
	if out, errs, code := m.answer("y\n", "rollout", "skip", "site one", node); code != cli.OK || !strings.Contains(out, "1 skipped") || !strings.Contains(errs, node+".\nContinue?") {
		t.Errorf("confirmed: exit code %d\n%s%s", code, out, errs)
	}
	for _, flags := range [][]string{{"--yes"}, {"--revision", "another"}} {
		if _, errs, code := m.answer("n\n", append([]string{"rollout", "resume", "site one"}, flags...)...); code == cli.Failed || strings.Contains(errs, "Continue?") {
			t.Errorf("%s: exit code %d\n%s", flags, code, errs)
		}
	}
}
