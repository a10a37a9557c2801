package rig_test

import (
	"strings"
	"testing"

	"github.com/bilbycast/edge-agent/internal/box"
	"github.com/bilbycast/edge-agent/internal/rig"
)

// Five restarts by an operator and three power cuts end starts of a good version before it
// has proved healthy. None of them counts, and the version is kept in the end.
func TestUnderSystemdStartsThatOthersEnd(t *testing.T) {
	b := setupBox(t, rig.NodeConfig{HoldSecs: 4}, box.Options{})
	b.publish("1.1.0", "")
	mark := b.Timeline.Mark()
	b.upgrade("1.1.0")
	b.onTrial()
	for range 5 {
		// Before READY=1 as well: the next restart comes when the new start has begun.
		b.sh("export ID=$(systemctl show -P InvocationID edge); systemctl restart --no-block edge.service; timeout 20 sh -c 'while test $(systemctl show -P InvocationID edge) = $ID; do sleep 0.05; done'")
	}
	b.sh("systemctl restart edge.service")
	for range 3 {
		if err := b.node.Cut(b.ctx, false); err != nil {
			t.Fatal(err)
		}
		if err := b.node.Boot(b.ctx); err != nil {
			t.Fatal(err)
		}
		b.onTrial()
	}
	st, err := b.node.Status(b.ctx)
	if err != nil || st.Status != "pending_health" || st.BootAttempts != 1 {
		t.Errorf("%+v, %v, want a trial with one start", st, err)
	}
	out := b.sh("/opt/bin/edge-agent status --root " + rig.BoxRoot)
	// In a box the sandbox of the units has the boot id of the real machine, which does not
	// change: a power cut looks like an operator's restart. TestWhichStartsCount has both.
	if strings.Count(out, "not counted") < 5 {
		t.Errorf("status does not list the ends:\n%s", out)
	}
	b.event(mark, "upgrade_completed")
	b.ends("1.1.0", "stable", "")
}
