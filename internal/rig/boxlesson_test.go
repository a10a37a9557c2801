package rig_test

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/bilbycast/edge-agent/internal/box"
	"github.com/bilbycast/edge-agent/internal/rig"
	"github.com/bilbycast/edge-agent/manager-sim/api"
	"github.com/bilbycast/edge-agent/manager-sim/fakerelease"
)

// The manager and the node refuse a second command during a trial, and the trial
// continues.
func TestUnderSystemdASecondCommandInATrial(t *testing.T) {
	b := setupBox(t, rig.NodeConfig{HoldSecs: 4}, box.Options{})
	b.publish("1.1.0", "")
	b.publish("1.2.0", "")
	mark, _ := b.upgrade("1.1.0")
	b.wait(mark, "the trial", func(e rig.Entry) bool { return e.Type == "authenticated" && e.Version == "1.1.0" })
	if _, err := b.Upgrade(b.ctx, b.id, "1.2.0"); !api.IsCode(err, "upgrade_in_progress") {
		t.Errorf("the manager answers %v", err)
	}
	second := b.Timeline.Mark()
	if err := b.UpgradeInAnyCase(b.ctx, b.id, "1.2.0"); err != nil {
		t.Fatal(err)
	}
	if e := b.event(second, "upgrade_in_progress"); !strings.Contains(e.Message, "1.1.0 is on trial") {
		t.Errorf("the event says %q", e.Message)
	}
	b.event(mark, "upgrade_completed")
	b.ends("1.1.0", "stable", "upgrade completed")
}

// A node whose unit's start limit could end the restarts before the rollback refuses
// upgrades and reports why. With a corrected unit it accepts them.
func TestUnderSystemdAStartLimit(t *testing.T) {
	b := setupBox(t, rig.NodeConfig{MaxBootAttempts: 3}, box.Options{})
	dropIn, err := b.node.Path(b.ctx, "/etc/systemd/system/edge.service.d")
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dropIn, "limit.conf")
	if err := os.Mkdir(dropIn, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte("[Unit]\nStartLimitIntervalSec=1h\nStartLimitBurst=3\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	restart := func() {
		mark := b.Timeline.Mark()
		if _, err := b.node.Exec(b.ctx, "sh", "-c", "systemctl daemon-reload && systemctl reset-failed; systemctl restart edge.service"); err != nil {
			t.Fatal(err)
		}
		b.wait(mark, "the restart", func(e rig.Entry) bool { return e.Type == "authenticated" })
	}
	restart()
	b.publish("1.2.0", fakerelease.ExitsAtOnce)
	mark := b.Timeline.Mark()
	if _, err := b.Upgrade(b.ctx, b.id, "1.2.0"); err == nil { // the manager may not know yet
		if e := b.event(mark, "upgrade_internal"); !strings.Contains(e.Message, "set StartLimitIntervalSec=0") {
			t.Errorf("the event says %q", e.Message)
		}
	}
	b.ends("1.0.0", "stable", "upgrades are not possible")
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	restart()
	for tick := time.Tick(50 * time.Millisecond); ; <-tick {
		if n, err := b.Client.Node(b.ctx, b.id); err != nil {
			t.Fatal(err)
		} else if slices.Contains(n.Capabilities, "upgrade") {
			break
		}
	}
	mark, _ = b.upgrade("1.2.0")
	b.back(mark, 3)
	b.ends("1.0.0", "rolled_back", "rolled back: 1.2.0")
}
