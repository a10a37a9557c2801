package rig_test

import (
	"strings"
	"time"
)

const ill = "touch $W/ill; " + serves

// attachedVersions are faults of the new version.
func attachedVersions() []attachedRow {
	rows := []attachedRow{
		{name: "cannot exec", new: "#!/nonexistent\n", says: []string{"203"}},
		{name: "exits with 0 at once", new: "exit 0"},
		{name: "exits with 1 at once", new: "exit 1", says: []string{"exit status 1"}},
		{name: "crashes after 30 s", new: "sleep 3; kill -SEGV $$", says: []string{"SEGV"}},
		{name: "crashes after it was kept", new: "sleep 6; exit 1", end: kept},
		{name: "hangs until systemd ends the start", unit: "Type=notify\nNotifyAccess=all\nTimeoutStartSec=3", old: "systemd-notify --ready; " + serves, new: serves, says: []string{"timed out"}},
		{name: "never ready, and TimeoutStartSec= is infinity", unit: "Type=notify\nNotifyAccess=all\nTimeoutStartSec=infinity", old: "systemd-notify --ready; " + serves, new: serves, says: []string{"activating"}},
		{name: "its check fails", new: ill, says: []string{"its own check fails"}},
		{name: "its check fails, and the dependency answers", new: ill, health: "command = [\"/usr/bin/test\", \"!\", \"-e\", \"$W/ill\"]\ndependency = [\"/bin/true\"]", says: []string{"its own check fails", "it answers"}},
		{name: "its check flaps", new: "while :; do touch $W/ill; sleep 2; rm $W/ill; sleep 0.4; done", says: []string{"its own check fails"}},
		{name: "its check fails, and the agent lives now and then", new: ill, during: func(s *attachedService) {
			for i := 0; i < 12 && !strings.Contains(string(s.newest().Details), "upgrade_rolled_back"); i++ {
				s.sh("systemctl stop ${UNIT%.service}-agent")
				s.windows(0.5)
				s.sh("systemctl start ${UNIT%.service}-agent")
				s.windows(0.6)
			}
		}},
		{name: "its check fails, and the drop-in is removed", new: ill, unit: "Restart=always", during: func(s *attachedService) {
			s.started()
			s.sh("rm -r /etc/systemd/system/$UNIT.d && systemctl daemon-reload")
		}, says: []string{"its own check fails"}},
		{name: "exits, and the drop-in is removed with its Restart=", new: "sleep 2; exit 3", during: func(s *attachedService) {
			s.started()
			s.sh("rm -r /etc/systemd/system/$UNIT.d && systemctl daemon-reload")
		}},
		{name: "cannot tell for ever, and its dependency answers", new: "touch $W/blind; " + serves, old: "rm -f $W/blind; " + serves,
			health: "command = [\"/bin/sh\", \"-c\", \"test ! -e $W/blind || exit 75\"]\ndependency = [\"/bin/true\"]", says: []string{"cannot tell, while its dependency answers"}},
		{name: "answered by an old worker", old: "rm -f $W/ill; sleep infinity & " + serves, before: slowly(2), during: func(s *attachedService) {
			s.sh(`printf '[Service]\nKillMode=process\n' >/etc/systemd/system/$UNIT.d/x.conf && systemctl daemon-reload`)
		}, says: []string{"a process of an earlier start still runs"}},
		{name: "takes the machine down each time", own: true, during: func(s *attachedService) {
			for range 14 {
				if tree, _ := s.status(); tree.Current != s.version {
					return
				}
				s.boots(1, false, 500*time.Millisecond)
			}
		}},
	}
	for i := range rows {
		if rows[i].old == "" {
			rows[i].old = "rm -f $W/ill; " + serves
		}
		if rows[i].end == "" {
			rows[i].end = rolledBack
		}
	}
	return rows
}

// attachedRefusals are upgrades that are refused before the swap, with the reason.
func attachedRefusals() []attachedRow {
	setting := func(line, says string) attachedRow {
		return attachedRow{name: "refused: " + line, says: []string{says}, before: func(s *attachedService) {
			s.sh(`printf "[Service]\n` + line + `\n" >/etc/systemd/system/$UNIT.d/60-x.conf && systemctl daemon-reload`)
		}}
	}
	rows := []attachedRow{
		setting("Restart=on-failure", "Restart=on-failure"),
		setting("RemainAfterExit=yes", "RemainAfterExit=yes"),
		setting("RestartPreventExitStatus=3", "RestartPreventExitStatus=3"),
		setting("KillMode=process", "KillMode=process"),
		setting("KillMode=none", "KillMode=none"),
		setting("SendSIGKILL=no", "SendSIGKILL=no"),
		setting("TimeoutStopSec=infinity", "TimeoutStopSec=infinity"),
		setting("ExecCondition=$ROOT/current/app cond", "ExecCondition="),
		setting("Type=oneshot\\nRestart=no", "oneshot"),
		{name: "refused: TimeoutStartSec= below first_start_secs", unit: "Type=notify\nNotifyAccess=all\nTimeoutStartSec=9", old: "systemd-notify --ready; " + serves, firstStart: 600, says: []string{"first_start_secs", "TimeoutStartSec="}},
		{name: "refused: the path unit is not active", before: func(s *attachedService) { s.sh("systemctl stop ${UNIT%.service}-restart.path") }, says: []string{"-restart.path is inactive"}},
		{name: "refused: the service is stopped", before: func(s *attachedService) { s.sh("systemctl stop $UNIT") }, says: []string{"is inactive", "systemctl start"}},
		{name: "refused: its check fails now", before: func(s *attachedService) { s.sh("touch $W/ill") }, says: []string{"health.command"}},
		{name: "refused: its check cannot tell now", health: cannotSay, says: []string{"cannot tell"}},
		{name: "refused: its dependency is down now", health: "command = [\"/bin/true\"]" + named, says: []string{"dependency"}},
	}
	for i := range rows {
		rows[i].end = refused
	}
	return rows
}
