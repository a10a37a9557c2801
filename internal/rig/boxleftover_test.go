package rig_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/bilbycast/edge-agent/internal/box"
	"github.com/bilbycast/edge-agent/internal/rig"
	"github.com/bilbycast/edge-agent/manager-sim/fakerelease"
)

// A worker of 1.0.0 survives the stop of its service, by KillMode=process. The node refuses
// upgrades for that, and names the setting. An operator installs 1.1.0 from a stick all the
// same: its check fails, because the worker may be what answers.
func TestUnderSystemdAProcessOfTheOldVersion(t *testing.T) {
	b := setupBox(t, rig.NodeConfig{MaxBootAttempts: 1}, box.Options{})
	b.publish("1.1.0", "")
	b.sh("cp /bin/sleep " + rig.BoxRoot + "/versions/1.0.0/worker && chown edge: " + rig.BoxRoot + "/versions/1.0.0/worker")
	b.dropIn("Service", "KillMode=process\nExecStartPost=/bin/sh -c \"setsid "+rig.BoxRoot+"/versions/1.0.0/worker 1000 >/dev/null 2>&1 &\"")
	b.sh("systemctl restart edge")
	b.dropIn("Service", "KillMode=process")

	const tool = "/opt/bin/edge-agent "
	b.sh("for i in $(seq 100); do " + tool + "status --root " + rig.BoxRoot + " | grep -q 'upgrades .*not possible: edge.service has KillMode=process' && exit; sleep 0.1; done; exit 1")
	if _, err := b.Upgrade(b.ctx, b.id, "1.1.0"); err == nil || !strings.Contains(err.Error(), "remove KillMode= from /etc/systemd/system/edge.service.d/60-test.conf") {
		t.Errorf("the manager says %v", err)
	}
	if out := b.sh(tool + "doctor --config " + rig.BoxRoot + "/config.toml || true"); !strings.Contains(out, "FIX   unit edge.service: KillMode=: ") {
		t.Errorf("doctor says:\n%s", out)
	}

	stage := b.stick("1.1.0")
	mark := b.Timeline.Mark()
	b.sh(stage + " && systemctl --no-block restart edge")
	pid := b.sh("pidof worker")
	if e := b.event(mark, "upgrade_rolled_back"); !strings.Contains(e.Message, "a process of 1.0.0 still runs (pid "+pid+")") {
		t.Errorf("the event says %q, and the worker is %s", e.Message, pid)
	}
	b.wait(mark, "the old version", func(e rig.Entry) bool { return e.Type == "authenticated" && e.Version == "1.0.0" })

	// Without it the same release is kept.
	b.sh("kill " + pid)
	b.dropIn("Service", "")
	mark = b.Timeline.Mark()
	b.sh("systemctl restart edge && " + stage + " && systemctl --no-block restart edge")
	b.event(mark, "upgrade_completed")
	b.ends("1.1.0", "stable", "upgrade completed")
}

// The stop of the old version takes longer than all windows of the trial: a worker ignores
// SIGTERM, and where an operator restarts the service, ExecStop= takes its time before. The
// window begins with the new version's start, so no start is counted.
func TestUnderSystemdASlowStop(t *testing.T) {
	t.Parallel()
	for name, byOperator := range map[string]bool{"the agent restarts": false, "an operator restarts": true} {
		t.Run(name, func(t *testing.T) {
			b := setupBox(t, rig.NodeConfig{HoldSecs: 1}, box.Options{})
			b.publish("1.1.0", "")
			setting := `ExecStartPost=/bin/sh -c "setsid sh -c \"trap : TERM; while :; do sleep 1; done\" >/dev/null 2>&1 &"` + "\nTimeoutStopSec="
			if byOperator {
				setting += "20\nExecStop=/bin/sleep 13"
			} else {
				setting += "32"
			}
			b.sh("systemctl stop edge")
			b.dropIn("Service", setting)
			b.sh("systemctl start edge")
			mark, began := b.Timeline.Mark(), time.Now()
			if byOperator {
				b.sh(b.stick("1.1.0") + " && systemctl --no-block restart edge")
			} else {
				mark, _ = b.upgrade("1.1.0")
			}
			done := b.event(mark, "upgrade_completed")
			if took := done.At.Sub(began); took < 31*time.Second {
				t.Errorf("the stop took %v only", took)
			}
			if !strings.Contains(done.Message, "after 1 start") {
				t.Errorf("the event says %q", done.Message)
			}
			b.ends("1.1.0", "stable", "upgrade completed")
		})
	}
}

// stick returns the command that stages version from a stick, and swaps.
func (b *inBox) stick(version string) string {
	b.t.Helper()
	stick, err := b.node.Path(b.ctx, "/opt/stick")
	if err == nil {
		err = os.CopyFS(stick, os.DirFS(filepath.Join(b.Releases, "www", fakerelease.DefaultRepository, "releases/download/v"+version)))
	}
	if err != nil {
		b.t.Fatal(err)
	}
	return "EDGE_AGENT_SIM_TRUST=/opt/trust " + rig.BoxRoot + "/current/edge-agent stage --config " + rig.BoxRoot + "/config.toml --from /opt/stick --apply"
}
