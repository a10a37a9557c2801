package rig_test

import (
	"encoding/json"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/bilbycast/edge-agent/internal/box"
	"github.com/bilbycast/edge-agent/internal/rig"
)

// moments of a unit, since the machine was booted.
func (b *inBox) moments(unit string, names ...string) (out []time.Duration) {
	b.t.Helper()
	for _, name := range names {
		us, err := strconv.ParseInt(strings.TrimSpace(b.sh("systemctl show -P "+name+"Monotonic "+unit)), 10, 64)
		if err != nil || us == 0 {
			b.t.Errorf("%s has no %s: %v", unit, name, err)
		}
		out = append(out, time.Duration(us)*time.Microsecond)
	}
	return out
}

// exited returns when the start before the present one ended: systemd logs it at once, and
// InactiveEnterTimestamp= is that of the end of RestartSec=.
func (b *inBox) exited() time.Duration {
	b.t.Helper()
	at := strings.TrimSpace(b.sh(`journalctl -o json --output-fields=__MONOTONIC_TIMESTAMP UNIT=edge.service _PID=1 MESSAGE_ID=7ad2d189f7e94e70a38c781354912448 | tail -n1 | sed 's/.*"__MONOTONIC_TIMESTAMP" *: *"\([0-9]*\)".*/\1/'`))
	us, err := strconv.ParseInt(at, 10, 64)
	if err != nil {
		b.t.Errorf("the journal has no end of the start before: %q", at)
	}
	return time.Duration(us) * time.Microsecond
}

// logged returns when the present start of the service first logged, when it was
// authenticated, and what it says of the link, from the journal.
func (b *inBox) logged() (first, authenticated, connect, auth time.Duration) {
	b.t.Helper()
	for line := range strings.Lines(b.sh("journalctl -o json _SYSTEMD_INVOCATION_ID=$(systemctl show -P InvocationID edge) _PID=$(systemctl show -P MainPID edge)")) {
		var e struct {
			At   string `json:"__MONOTONIC_TIMESTAMP"`
			Text string `json:"MESSAGE"`
		}
		var fields struct {
			Message string `json:"message"`
			Connect int64  `json:"connect_ms"`
			Auth    int64  `json:"auth_ms"`
		}
		if json.Unmarshal([]byte(line), &e) != nil {
			continue
		}
		us, _ := strconv.ParseInt(e.At, 10, 64)
		at := time.Duration(us) * time.Microsecond
		if first == 0 {
			first = at
		}
		if json.Unmarshal([]byte(e.Text), &fields) == nil && strings.HasPrefix(fields.Message, "authenticated to") && authenticated == 0 {
			authenticated = at
			connect, auth = time.Duration(fields.Connect)*time.Millisecond, time.Duration(fields.Auth)*time.Millisecond
		}
	}
	return first, authenticated, connect, auth
}

// Each part of the downtime of an upgrade is seen: how long depends on the machine, and is
// only printed. systemd restarts the service by a job, for which RestartSec= does not count.
func TestUnderSystemdDowntime(t *testing.T) {
	b := setupBox(t, rig.NodeConfig{HoldSecs: 1}, box.Options{})
	for i := range 5 {
		version := fmt.Sprintf("1.%d.0", i%2+1)
		b.publish(version, "")
		mark, _ := b.upgrade(version)
		b.event(mark, "upgrade_completed")
		if n := strings.TrimSpace(b.sh("systemctl show -P NRestarts edge")); n != "0" {
			t.Errorf("%s: systemd restarted the service by itself %s times", version, n)
		}
		service := b.moments("edge.service", "InactiveExitTimestamp", "ExecMainStartTimestamp")
		own := b.moments("edge-watchdog.service", "InactiveExitTimestamp", "InactiveEnterTimestamp")
		first, authenticated, connect, auth := b.logged()
		ends := []time.Duration{b.exited(), own[0], own[1], service[0], service[1], first, authenticated}
		for j := range ends[1:] {
			// The end is from the journal, which may have it later than the next start.
			if j > 0 && ends[j+1] < ends[j] || ends[j] == 0 {
				t.Errorf("the parts are not in order: %v", ends)
			}
		}
		text := ""
		for j, name := range []string{"stop", "edge-watchdog.service", "start job", "ExecStartPre=", "exec to first line", "start to authentication"} {
			text += fmt.Sprintf("  %s %v", name, (ends[j+1] - ends[j]).Round(100*time.Microsecond))
		}
		t.Logf("%s: down for %v:%s (of it TCP, TLS and WebSocket %v, authentication %v)", version, (authenticated - ends[0]).Round(time.Millisecond), text, connect, auth)
	}
}

// A stable version that crashes at once is not started ten times a second, an operator's
// start does not wait, and a stop does not wait for the watchdog.
func TestUnderSystemdACrashLoopIsSlow(t *testing.T) {
	b := setupBox(t, rig.NodeConfig{}, box.Options{})
	b.dropIn("Service", "TimeoutStartSec=1min") // half of it is the longest pause
	b.sh("systemctl stop edge; cd " + rig.BoxRoot + "/versions/1.0.0 && mv edge-agent good && printf '#!/bin/sh\\ncase $1 in run) exit 3;; esac\\nexec " + rig.BoxRoot + "/versions/1.0.0/good \"$@\"\\n' >edge-agent && chmod 755 edge-agent")
	b.sh("systemctl start edge || :")
	// The watchdog says how long a start waits; systemd itself waits for 100 ms.
	b.sh("timeout 120 sh -c 'until journalctl -o cat --no-pager -u edge | grep -q starts.:7,; do sleep 0.1; done'")
	waits := strings.Join(regexp.MustCompile(`"starts":\d+,"wait":"[^"]+"`).FindAllString(b.sh("journalctl -o cat --no-pager -u edge"), -1), " ")
	want := ""
	for i, wait := range []string{"100ms", "300ms", "700ms", "1.5s", "3.1s", "6.3s", "9.9s"} {
		want += fmt.Sprintf(`"starts":%d,"wait":"%s" `, i+1, wait)
	}
	if waits+" " != want {
		t.Errorf("the starts waited so: %s\nwant %s", waits, want)
	}
	began := time.Now()
	b.sh("systemctl stop edge")
	if took := time.Since(began); took > 9*time.Second {
		t.Errorf("a stop took %v, as long as the start would have waited", took)
	}
	b.sh("cd " + rig.BoxRoot + "/versions/1.0.0 && mv good edge-agent")
	mark := b.Timeline.Mark()
	b.sh("systemctl start edge")
	b.wait(mark, "the node", func(e rig.Entry) bool { return e.Type == "authenticated" })
	if out := b.sh("journalctl -o cat --no-pager _SYSTEMD_INVOCATION_ID=$(systemctl show -P InvocationID edge)"); strings.Contains(out, "this start waits") {
		t.Errorf("a start by an operator waited: %s", out)
	}
}

// A node whose restart nobody serves ends, and systemd starts the new version after RestartSec=.
func TestUnderSystemdARestartThatNobodyServes(t *testing.T) {
	box.Long(t)
	t.Parallel()
	for name, tt := range map[string]struct{ broken, log string }{
		"masked":              {"systemctl mask --runtime --now edge-respawn.path", ""},
		"the service fails":   {"d=/run/systemd/system/edge-respawn.service.d; mkdir -p $d && printf '[Service]\nExecStart=\nExecStart=/bin/false\n' >$d/x.conf && systemctl daemon-reload", "did not restart the service as requested"},
		"the service is late": {"d=/run/systemd/system/edge-respawn.service.d; mkdir -p $d && printf '[Service]\nExecStartPre=/bin/sleep 1.3\n' >$d/x.conf && systemctl daemon-reload", "did not restart the service as requested"},
	} {
		t.Run(name, func(t *testing.T) {
			b := setupBox(t, rig.NodeConfig{HoldSecs: 1}, box.Options{})
			b.publish("1.1.0", "")
			b.sh(tt.broken)
			mark, _ := b.upgrade("1.1.0")
			b.event(mark, "upgrade_completed")
			if got := b.current(); got != "1.1.0" {
				t.Errorf("%s runs", got)
			}
			if out := b.sh("journalctl -o cat -u edge; systemctl show -P NRestarts edge"); !strings.Contains(out, tt.log) {
				t.Errorf("no %q in\n%s", tt.log, out)
			}
			b.sh("! test -e " + rig.BoxRoot + "/restart")
		})
	}
}

// An operator's stop ends a service that waits for its restart, and nothing starts it again.
func TestUnderSystemdAStopWinsOverARestart(t *testing.T) {
	b := setupBox(t, rig.NodeConfig{HoldSecs: 1}, box.Options{})
	b.publish("1.1.0", "")
	b.sh("d=/run/systemd/system/edge-respawn.service.d; mkdir -p $d && printf '[Service]\nExecStartPre=/bin/systemctl stop edge.service\n' >$d/x.conf && systemctl daemon-reload")
	b.upgrade("1.1.0")
	b.sh("timeout 60 sh -c 'until test $(systemctl show -P ActiveState edge) = inactive; do sleep 0.1; done'; timeout 20 sh -c 'while systemctl list-jobs --no-legend | grep .; do sleep 0.1; done'")
	if got := strings.TrimSpace(b.sh("systemctl show -P ActiveState edge")); got != "inactive" {
		t.Errorf("the service is %s", got)
	}
	mark := b.Timeline.Mark()
	b.sh("systemctl start edge")
	b.event(mark, "upgrade_completed")
}

// A service that requests its restart in a loop gets a bounded number from root. Without
// the path unit it still runs, and a later start has it again.
func TestUnderSystemdRequestsInALoop(t *testing.T) {
	box.Long(t)
	b := setupBox(t, rig.NodeConfig{HoldSecs: 1}, box.Options{})
	b.sh("timeout 60 setpriv --reuid=edge --clear-groups sh -c 'until test $(systemctl show -P ActiveState edge-respawn.path) = failed; do echo >" + rig.BoxRoot + "/restart; sleep 0.02; done'")
	b.sh("timeout 60 sh -c 'until test $(systemctl show -P ActiveState edge) = active; do sleep 0.1; done'")
	b.publish("1.1.0", "")
	mark, _ := b.upgrade("1.1.0")
	b.event(mark, "upgrade_completed")
	b.sh("systemctl reset-failed edge-respawn.service edge-respawn.path; systemctl restart edge; systemctl is-active edge-respawn.path")
}
