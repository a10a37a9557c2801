package rig_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/bilbycast/edge-agent/internal/rig"
)

// request writes a request as the agent's user, waits until edge-restart.service has served
// it, and returns its exit status and the id of the service's start.
func (b *inBox) request(line string) (status, invocation string) {
	b.t.Helper()
	const ended = "systemctl show -p ExecMainExitTimestampMonotonic,ActiveState edge-restart.service"
	before := b.sh(ended)
	b.sh(fmt.Sprintf("runuser -u edge -- sh -c 'echo %s >%s/restart'", line, rig.BoxRoot))
	for tick := time.Tick(50 * time.Millisecond); ; <-tick {
		if now := b.sh(ended); now != before && !strings.Contains(now, "activating") {
			break
		}
		if b.ctx.Err() != nil {
			b.t.Fatalf("nothing served %q:\n%s", line, b.sh("systemctl status edge-restart.path edge-restart.service; systemctl list-jobs"))
		}
	}
	return b.sh("systemctl show -p ExecMainStatus --value edge-restart.service"), b.start()
}

// start returns the id of the present start of the service, or of the last one.
func (b *inBox) start() string {
	b.t.Helper()
	return b.sh("systemctl show -p InvocationID --value edge.service")
}

// The units that restart an attached service end the start that the request names, and no
// other; they start no service that somebody stopped.
func TestUnderSystemdRestartRequests(t *testing.T) {
	b := setupAttached(t, rig.NodeConfig{})
	drop := func(name, text string) { // a drop-in of the service
		b.sh(fmt.Sprintf("printf '%s' >/etc/systemd/system/edge.service.d/%s.conf; systemctl daemon-reload", text, name))
	}
	is := func(what, status, wantStatus, start, wantStart, active string) {
		t.Helper()
		now := b.sh("systemctl is-active edge.service || true")
		if status != wantStatus || (start == wantStart) != (wantStart != "") || now != active {
			t.Errorf("%s: exit status %s, start %s (not changed: %q), %s\n%s", what, status, start, wantStart, now, b.sh("journalctl -o cat --no-pager -n 5 -u edge-restart.service"))
		}
	}
	old := b.start()
	status, first := b.request(old)
	is("a request", status, "0", first, "", "active")
	if first == old {
		t.Error("the request was not served")
	}
	status, now := b.request(old)
	is("for a start that is over", status, "0", now, first, "active")
	status, now = b.request("no-id")
	is("that is none", status, "1", now, first, "active")
	b.sh("rm " + rig.BoxRoot + "/restart; runuser -u edge -- mkfifo " + rig.BoxRoot + "/restart.fifo; mv " + rig.BoxRoot + "/restart.fifo " + rig.BoxRoot + "/restart")
	b.sh("timeout 20 /opt/bin/edge-agent restart --unit edge.service --root " + rig.BoxRoot + " 2>&1 | grep -q 'rm -rf'; rm " + rig.BoxRoot + "/restart")

	// An operator stopped it.
	b.sh("systemctl stop edge.service")
	status, now = b.request(first)
	is("of a stopped service", status, "0", now, first, "inactive")
	status, now = b.request(first + " start")
	is("with start", status, "0", now, "", "active")

	// It never becomes ready.
	drop("notify", `[Service]\nType=notify\nTimeoutStartSec=infinity\n`)
	b.sh("systemctl --no-block restart edge.service")
	b.sh("until systemctl show -p SubState edge.service | grep -q =start; do sleep 0.05; done")
	hangs := b.start()
	status, now = b.request(hangs)
	is("of a start that hangs", status, "0", now, "", "activating")
	if now == hangs {
		t.Error("the start that hangs was not ended")
	}
	b.sh("rm /etc/systemd/system/edge.service.d/notify.conf; systemctl daemon-reload; systemctl restart edge.service")

	// A unit that it requires fails.
	b.sh(`printf '[Service]\nType=oneshot\nRemainAfterExit=yes\nExecStart=/usr/bin/test ! -e /run/down\n' >/etc/systemd/system/dep.service`)
	drop("dep", `[Unit]\nRequires=dep.service\nAfter=dep.service\n`)
	b.sh("systemctl start dep.service; touch /run/down; systemctl stop --job-mode=ignore-dependencies dep.service")
	before := b.start()
	status, now = b.request(before)
	is("while a dependency fails", status, "4", now, before, "inactive")
	status, now = b.request(before)
	is("again, without start", status, "0", now, before, "inactive")
	status, now = b.request(before + " start")
	is("again", status, "4", now, before, "inactive")
	b.sh("rm /run/down")
	status, now = b.request(before + " start")
	is("after that", status, "0", now, "", "active")

	// A condition is not met.
	drop("dep", `[Unit]\nConditionPathExists=!/run/down\n`)
	b.sh("touch /run/down")
	status, now = b.request(b.start())
	is("while a condition is not met", status, "4", now, b.start(), "inactive")
	b.sh("rm /run/down")
	status, now = b.request(now + " start")
	is("after that", status, "0", now, "", "active")

	// It failed, and systemd does not restart it.
	drop("failed", `[Service]\nRestart=no\n`)
	b.sh("systemctl kill -s KILL edge.service; until systemctl is-failed edge.service; do :; done")
	before = b.start()
	status, now = b.request(before)
	is("of a start that failed", status, "0", now, "", "active")
	b.sh("rm /etc/systemd/system/edge.service.d/failed.conf; systemctl daemon-reload")

	// An operator stops it while the request waits for a slow stop.
	drop("slow", `[Service]\nExecStop=/bin/sh -c "until test -e /run/go; do sleep 0.1; done"\n`)
	before = b.start()
	b.sh("systemd-run -q -u operator sh -c 'until systemctl is-active edge.service | grep -q deactivating; do :; done; systemctl stop --no-block edge.service; touch /run/go'")
	status, now = b.request(before)
	b.sh("until systemctl is-active edge.service | grep -qx inactive; do sleep 0.05; done")
	is("while an operator stops it", status, "0", now, before, "inactive")
	b.sh("rm /etc/systemd/system/edge.service.d/slow.conf; systemctl daemon-reload; systemctl start edge.service")

	// A worker outlives the stop, as an operator changed KillMode= after the swap.
	drop("kill", `[Service]\nKillMode=process\nExecStartPre=/bin/sh -c "setsid sleep 300 &"\n`)
	b.sh("rm /etc/systemd/system/edge.service.d/dep.conf; systemctl daemon-reload; systemctl restart edge.service")
	const doctor = "runuser -u edge -- /opt/bin/edge-agent doctor --config " + rig.BoxRoot + "/config.toml 2>&1 || true"
	if out := b.sh(doctor); strings.Contains(out, "of an earlier start") || !strings.Contains(out, "old processes") {
		t.Errorf("its own worker: %s", out)
	}
	worker := b.sh("pgrep -x -f 'sleep 300'")
	b.sh("until [ $(ps -o etimes= -p " + worker + ") -ge 2 ]; do sleep 0.1; done")
	b.sh("systemctl restart edge.service")
	if out := b.sh(doctor); !strings.Contains(out, "a process of an earlier start of edge.service still runs (pid "+worker+")") || !strings.Contains(out, "KillMode=process") {
		t.Errorf("the worker %s: %s", worker, out)
	}
	b.sh("rm /etc/systemd/system/edge.service.d/kill.conf; systemctl daemon-reload; pkill -x -f 'sleep 300'; systemctl restart edge.service")

	// The path unit fails, and the agent is restarted.
	b.sh("systemctl stop edge-restart.path; systemctl restart edge-agent.service; systemctl is-active edge-restart.path")
	before = b.start()
	status, now = b.request(before)
	is("after the path unit failed", status, "0", now, "", "active")
	for range 8 { // no limit on starts stops it
		b.request(before)
	}
	b.sh("systemctl is-active edge-restart.path")

	// The units of earlier versions.
	b.sh(`cd /etc/systemd/system && sed -i '/^Wants=edge-restart.path/d' edge-agent.service &&
		printf '[Path]\nPathExists=/opt/edge/restart\nUnit=edge-restart.service\n[Install]\nWantedBy=multi-user.target\n' >edge-restart.path &&
		printf '[Service]\nType=oneshot\nUser=edge\nExecStart=mv -f /opt/edge/restart /opt/edge/.restart\nExecStartPost=+systemctl --no-block restart edge.service\n' >edge-restart.service &&
		rm -f /opt/edge/restart && systemctl daemon-reload && systemctl restart edge-restart.path`)
	const ask = "runuser -u edge -- /opt/bin/edge-agent restart --request --unit edge.service --root " + rig.BoxRoot
	for range 2 {
		before = b.start()
		b.sh(ask + "; until [ $(systemctl show -p InvocationID --value edge.service) != " + before + " ]; do sleep 0.05; done; until test ! -e /opt/edge/restart; do sleep 0.05; done")
	}
	out := b.sh(doctor)
	for _, want := range []string{"edge-restart.path has PathExists=", "edge-restart.service does not compare", "does not have Wants=edge-restart.path", "systemctl restart edge-restart.path edge-agent.service"} {
		if !strings.Contains(out, want) {
			t.Errorf("doctor does not say %q: %s", want, out)
		}
	}
	drop("limit", `[Service]\nTimeoutStartSec=5\n`) // which bounds each start
	b.sh("systemctl restart edge-agent.service")
	mark := b.Timeline.Mark()
	b.publish("1.1.0", "")
	b.upgrade("1.1.0")
	b.event(mark, "upgrade_completed")
	if got := b.sh("systemctl list-units --no-legend --failed"); got != "" {
		t.Errorf("failed units: %s", got)
	}
}
