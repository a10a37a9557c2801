package rig_test

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/bilbycast/edge-agent/internal/box"
	"github.com/bilbycast/edge-agent/internal/rig"
	"github.com/bilbycast/edge-agent/internal/state"
	"github.com/bilbycast/edge-agent/manager-sim/fakerelease"
)

// A power cut during a trial keeps the counted starts.
func TestUnderSystemdPowerCutInATrial(t *testing.T) {
	b := setupBox(t, rig.NodeConfig{MaxBootAttempts: 2}, box.Options{DiskMB: 512})
	b.publish("1.2.0", fakerelease.NeverAuthenticates)
	mark, _ := b.upgrade("1.2.0")
	b.onTrial()
	if err := b.node.Cut(b.ctx, false); err != nil {
		t.Fatal(err)
	}
	if err := b.node.Boot(b.ctx); err != nil {
		t.Fatal(err)
	}
	b.back(mark, 2)
	b.ends("1.0.0", "rolled_back", "rolled back: 1.2.0 did not come up healthy in 2 starts")
}

// A reboot during the hold time of a good version: the next start proves it healthy, and
// the one before does not count.
func TestUnderSystemdRebootInATrial(t *testing.T) {
	b := setupBox(t, rig.NodeConfig{HoldSecs: 5}, box.Options{})
	b.publish("1.1.0", "")
	mark, _ := b.upgrade("1.1.0")
	b.onTrial()
	b.journal("edge.service", "on trial") // before that, the start is not made
	if _, err := b.node.Exec(b.ctx, "systemctl", "reboot"); err != nil {
		t.Log(err) // the connection may end first
	}
	if err := b.node.WaitOff(b.ctx); err != nil {
		t.Fatal(err)
	}
	if err := b.node.Boot(b.ctx); err != nil {
		t.Fatal(err)
	}
	if e := b.event(mark, "upgrade_completed"); !strings.Contains(e.Message, "after 1 start") {
		t.Errorf("the event says %q", e.Message)
	}
	b.ends("1.1.0", "stable", "upgrade completed")
}

// onTrial waits until the first start of a trial is counted.
func (b *inBox) onTrial() {
	b.t.Helper()
	for tick := time.Tick(20 * time.Millisecond); ; <-tick {
		if st, err := b.node.Status(b.ctx); err == nil && st.Status == state.PendingHealth && st.BootAttempts == 1 {
			return
		}
		if b.ctx.Err() != nil {
			b.t.Fatal("no trial began")
		}
	}
}

// A version whose program cannot be executed after it was staged is rolled back, too.
func TestUnderSystemdProgramsThatCannotExec(t *testing.T) {
	b := setupBox(t, rig.NodeConfig{}, box.Options{})
	good, err := os.ReadFile(b.bin["1.2.0"])
	if err != nil {
		t.Fatal(err)
	}
	otherArch := bytes.Clone(good)
	otherArch[18] = 0xf7 // e_machine: eBPF
	for i, tt := range []struct {
		name string
		text []byte
		mode os.FileMode
		why  string // of the rollback
		ends string // a text of the log
	}{
		// These two are seen before they are started.
		{"zero bytes", nil, 0o755, "its program edge-agent is empty", "stable"},
		{"no x bit", good, 0o644, "its program edge-agent is not executable", "stable"},
		{"truncated", good[:100_000], 0o755, "in 3 starts", "rolled_back"},
		{"another architecture", otherArch, 0o755, "in 3 starts", "rolled_back"},
		{"missing interpreter", []byte("#!/no/such/interpreter\n"), 0o755, "in 3 starts", "rolled_back"},
	} {
		version := fmt.Sprintf("1.2.%d", i)
		mark := b.Timeline.Mark()
		dir, err := b.node.Path(b.ctx, rig.BoxRoot+"/versions/"+version)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, "edge-agent"), tt.text, tt.mode); err != nil {
			t.Fatal(err)
		}
		if _, err := b.node.Exec(b.ctx, "ln", "-sfn", "versions/"+version, rig.BoxRoot+"/current"); err != nil {
			t.Fatal(err)
		}
		b.node.Exec(b.ctx, "systemctl", "restart", "edge.service") // it fails; systemd tries again
		if e := b.event(mark, "upgrade_rolled_back"); !strings.Contains(e.Message, "rolled back from "+version+" to 1.0.0") || !strings.Contains(e.Message, tt.why) {
			t.Errorf("%s: the event says %q", tt.name, e.Message)
		}
		if tt.ends == "stable" {
			b.ends("1.0.0", "stable", "rolled back from "+version)
		} else {
			b.ends("1.0.0", "rolled_back", "rolled back: "+version)
		}
	}
}

// A killed watchdog loses no start: the agent counts it.
func TestUnderSystemdTheWatchdogIsKilled(t *testing.T) {
	b := setupBox(t, rig.NodeConfig{MaxBootAttempts: 2}, box.Options{})
	dropIn, err := b.node.Path(b.ctx, "/etc/systemd/system/edge.service.d")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(dropIn, 0o755); err != nil {
		t.Fatal(err)
	}
	text := "[Service]\nExecStartPre=\nExecStartPre=-/bin/sh -c 'if test ! -e /opt/edge/killed; then touch /opt/edge/killed; kill -9 $$$$; fi; exec /opt/edge/last-good/edge-agent watchdog --root /opt/edge'\n"
	if err := os.WriteFile(filepath.Join(dropIn, "kill.conf"), []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := b.node.Exec(b.ctx, "systemctl", "daemon-reload"); err != nil {
		t.Fatal(err)
	}
	b.publish("1.2.0", fakerelease.ExitsAtOnce)
	mark, _ := b.upgrade("1.2.0")
	b.back(mark, 2)
	b.ends("1.0.0", "rolled_back", "rolled back: 1.2.0")
	journal, err := b.node.UnitJournal(b.ctx)
	if n := strings.Count(journal, `"error":"simulated crash"`); err != nil || n != 2 {
		t.Errorf("1.2.0 was started %d times, not 2 (%v)", n, err)
	}
}
