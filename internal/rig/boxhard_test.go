package rig_test

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/bilbycast/edge-agent/internal/box"
	"github.com/bilbycast/edge-agent/internal/rig"
)

// The service has only the rights that it needs, only it can read its secrets, and no
// other user can change what it runs.
func TestUnderSystemdLeastPrivilege(t *testing.T) {
	b := setupBox(t, rig.NodeConfig{HoldSecs: 1}, box.Options{})
	b.publish("1.1.0", "")
	mark, _ := b.upgrade("1.1.0") // so that there is a state, and an outbox
	b.event(mark, "upgrade_completed")
	b.ends("1.1.0", "stable", "upgrade completed")
	run := func(script string) string {
		out, err := b.node.Exec(b.ctx, "sh", "-c", script)
		if err != nil {
			t.Errorf("%s: %v", script, err)
		}
		return strings.TrimSpace(out)
	}

	out := run("systemd-analyze --no-pager security edge.service")
	m := regexp.MustCompile(`Overall exposure level for edge\.service: (\d+\.\d+)`).FindStringSubmatch(out)
	if m == nil {
		t.Fatalf("systemd-analyze says %s", out)
	}
	t.Logf("exposure level: %s", m[1])
	if level, err := strconv.ParseFloat(m[1], 64); err != nil || level >= 2 {
		t.Errorf("exposure level %s, want below 2.0:\n%s", m[1], out)
	}

	for file, want := range map[string]string{
		"config.toml": "600 edge", "credentials.json": "600 edge",
		"state.json": "600 edge", "outbox": "700 edge", "versions": "755 edge", "versions/1.1.0": "755 edge", ".": "750 edge",
	} {
		if got := run("stat -c '%a %U' " + rig.BoxRoot + "/" + file); got != want {
			t.Errorf("%s: %s, want %s", file, got, want)
		}
	}

	const pid = "$(systemctl show -p MainPID --value edge.service)"
	if got := run("stat -c %U /proc/" + pid); got != "edge" {
		t.Errorf("it runs as %s", got)
	}
	if got := run(`grep -E '^(CapEff|NoNewPrivs)' /proc/` + pid + `/status | tr -s '\t\n' ' '`); got != "CapEff: 0000000000000000 NoNewPrivs: 1" {
		t.Errorf("it has %s", got)
	}
	// In its mount namespace, even root can write below the root only.
	inside := "nsenter -t " + pid + " -m touch "
	run(inside + rig.BoxRoot + "/probe")
	for _, path := range []string{"/etc/probe", "/usr/probe", "/opt/probe", "/var/lib/probe"} {
		if out := run(inside + path + " 2>&1 || true"); !strings.Contains(out, "Read-only file system") {
			t.Errorf("touch %s: %s", path, out)
		}
	}
	// Another user can change nothing.
	for _, script := range []string{"touch %s/versions/probe", "mv %s/versions/1.0.0 %s/versions/9.9.9", "ln -sfn versions/1.0.0 %s/current", "cat %s/credentials.json"} {
		script = strings.ReplaceAll(script, "%s", rig.BoxRoot)
		if out := run(fmt.Sprintf("setpriv --reuid=nobody --regid=nogroup --clear-groups sh -c '%s' 2>&1 || true", script)); !strings.Contains(out, "Permission denied") {
			t.Errorf("%s as nobody: %q", script, out)
		}
	}
}
