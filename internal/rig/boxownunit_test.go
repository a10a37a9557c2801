package rig_test

import (
	"encoding/json"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/bilbycast/edge-agent/internal/box"
	"github.com/bilbycast/edge-agent/internal/rig"
	"github.com/bilbycast/edge-agent/manager-sim/fakerelease"
)

// A service with arguments, a directory and a device of its own gets them from its unit, is
// upgraded and rolled back, and keeps them when its unit is written again.
func TestUnderSystemdAServiceOfItsOwn(t *testing.T) {
	box.Long(t)
	recorders, err := rig.BuildCommand(t.Context(), "internal/rig/recorder", t.TempDir(), "1.0.0", "1.1.0", "1.2.0")
	if err != nil {
		t.Fatal(err)
	}
	var args, flags []string
	for _, text := range []string{"plain", "a b", `"\n"`, "%n %% $HOME ${HOME} $$", ";", "a ; b", "{ path=/bin/sh ; argv[]=x ; ignore_errors=yes }", "é", "'", `\`, "#", ""} {
		args = append(args, "--title", text)
		flags = append(flags, "--arg", "--title", "--arg", text)
	}
	flags = append(flags, "--writable", "/var/lib/recorder", "--device", "/dev/recorder")
	b := setupBoxOf(t, rig.NodeConfig{BinaryName: "recorder", Tool: builds(t)["1.0.0"], MaxBootAttempts: 2, UnitFlags: flags}, box.Options{}, recorders,
		fakerelease.Options{Repository: "acme/recorder", BinaryName: "recorder"})
	// 1, 3 is /dev/null.
	b.sh("mkdir -p /var/lib/recorder && chown edge: /var/lib/recorder && mknod -m 666 /dev/recorder c 1 3 && systemctl restart edge.service")

	recorded := func(version string) {
		t.Helper()
		var got []string
		text := b.sh("cat /var/lib/recorder/" + version)
		if err := json.Unmarshal([]byte(text), &got); err != nil {
			t.Fatalf("%v: %s", err, text)
		}
		if want := append([]string{"run", "--config", rig.BoxRoot + "/config.toml"}, args...); !reflect.DeepEqual(got, want) {
			t.Errorf("%s has the arguments %q, want %q", version, got, want)
		}
	}
	b.well("the first start")
	b.publish("1.1.0", "")
	mark, _ := b.upgrade("1.1.0")
	b.event(mark, "upgrade_completed")
	recorded("1.0.0")
	recorded("1.1.0")

	// Written again without the flags.
	before := b.sh("cat /etc/systemd/system/edge.service")
	b.sh("EDGE_AGENT_SIM_TRUST=/opt/trust /opt/bin/edge-agent unit --config " + rig.BoxRoot + "/config.toml --user edge --dir /etc/systemd/system && systemctl daemon-reload")
	if after := b.sh("cat /etc/systemd/system/edge.service"); after != before {
		t.Errorf("the unit was\n%s\nand is\n%s", before, after)
	}
	if got := b.sh("systemctl show -p TimeoutStopUSec edge.service"); got != "TimeoutStopUSec=15s" {
		t.Error(got)
	}
	b.well("an upgrade")

	b.publish("1.2.0", fakerelease.ExitsAtOnce)
	mark, _ = b.upgrade("1.2.0")
	b.event(mark, "upgrade_rolled_back")
	b.ends("1.1.0", "rolled_back", "rolled back: 1.2.0")

	// Control: without them the service does not serve.
	b.sh("EDGE_AGENT_SIM_TRUST=/opt/trust /opt/bin/edge-agent unit --config " + rig.BoxRoot + "/config.toml --user edge --dir /etc/systemd/system --device= && systemctl daemon-reload && systemctl restart edge.service")
	if out := b.sh("systemctl cat edge.service"); strings.Contains(out, "DeviceAllow=") || !strings.Contains(out, "PrivateDevices=yes") {
		t.Errorf("the unit still has a device:\n%s", out)
	}
	for tick, said := time.Tick(50*time.Millisecond), ""; ; <-tick {
		if said = b.sh("journalctl -u edge.service --no-pager -o cat | tail -20"); strings.Contains(said, "/dev/recorder: no such file") {
			break
		}
		if b.ctx.Err() != nil {
			t.Fatalf("the service logs %s", said)
		}
	}
}
