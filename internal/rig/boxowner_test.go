package rig_test

import (
	"strings"
	"testing"

	"github.com/bilbycast/edge-agent/internal/box"
	"github.com/bilbycast/edge-agent/internal/rig"
)

// agentDoctor prints what doctor finds about a node in /opt/edge that is not well.
const agentDoctor = "export PATH=/opt/bin:$PATH; /opt/bin/edge-agent doctor --config /opt/edge/config.toml | grep -v ^ok; true"

// remedyOf runs the command of doctor that begins with first.
func remedyOf(first string) string {
	return "export PATH=/opt/bin:$PATH; eval \"$(/opt/bin/edge-agent doctor --config /opt/edge/config.toml | grep -o '" + first + " .*' | head -1 | sed 's/, then: / \\&\\& /')\"; "
}

// The command by which doctor gets the watchdog's units for an earlier version's units
// leaves a node that works: with the agent's user, not the one of the service, and with
// the settings of the agent's unit.
func TestUnderSystemdRemedyOfOldUnits(t *testing.T) {
	box.Long(t)
	for name, tt := range map[string]struct {
		setup       func(t *testing.T) *inBox
		old         string
		agent, user string // unit of the agent; user of the service
	}{
		"attached": {func(t *testing.T) *inBox { return setupAttached(t, rig.NodeConfig{}) },
			"sed -i '/watchdog.service$/d;/^Wants=/d;/^After=/d' edge.service.d/50-edge-agent.conf; sed -i '/^After=/d' edge-restart.service", "edge-agent", "app"},
		"linked": {func(t *testing.T) *inBox { return setupBox(t, rig.NodeConfig{}, box.Options{}) },
			"sed -i '/^Wants=/d;s/^After=.*/After=network.target/' edge.service", "edge", "edge"},
	} {
		t.Run(name, func(t *testing.T) {
			b := tt.setup(t)
			b.sh("cd /etc/systemd/system && rm edge-watchdog.service edge-retry.service; " + tt.old + "; systemctl daemon-reload; systemctl restart edge " + tt.agent)
			settings := "grep -E '^(User|Environment|RestartSec|WatchdogSec)=' /etc/systemd/system/" + tt.agent + ".service | sort"
			before := b.sh(settings)
			if found := b.sh(agentDoctor); !strings.Contains(found, "there is no edge-watchdog.service") {
				t.Errorf("doctor finds %s", found)
			}
			b.sh(remedyOf("edge-agent unit"))
			b.sh("systemctl restart edge " + tt.agent)
			if after := b.sh(settings); after != before || !strings.Contains(after, "User=edge") || !strings.Contains(after, "EDGE_AGENT_SIM_TRUST") {
				t.Errorf("the unit has\n%s\nbefore:\n%s", after, before)
			}
			b.sh("grep -q ^User= /etc/systemd/system/edge-watchdog.service && grep -qx User=edge /etc/systemd/system/edge-watchdog.service || ! grep ^User= /etc/systemd/system/edge-watchdog.service")
			b.sh("systemctl is-active edge " + tt.agent + "; test $(ps -o user= -p $(systemctl show -p MainPID --value " + tt.agent + ")) = edge; test $(ps -o user= -p $(systemctl show -p MainPID --value edge)) = " + tt.user)
			if found := b.sh(agentDoctor); found != "" && strings.Contains(found, "FIX") {
				t.Errorf("afterwards doctor finds %s", found)
			}
		})
	}
}

// The root of an attached service has the group of the service. Doctor's remedy for
// another owner leaves it, so that the service still reaches its program.
func TestUnderSystemdAttachedOwner(t *testing.T) {
	box.Long(t)
	b := setupAttached(t, rig.NodeConfig{})
	b.sh("chown edge:app /opt/edge; chmod 750 /opt/edge; systemctl restart edge edge-agent")
	// userdel refuses while a process of the user ends.
	b.sh("systemctl stop edge-agent; timeout 20 sh -c 'until userdel edge; do sleep 0.1; done'; groupdel edge 2>/dev/null; useradd --system -u 4321 edge; systemctl start edge-agent || true")
	if found := b.sh(agentDoctor); !strings.Contains(found, "chown -R edge /opt/edge") || strings.Contains(found, "edge: ") {
		t.Errorf("doctor finds %s", found)
	}
	b.sh(remedyOf("chown -R"))
	b.sh("test $(stat -c %U:%G /opt/edge) = edge:app; systemctl restart edge edge-agent; systemctl is-active edge edge-agent")
	if found := b.sh(agentDoctor); strings.Contains(found, "FIX") {
		t.Errorf("afterwards doctor finds %s", found)
	}
}

// Only the directory of the root belongs to another user. Doctor and status compare it with
// the user of the unit, and the remedy repairs it.
func TestUnderSystemdDirectoryOfAnother(t *testing.T) {
	box.Long(t)
	b := setupBare(t, "otherdir", "")
	b.sh("mkdir -p /data; useradd --system otherdaemon")
	b.want(b.sh(b.install("")), "registered with the manager")
	b.sh("systemctl stop edge; chown otherdaemon: " + userRoot + "; systemctl start edge || true")
	f, ok := b.problems()["unit edge.service: User="]
	if !ok || !strings.Contains(f.Cause, "edge.service runs as edge (uid ") || !strings.Contains(f.Cause, "belongs to otherdaemon (uid ") || strings.Contains(f.Remedy, "otherdaemon") {
		t.Errorf("doctor finds %+v", b.problems())
	}
	status := b.sh("/opt/bin/edge-agent status --root " + userRoot)
	b.want(status, "belongs to otherdaemon (uid ", "edge.service runs as edge")
	if strings.Contains(status, "chown -R otherdaemon") || strings.Contains(status, "service runs as otherdaemon") {
		t.Errorf("status: %s", status)
	}
	b.want(b.sh(command(f.Remedy)), "edge.service is running")
	b.runsAsEdge("the remedy")
}

// A handover that was interrupted continues, also with what links in the root point to.
func TestUnderSystemdInterruptedHandOver(t *testing.T) {
	box.Long(t)
	b := setupBare(t, "handover", "")
	b.sh("mkdir -p /data/versions " + userRoot + "; ln -s /data/versions " + userRoot + "/versions")
	b.want(b.sh(b.install("")), "registered with the manager")
	b.sh("systemctl stop edge; U=$(id -u edge); userdel edge; groupdel edge 2>/dev/null; useradd --system -u $U otherdaemon; useradd --system edge; find " + userRoot + " /data/versions -type d -exec chown root: {} +")
	b.want(b.sh(b.install("--change-owner")+" </dev/null"), "edge.service is running")
	b.runsAsEdge("the second run")
}

// A shell that inherited the environment of a service starts the agent by hand, and a user
// that only has the service's name, or a number, is not taken.
func TestUnderSystemdUsersByMistake(t *testing.T) {
	box.Long(t)
	b := setupBare(t, "mistakes", "")
	b.sh("mkdir -p /data")
	refused := func(more string, want ...string) {
		t.Helper()
		out, err := b.run(b.install(more) + " </dev/null")
		if err == nil {
			t.Errorf("install %s: %s", more, out)
		}
		b.want(out, want...)
		b.sh("test ! -e /opt/bilbycast; ! ls /etc/systemd/system | grep -E 'backup|e3|edge'; ! getent passwd 4444")
	}
	refused("--name backup", "backup (uid 34) exists already", "Nothing was changed", "--user backup")
	refused("--name e3 --user 4444", "takes a number for a uid")
	b.want(b.sh(b.install("")), "registered with the manager")
	b.sh("systemctl stop edge; chown root: " + userRoot)
	for _, env := range []string{"INVOCATION_ID=aaaa", "INVOCATION_ID=aaaa SYSTEMD_EXEC_PID=1"} {
		out, err := b.run(env + " timeout -s TERM 5 /opt/bin/edge-agent run --config " + userConfig)
		if err == nil {
			t.Errorf("%s: it ran: %s", env, out)
		}
		b.want(out, "run as root: edge.service runs as edge")
	}
	b.sh("find " + userRoot + " -user root ! -path " + userRoot + " | grep . && exit 1; true")
	b.want(b.sh(b.install("")), "edge.service is running")
	b.runsAsEdge("install")
	b.sh("edge=/opt/bin/edge-agent; $edge uninstall --device-type edge --purge --yes || $edge uninstall --device-type edge --purge")
	b.want(b.sh(b.install("")), "registered with the manager") // with the user of the first installation
}
