package rig_test

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// attachedRows are the rows of the table of attached mode. Those that take long come first.
func attachedRows() []attachedRow {
	return slices.Concat(attachedVersions(), attachedWorld(), attachedRefusals())
}

// Checks of [health]. The service needs $W/dep.
const (
	needsDep  = `command = ["/usr/bin/test", "-e", "$W/dep"]`
	cannotSay = `command = ["/bin/sh", "-c", "test -e $W/dep || exit 75"]`
	named     = "\ndependency = [\"/usr/bin/test\", \"-e\", \"$W/dep\"]"
)

func depUp(s *attachedService)   { s.sh("touch $W/dep") }
func depDown(s *attachedService) { s.sh("rm $W/dep") }

// slowly delays what first serves a request by some seconds, so that something can happen
// before.
func slowly(secs int) func(*attachedService) {
	return func(s *attachedService) {
		s.sh(fmt.Sprintf(`d=/etc/systemd/system/${UNIT%%.service}-restart.service.d; mkdir $d && printf '[Service]\nExecStartPre=+/bin/sh -c "test -e /run/%%%%N || { touch /run/%%%%N; sleep %d; }"\n' >$d/x.conf && systemctl daemon-reload`, secs))
	}
}

// needs gives the service a unit to depend on, NAME-dep.service.
func needs(lines string) func(*attachedService) {
	return func(s *attachedService) {
		s.sh(`printf "[Service]\n` + lines + `\n" >/etc/systemd/system/${UNIT%.service}-dep.service; touch $W/dep; systemctl daemon-reload`)
	}
}

// attachedWorld are faults of the world. The version is good.
func attachedWorld() []attachedRow {
	restart := func(s *attachedService) {
		for range 6 {
			s.sh("systemctl restart $UNIT")
			s.windows(0.2)
		}
	}
	rows := []attachedRow{
		{name: "nothing happens"},
		{name: "dependency down, and named", health: needsDep + named, before: depUp, during: depDown, meanwhile: unproven, heal: depUp},
		{name: "dependency down, and the check cannot tell", health: cannotSay, before: depUp, during: depDown, meanwhile: unproven, heal: depUp},
		{name: "dependency down, named, and the check cannot tell", health: cannotSay + named, before: depUp, during: depDown, meanwhile: unproven, heal: depUp},
		{name: "dependency down, with neither", health: needsDep, before: depUp, during: depDown, end: rolledBack, says: []string{"probably a dependency is down", `"dependency":true`}},
		{name: "the check cannot tell, and an operator accepts it", health: cannotSay, before: depUp, during: depDown, meanwhile: unproven,
			heal: func(s *attachedService) { s.sh("/opt/bin/edge-agent accept --root $ROOT") }, says: []string{"an operator accepted it"}},
		{name: "dependency returns in the middle of a round",
			// The agent's sandbox lets its check write below the root only.
			health: `command = ["/bin/sh", "-c", "test -e $ROOT/dep && exit; touch $ROOT/dep; exit 1"]` + strings.ReplaceAll(named, "$W", "$ROOT"),
			before: func(s *attachedService) { s.sh("touch $ROOT/dep") },
			during: func(s *attachedService) { s.sh("for i in $(seq 70); do rm -f $ROOT/dep; sleep 0.1; done") }},
		{name: "the path unit fails, and the request is lost", before: slowly(2),
			during: func(s *attachedService) {
				s.sh("systemctl stop ${UNIT%.service}-restart.path ${UNIT%.service}-restart.service || true")
			}},
		{name: "the request is lost", before: slowly(2), during: func(s *attachedService) { s.sh("systemctl stop ${UNIT%.service}-restart.service || true") }}, // the agent may ask again meanwhile
		{name: "the path unit is masked", before: slowly(30),
			during: func(s *attachedService) {
				s.sh("p=${UNIT%.service}-restart; systemctl stop $p.path $p.service; mv /etc/systemd/system/$p.path /root; ln -s /dev/null /etc/systemd/system/$p.path; systemctl daemon-reload")
			}, end: takenBack, says: []string{"upgrade_not_started"}},
		{name: "what restarts the service fails", before: func(s *attachedService) {
			s.sh(`d=/etc/systemd/system/${UNIT%.service}-restart.service.d; mkdir $d && printf '[Service]\nExecStart=\nExecStart=/bin/false\n' >$d/x.conf && systemctl daemon-reload`)
		}, end: takenBack, says: []string{"was not served"}},
		{name: "restarted again and again", during: restart},
		{name: "restarted with what it is PartOf", head: "PartOf=%p-dep.service", setup: needs("ExecStart=/bin/sleep infinity"), before: func(s *attachedService) { s.sh("systemctl start ${UNIT%.service}-dep") },
			during: func(s *attachedService) {
				for range 5 {
					s.sh("systemctl restart ${UNIT%.service}-dep")
					s.windows(0.3)
				}
			}},
		{name: "stopped with what it is bound to", head: "BindsTo=%p-dep.service\nAfter=%p-dep.service", setup: needs("ExecStart=/bin/sleep infinity"),
			during: func(s *attachedService) { s.started(); s.sh("systemctl stop ${UNIT%.service}-dep") }, meanwhile: unproven,
			heal: func(s *attachedService) { s.sh("systemctl start $UNIT") }},
		{name: "what it requires is down at the restart", head: "Requires=%p-dep.service\nAfter=%p-dep.service", setup: needs("Type=oneshot\\nExecStart=/usr/bin/test -e $W/dep"),
			before: depDown, during: func(s *attachedService) { s.windows(0.3); depUp(s) }}, // past the first request, and two are left
		{name: "what it requires stays down", head: "Requires=%p-dep.service\nAfter=%p-dep.service", setup: needs("Type=oneshot\\nExecStart=/usr/bin/test -e $W/dep"),
			before: depDown, meanwhile: takenBack, heal: depUp, end: takenBack, runs: true},
		{name: "an operator's restart fails with what it requires", head: "Requires=%p-dep.service\nAfter=%p-dep.service", setup: needs("Type=oneshot\\nExecStart=/usr/bin/test -e $W/dep"),
			during: func(s *attachedService) { s.started(); depDown(s); s.sh("systemctl restart $UNIT || true") }, meanwhile: unproven,
			heal: func(s *attachedService) {
				s.until("status to say why", func() bool {
					_, text := s.status()
					return strings.Contains(text, "a unit that it depends on failed")
				})
				depUp(s)
				s.sh("systemctl start $UNIT")
			}},
		{name: "stopped by its operator before the request", before: slowly(3), during: func(s *attachedService) { s.sh("systemctl stop $UNIT") }, end: takenBack, says: []string{"is inactive"}},
		{name: "stopped by its operator during the trial", during: func(s *attachedService) { s.started(); s.sh("systemctl stop $UNIT") }, meanwhile: unproven,
			heal: func(s *attachedService) { s.sh("systemctl start $UNIT") }},
		{name: "its start waits for another unit for ever", head: "Requires=%N-dep.service\nAfter=%N-dep.service", setup: func(s *attachedService) {
			s.sh(`touch $W/dep; printf "[Unit]\nPartOf=$UNIT\n[Service]\nType=notify\nNotifyAccess=all\nTimeoutStartSec=infinity\nExecStart=/bin/sh -c 'while ! test -e $W/dep; do sleep 0.2; done; systemd-notify --ready; exec sleep infinity'\n" >/etc/systemd/system/${UNIT%.service}-dep.service; systemctl daemon-reload`)
		}, before: depDown, meanwhile: unproven, heal: depUp},
		{name: "an operator rolls it back right after its start", during: func(s *attachedService) { s.started(); s.sh("/opt/bin/edge-agent rollback --root $ROOT") }, end: rolledBack},
		{name: "an operator rolls it back while the agent is stopped", during: func(s *attachedService) {
			s.started()
			s.sh("systemctl stop ${UNIT%.service}-agent && /opt/bin/edge-agent rollback --root $ROOT && systemctl start ${UNIT%.service}-agent")
		}, end: rolledBack},
		{name: "stopped during the trial, and its program ends with an error", new: "trap 'exit 143' TERM; while :; do sleep 0.1; done", during: func(s *attachedService) { s.started(); s.sh("systemctl stop $UNIT") }, meanwhile: unproven,
			heal: func(s *attachedService) { s.windows(2); s.sh("systemctl start $UNIT") }},
		{name: "the agent is killed again and again", during: func(s *attachedService) {
			s.sh("for i in $(seq 10); do systemctl kill -s KILL ${UNIT%.service}-agent; sleep 1.2; done")
		}},
		{name: "the agent is upgraded", during: func(s *attachedService) {
			s.started()
			s.sh("cp /opt/bin/edge-agent /opt/bin/$UNIT && mv /opt/bin/$UNIT /opt/bin/edge-agent && systemctl restart ${UNIT%.service}-agent")
		}},
		{name: "the drop-in is removed", unit: "Restart=always", during: func(s *attachedService) {
			s.started()
			s.sh("rm -r /etc/systemd/system/$UNIT.d && systemctl daemon-reload && systemctl restart $UNIT")
		}},
		{name: "a slow stop", old: "trap '' TERM; while :; do sleep 1; done", unit: "TimeoutStopSec=7"},
		{name: "a first start of several windows", health: `command = ["/usr/bin/test", "-e", "$W/up"]`, old: "trap 'rm -f $W/up; exit' TERM; touch $W/up; while :; do sleep 0.1; done",
			new: "(sleep 9; touch $W/up) & exec sleep infinity", firstStart: 150},
		{name: "umask 077", setup: func(s *attachedService) {
			s.sh(`d=/etc/systemd/system/${UNIT%.service}-agent.service.d; mkdir $d && printf '[Service]\nUMask=0077\n' >$d/x.conf && systemctl daemon-reload`)
		}},
		{name: "Type=exec", unit: "Type=exec"},
		{name: "Type=notify", unit: "Type=notify\nNotifyAccess=all\nTimeoutStartSec=4", old: "systemd-notify --ready; " + serves, new: "systemd-notify --ready; " + serves},
		{name: "Type=forking", unit: "Type=forking\nTimeoutStartSec=4", old: "sleep infinity & exit 0", new: "sleep infinity & exit 0"},
		{name: "systemctl answers after 10 s", own: true, during: func(s *attachedService) {
			s.sh(slowSystemctl)
			s.windows(4)
		}, heal: func(s *attachedService) { s.sh("mv /usr/bin/systemctl.real /usr/bin/systemctl") }},
		{name: "five reboots", own: true, during: func(s *attachedService) { s.boots(5, true, 0) }},
		{name: "power cuts", own: true, during: func(s *attachedService) { s.boots(4, false, time.Second) /* two of them in the first start */ }},
	}
	for i := range rows {
		if rows[i].end == "" {
			rows[i].end = kept
		}
	}
	return rows
}

// boots turns the machine off and on again: cleanly, or by cutting its power some time after
// each boot.
func (s *attachedService) boots(times int, clean bool, after time.Duration) {
	s.t.Helper()
	for range times {
		time.Sleep(after) // the power goes at some moment of a start
		err := error(nil)
		if clean {
			err = s.machine.Off(s.ctx)
		} else {
			err = s.machine.Cut(s.ctx, true)
		}
		if err != nil {
			s.t.Fatal(err)
		}
		if err := s.machine.Boot(s.ctx); err != nil {
			s.t.Fatal(err)
		}
	}
}
