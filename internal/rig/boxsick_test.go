package rig_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/bilbycast/edge-agent/internal/rig"
	"github.com/bilbycast/edge-agent/manager-sim/api"
	"github.com/bilbycast/edge-agent/manager-sim/fakerelease"
)

// A node whose own check fails all along refuses a good release, instead of rolling it back.
// As the repair the release is accepted, and its own check decides. A service that an
// operator stopped is not upgraded.
func TestUnderSystemdAttachedSickNode(t *testing.T) {
	b := setupAttached(t, rig.NodeConfig{Probe: []string{"/usr/bin/test", "-e", rig.BoxRoot + "/current/well"}})
	well := filepath.Join(t.TempDir(), "well")
	if err := os.WriteFile(well, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	for _, v := range []string{"1.1.0", "1.2.0"} {
		if _, err := b.Publish(fakerelease.Options{Version: v, Binary: app(t, v, serves), BinaryName: "app", Extra: map[string]string{"well": well}}); err != nil {
			t.Fatal(err)
		}
	}

	mark, _ := b.upgrade("1.1.0")
	if e := b.event(mark, "upgrade_unhealthy"); !strings.Contains(e.Message, "health.command: exit status 1") {
		t.Errorf("the event says %q", e.Message)
	}
	b.runs("1.0.0", "stable")
	if got := b.sh("ls " + rig.BoxRoot + "/versions"); got != "1.0.0" {
		t.Errorf("staged: %s", got)
	}

	mark = b.Timeline.Mark()
	if _, err := b.Client.UpgradeNode(b.ctx, b.id, api.NodeUpgrade{Version: "1.1.0", AllowUnlisted: true, Repair: true}); err != nil {
		t.Fatal(err)
	}
	if e := b.event(mark, "upgrade_staged"); !strings.Contains(e.Message, "an operator declared it the repair") {
		t.Errorf("the event says %q", e.Message)
	}
	b.event(mark, "upgrade_completed")
	b.runs("1.1.0", "stable")

	b.sh("systemctl stop edge.service")
	mark, _ = b.upgrade("1.2.0")
	if e := b.event(mark, "upgrade_unhealthy"); !strings.Contains(e.Message, "edge.service is inactive") {
		t.Errorf("the event says %q", e.Message)
	}
	if got := b.sh("systemctl is-active edge.service || :"); got != "inactive" {
		t.Errorf("edge.service is %s", got)
	}
	b.sh("systemctl start edge.service")
	mark, _ = b.upgrade("1.2.0")
	b.event(mark, "upgrade_completed")
	b.runs("1.2.0", "stable")
}
