package rig_test

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/bilbycast/edge-agent/internal/box"
	"github.com/bilbycast/edge-agent/internal/rig"
	"github.com/bilbycast/edge-agent/manager-sim/fakerelease"
)

// app writes the program of a version of a service that links nothing. It prints its
// version, then runs script.
func app(t *testing.T, version, script string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "app-"+version)
	if err := os.WriteFile(path, fmt.Appendf(nil, "#!/bin/sh\necho app %s starts\n%s\n", version, script), 0o755); err != nil {
		t.Fatal(err)
	}
	return path
}

const serves = "exec sleep infinity"

// setupAttached is setupBox for a shell script, with an agent beside it.
func setupAttached(t *testing.T, c rig.NodeConfig) *inBox {
	t.Helper()
	tools := builds(t)
	c.Tool, c.Unit, c.BinaryName = tools["1.0.0"], "edge.service", "app"
	c.MaxBootAttempts, c.HoldSecs = 2, 2
	b := setupBoxOf(t, c, box.Options{}, map[string]string{
		"1.0.0": app(t, "1.0.0", serves), "1.1.0": app(t, "1.1.0", serves), "1.2.0": app(t, "1.2.0", "echo it fails; exit 1"),
	}, fakerelease.Options{BinaryName: "app"})
	return b
}

func (b *inBox) sh(script string) string {
	b.t.Helper()
	out, err := b.node.Exec(b.ctx, "sh", "-c", script)
	if err != nil {
		b.t.Errorf("%s: %v", script, err)
	}
	return strings.TrimSpace(out)
}

// current returns the version that the link current points to; "": none.
func (b *inBox) current() string {
	b.t.Helper()
	tree, err := b.node.Tree(b.ctx)
	if err != nil {
		b.t.Fatal(err)
	}
	return tree.Current.String()
}

// runs checks that the service runs version, on the node and at the manager.
func (b *inBox) runs(version, status string) {
	b.t.Helper()
	st, err := b.node.Status(b.ctx)
	if err != nil {
		b.t.Fatal(err)
	}
	if current := b.current(); current != version || string(st.Status) != status {
		b.t.Errorf("on the node: %s, %+v", current, st)
	}
	// sleep infinity keeps the directory that the script was started in; its name is in the journal.
	said := b.sh(`journalctl -o cat --no-pager _SYSTEMD_INVOCATION_ID=$(systemctl show -p InvocationID --value edge.service)`)
	if !strings.Contains(said, "app "+version+" starts") {
		b.t.Errorf("the service that runs said %q, want %s", said, version)
	}
	if got := b.sh("systemctl is-active edge.service"); got != "active" {
		b.t.Errorf("edge.service is %s", got)
	}
	n, err := b.Client.Node(b.ctx, b.id)
	for tick := time.Tick(50 * time.Millisecond); (err != nil || n.Version != version || !n.Online) && b.ctx.Err() == nil; <-tick {
		n, err = b.Client.Node(b.ctx, b.id) // the session with the other version may end later than its event came
	}
	if err != nil || n.Version != version || !n.Online {
		b.t.Errorf("at the manager: %+v, %v", n, err)
	}
}

// A service that links nothing is upgraded, and rolled back after every kind of failure.
// The agent beside it never restarts.
func TestUnderSystemdAttached(t *testing.T) {
	b := setupAttached(t, rig.NodeConfig{Probe: []string{"/usr/bin/test", "!", "-e", rig.BoxRoot + "/current/ill"}})
	agentPID := b.sh("systemctl show -p MainPID --value edge-agent.service")

	b.publish("1.1.0", "")
	mark, _ := b.upgrade("1.1.0")
	b.event(mark, "upgrade_completed")
	b.runs("1.1.0", "stable")

	// It ends at once: systemd restarts it, and the watchdog counts the starts and rolls back.
	b.publish("1.2.0", "")
	mark, _ = b.upgrade("1.2.0")
	e := b.event(mark, "upgrade_rolled_back")
	if !strings.Contains(e.Message, "in 2 starts") {
		t.Errorf("the event says %q", e.Message)
	}
	b.wait(mark, "the old version", func(e rig.Entry) bool { return e.Type == "authenticated" && e.Version == "1.1.0" })
	b.runs("1.1.0", "rolled_back")
	if lines := b.failedLines(e.CommandID); !slices.Contains(lines, "it fails") {
		t.Errorf("the event's journal: %q", lines)
	}

	// It stays up, and is not well.
	ill := filepath.Join(t.TempDir(), "ill")
	if err := os.WriteFile(ill, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := b.Publish(fakerelease.Options{Version: "1.3.0", Binary: app(t, "1.3.0", serves), BinaryName: "app", Extra: map[string]string{"ill": ill}}); err != nil {
		t.Fatal(err)
	}
	mark, _ = b.upgrade("1.3.0")
	if e := b.event(mark, "upgrade_rolled_back"); !strings.Contains(e.Message, "in 2 starts") {
		t.Errorf("the event says %q", e.Message)
	}
	b.wait(mark, "the old version", func(e rig.Entry) bool { return e.Type == "authenticated" && e.Version == "1.1.0" })
	b.runs("1.1.0", "rolled_back")
	if got := b.sh("systemctl show -p MainPID --value edge-agent.service"); got != agentPID {
		t.Errorf("the agent was restarted: %s, before %s", got, agentPID)
	}

	// With no agent at all, a bad version that an operator puts in place is rolled
	// back, too. The one from before was pruned.
	b.sh("cd " + rig.BoxRoot + "/versions && runuser -u edge -- cp -r 1.1.0 1.2.0 && printf '#!/bin/sh\\nexit 1\\n' >1.2.0/app")
	b.sh("systemctl stop edge-agent.service; ln -sfn versions/1.2.0 " + rig.BoxRoot + "/current; systemctl restart edge.service")
	for tick := time.Tick(50 * time.Millisecond); b.current() != "1.1.0"; <-tick {
		if b.ctx.Err() != nil {
			t.Fatal("it was not rolled back")
		}
	}
	mark = b.Timeline.Mark()
	b.sh("systemctl start edge-agent.service")
	b.event(mark, "upgrade_rolled_back")
	b.runs("1.1.0", "rolled_back")
}

// The agent's user, the service's user and root have only the rights that they need. A
// unit that could not be rolled back gets no upgrade.
func TestUnderSystemdAttachedLeastPrivilege(t *testing.T) {
	box.Long(t)
	b := setupAttached(t, rig.NodeConfig{})
	b.publish("1.1.0", "")
	mark, _ := b.upgrade("1.1.0")
	b.event(mark, "upgrade_completed")
	b.runs("1.1.0", "stable")

	for _, unit := range []string{"edge-agent.service", "edge-restart.service"} {
		out := b.sh("systemd-analyze --no-pager security " + unit)
		m := regexp.MustCompile(`Overall exposure level for \S+: (\d+\.\d+)`).FindStringSubmatch(out)
		if m == nil {
			t.Fatalf("systemd-analyze says %s", out)
		}
		t.Logf("exposure level of %s: %s", unit, m[1])
		if level, err := strconv.ParseFloat(m[1], 64); err != nil || level >= 2 {
			t.Errorf("%s: exposure level %s, want below 2.0:\n%s", unit, m[1], out)
		}
	}
	for unit, user := range map[string]string{"edge-agent.service": "edge", "edge.service": "app"} {
		if got := b.sh("stat -c %U /proc/$(systemctl show -p MainPID --value " + unit + ")"); got != user {
			t.Errorf("%s runs as %s", unit, got)
		}
	}
	// What the watchdog wrote, which root started, belongs to the owner of the root.
	if got := b.sh("find " + rig.BoxRoot + " -ignore_readdir_race ! -user edge"); got != "" {
		t.Errorf("not the agent's: %s", got)
	}
	for _, script := range []string{
		"touch %s/versions/probe", "touch %s/versions/1.1.0/probe", "mv %s/versions/1.0.0 %s/versions/9.9.9", "ln -sfn versions/1.0.0 %s/current",
		"touch %s/restart", "echo {} >%s/state.json", "touch %s/outbox/probe", "cat %s/credentials.json", "cat %s/config.toml",
	} {
		script = strings.ReplaceAll(script, "%s", rig.BoxRoot)
		if out := b.sh(fmt.Sprintf("setpriv --reuid=app --regid=app --clear-groups sh -c '%s' 2>&1 || true", script)); !strings.Contains(out, "Permission denied") {
			t.Errorf("%s as the service's user: %q", script, out)
		}
	}

	b.well("the install")
	const dropIn = "/etc/systemd/system/edge.service.d/x.conf"
	for _, f := range []fault{
		{"", "systemctl disable --now edge-restart.path", "unit edge-restart.path", "edge-restart.path is inactive", "systemctl enable --now edge-restart.path", "systemctl enable --now edge-restart.path"},
		{"", "printf '[Service]\nExecCondition=\nExecCondition=+-/opt/edge/current/app watchdog --root /opt/edge\n' >" + dropIn + "; " + reload, "unit edge.service: watchdog", "inside the install root", "ExecCondition=", "rm " + dropIn + "; " + reload},
		{"", "printf '[Service]\nRestart=on-failure\n' >" + dropIn + "; " + reload, "unit edge.service: Restart=", "Restart=on-failure", "remove Restart= from " + dropIn, "rm " + dropIn + "; " + reload},
		{"", "systemctl disable edge-agent", "unit edge-agent.service enabled", "is disabled", "systemctl enable edge-agent.service", "systemctl enable edge-agent"},
		{"", "systemctl stop edge", "service edge.service", "is stopped", "systemctl start edge.service", "systemctl start edge"},
		{"", "systemctl stop edge-agent", "service edge-agent.service", "is stopped", "systemctl start edge-agent.service", "systemctl start edge-agent"},
	} {
		b.finds(f)
	}
	b.well("all repairs")
	if out := b.sh("/opt/bin/edge-agent status --root " + rig.BoxRoot); !strings.Contains(out, "edge.service running since") || !strings.Contains(out, "connected to wss://") {
		t.Errorf("status: %s", out)
	}

	for _, tt := range []struct{ spoil, mend, says string }{
		{"systemctl disable --now edge-restart.path; mv /etc/systemd/system/edge-restart.path /root/; systemctl daemon-reload", "mv /root/edge-restart.path /etc/systemd/system/; systemctl daemon-reload; systemctl enable --now edge-restart.path", "edge-restart.path is missing"},
		{"mv /etc/systemd/system/edge.service.d /root/; systemctl daemon-reload", "mv /root/edge.service.d /etc/systemd/system/; systemctl daemon-reload", "ExecCondition="},
	} {
		mark := b.Timeline.Mark()
		b.sh(tt.spoil + "; systemctl restart edge-agent.service")
		b.wait(mark, "the agent", func(e rig.Entry) bool { return e.Type == "authenticated" })
		if said, err := b.node.Journal(b.ctx, "edge-agent.service"); err != nil || !strings.Contains(said, "upgrades are not possible") || !strings.Contains(said, tt.says) {
			t.Errorf("after %s the agent does not say %q (%v)", tt.spoil, tt.says, err)
		}
		b.sh(tt.mend)
	}
}
