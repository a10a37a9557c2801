package rig_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/bilbycast/edge-agent/internal/box"
	"github.com/bilbycast/edge-agent/internal/rig"
	"github.com/bilbycast/edge-agent/manager-sim/fakerelease"
)

// unavailable waits until the manager shows that the node refuses upgrades for that reason;
// "": that it offers them.
func (b *inBox) unavailable(reason string) {
	b.t.Helper()
	for tick := time.Tick(50 * time.Millisecond); ; {
		n, err := b.Client.Node(b.ctx, b.id)
		if err == nil && n.Online && strings.Contains(n.UpgradeUnavailable, reason) && slices.Contains(n.Capabilities, "upgrade") == (reason == "") {
			return
		}
		select {
		case <-b.ctx.Done():
			b.t.Fatalf("want %q; at the manager: %+v, %v", reason, n, err)
		case <-tick:
		}
	}
}

// A key of the newer version is written to config.toml together with the upgrade. The
// version is rolled back: the old one runs, is connected, and names the key as the reason
// for which it refuses upgrades. Without the key it offers them again.
func TestUnderSystemdRolledBackToAVersionThatLacksAKey(t *testing.T) {
	b := setupBox(t, rig.NodeConfig{MaxBootAttempts: 2}, box.Options{})
	const file = rig.BoxRoot + "/config.toml"
	b.sh("cp -p " + file + " /root/config && sed -i 's/^\\[upgrade\\]/[upgrade]\\nwindows = [\"Mon-Fri\"]/' " + file + " && chown edge: " + file)
	b.publish("1.2.0", fakerelease.ExitsAtOnce)
	mark, _ := b.upgrade("1.2.0")
	b.back(mark, 2)
	b.ends("1.0.0", "rolled_back", "upgrade.windows")
	b.unavailable("upgrade.windows")
	if out := b.sh("/opt/bin/edge-agent status --root " + rig.BoxRoot); !strings.Contains(out, "upgrade.windows") || !strings.Contains(out, "connected to") {
		t.Errorf("status:\n%s", out)
	}
	b.sh("cp -p /root/config " + file + " && systemctl restart edge")
	b.unavailable("")
	b.well("the correction")
}

// Each change of a registered node's config.toml by a tool of root: the node comes back,
// and doctor has the remedy.
func TestUnderSystemdConfigurationFiles(t *testing.T) {
	b := setupBox(t, rig.NodeConfig{}, box.Options{})
	const file = rig.BoxRoot + "/config.toml"
	b.well("the install")
	b.sh("cp -p " + file + " /root/config")
	repair := "rm -f " + file + "; cp -p /root/config " + file + " && systemctl restart edge"
	for _, x := range []struct {
		spoil, unavailable string
		fault              // of doctor; without a cause there is none
	}{
		{"chmod 644 " + file, "", fault{}}, // repaired
		{"chown edge: " + file + "; chmod 640 " + file, "", fault{}},
		{"chown root: " + file + "; chmod 644 " + file, "", fault{cause: "belongs to root", remedy: "chown edge: " + file + " && chmod 600"}},
		{"chown root:edge " + file + "; chmod 640 " + file, "", fault{cause: "belongs to root", remedy: "chown edge: " + file + " && chmod 600"}},
		{"chown root: " + file + "; chmod 600 " + file, "permission denied", fault{cause: "permission denied", remedy: "chown edge: " + file}},
		{"echo '[upgrade' >>" + file, "copy of the last valid file", fault{cause: "copy of the last valid file", remedy: "edge-agent config check"}},
		{": >" + file, "copy of the last valid file", fault{cause: "copy of the last valid file", remedy: "edge-agent config check"}},
		{"rm " + file, "copy of the last valid file", fault{cause: "no such file", remedy: "cp -p " + file + ".accepted " + file}},
	} {
		mark := b.Timeline.Mark()
		b.sh(x.spoil + "; systemctl restart edge")
		b.wait(mark, "the connection after "+x.spoil, func(e rig.Entry) bool { return e.Type == "authenticated" })
		b.unavailable(x.unavailable)
		if x.cause != "" {
			b.finds(fault{x.spoil, "true", "configuration", x.cause, x.remedy, "true"})
		}
		mark = b.Timeline.Mark()
		b.sh(repair)
		b.wait(mark, "the connection after the repair", func(e rig.Entry) bool { return e.Type == "authenticated" })
		b.unavailable("")
		b.well(x.spoil)
		if t.Failed() {
			return
		}
	}
}
