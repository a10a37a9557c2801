package rig_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/bilbycast/edge-agent/internal/box"
	"github.com/bilbycast/edge-agent/internal/rig"
)

// journal waits until a unit has said text.
func (b *inBox) journal(unit, text string) {
	b.t.Helper()
	b.sh(fmt.Sprintf(`timeout 30 sh -c 'until journalctl --no-pager -q -o cat -u %s | grep -q "%s"; do sleep 0.2; done'`, unit, text))
}

// What keeps the service from being started, and is no fault of the version, counts
// against no version: a condition about something else, or another unit that fails.
func TestUnderSystemdStartsThatAreNotTheVersionsFault(t *testing.T) {
	b := setupBox(t, rig.NodeConfig{HoldSecs: 1}, box.Options{})
	b.sh(`printf '[Unit]\nStartLimitIntervalSec=0\n[Service]\nType=oneshot\nExecStart=/bin/sh -c "sleep 0.5; test -e /run/ready"\n' >/etc/systemd/system/data.service`)
	for i, setting := range []string{"ConditionPathExists=/run/ready", "Requires=data.service\nAfter=data.service"} {
		b.sh("touch /run/ready")
		b.dropIn("Unit", setting)
		version := fmt.Sprintf("1.%d.0", i+1)
		b.publish(version, "")
		mark := b.Timeline.Mark()
		b.sh("rm /run/ready; journalctl --rotate -q; journalctl -q --vacuum-time=1s 2>/dev/null")
		b.upgrade(version)
		b.journal("edge-retry.service", "the start does not count")
		for range 4 { // more than the starts of a trial
			b.sh("systemctl start edge.service || :")
		}
		st, err := b.node.Status(b.ctx)
		if err != nil || st.Status != "pending_health" || st.BootAttempts > 1 {
			t.Errorf("%s: %+v, %v, want a trial that still has its starts", setting, st, err)
		}
		b.sh("touch /run/ready; systemctl start edge.service")
		b.event(mark, "upgrade_completed")
		b.ends(version, "stable", "")
	}
}

// A start that the version keeps systemd from making is counted also where the watchdog's
// unit cannot know that before, or cannot record it.
func TestUnderSystemdStartsThatAreNotMade(t *testing.T) {
	box.Long(t)
	b := setupBox(t, rig.NodeConfig{HoldSecs: 1}, box.Options{})
	b.sh("cd " + rig.BoxRoot + "/versions/1.0.0 && mkdir share && echo A=1 >share/env && printf '#!/bin/sh\nexit 0\n' >share/migrate && chmod 755 share/migrate && chown -R edge: share")
	b.sh(`printf '[Service]\nType=oneshot\nExecStart=` + rig.BoxRoot + `/current/share/migrate\n' >/etc/systemd/system/migrate.service`)
	for i, tt := range []struct{ setting, start string }{
		{"Requires=migrate.service\nAfter=migrate.service", "systemctl restart edge.service"}, // the job fails by its dependency
		{"ConditionPathExists=CURRENT/share\n[Service]\nExecStop=/bin/sleep 1", "systemctl stop --no-block edge; systemctl start edge"},
		{"[Service]\nEnvironmentFile=CURRENT/share/env", "chown root: watchdog.json; chmod 600 watchdog.json; systemctl restart edge"},
	} {
		b.dropIn("Unit", tt.setting)
		mark := b.Timeline.Mark()
		version := fmt.Sprintf("1.1.%d", i)
		b.sh(fmt.Sprintf(`cd %s && cp -a versions/1.0.0 versions/%s && rm -r versions/%[2]s/share && ln -sfn versions/%[2]s current && { %s || :; }`, rig.BoxRoot, version, tt.start))
		if e := b.event(mark, "upgrade_rolled_back"); !strings.Contains(e.Message, "rolled back from "+version+" to 1.0.0") || !strings.Contains(e.Message, "in 3 starts") {
			t.Errorf("%s: the event says %q", tt.setting, e.Message)
		}
		b.wait(mark, "the old version", func(e rig.Entry) bool { return e.Type == "authenticated" && e.Version == "1.0.0" })
		b.ends("1.0.0", "rolled_back", "rolled back: "+version)
	}
}

// The check before the swap sees what systemd sees: specifiers, drop-ins that only root can
// read, and units that the service requires.
func TestUnderSystemdAReleaseThatLacksAHiddenPath(t *testing.T) {
	b := setupBox(t, rig.NodeConfig{HoldSecs: 1}, box.Options{})
	b.sh("cd " + rig.BoxRoot + "/versions/1.0.0 && mkdir share && echo A=1 >share/env && printf '#!/bin/sh\nexit 0\n' >share/migrate && chmod 755 share/migrate && chown -R edge: share; ln -s " + rig.BoxRoot + " /var/lib/edge")
	b.sh(`printf '[Service]\nType=oneshot\nExecStart=` + rig.BoxRoot + `/current/share/migrate\n' >/etc/systemd/system/migrate.service`)
	b.publish("1.1.0", "")
	for _, tt := range []struct {
		setting string
		names   []string
	}{
		{"ConditionPathExists=%S/edge/current/share\n[Service]\nLoadCredential=key:%S/edge/current/share/env\nBindReadOnlyPaths=%S/edge/current/share:/srv",
			[]string{"ConditionPathExists=", "LoadCredential=", "BindReadOnlyPaths="}},
		{"Requires=migrate.service\nAfter=migrate.service", []string{"edge.service needs migrate.service", "ExecStart=" + rig.BoxRoot + "/current/share/migrate"}},
	} {
		b.dropIn("Unit", tt.setting)
		b.sh("chmod 600 /etc/systemd/system/edge.service.d/60-test.conf; systemctl daemon-reload; systemctl restart edge.service")
		mark := b.Timeline.Mark()
		b.wait(mark, "the node", func(e rig.Entry) bool { return e.Type == "authenticated" })
		b.upgrade("1.1.0")
		e := b.event(mark, "upgrade_internal")
		for _, name := range tt.names {
			if !strings.Contains(e.Message, name) {
				t.Errorf("the event says %q, without %s", e.Message, name)
			}
		}
		if got := b.current(); got != "1.0.0" {
			t.Fatalf("%s: %s runs", tt.setting, got)
		}
	}
}

// The same for an attached service whose condition is about something else.
func TestUnderSystemdAttachedStartsThatAreNotTheVersionsFault(t *testing.T) {
	b := setupAttached(t, rig.NodeConfig{})
	b.sh("touch /run/ready")
	b.dropIn("Unit", "ConditionPathExists=/run/ready")
	b.publish("1.1.0", "")
	mark := b.Timeline.Mark()
	b.sh("rm /run/ready")
	b.upgrade("1.1.0")
	b.journal("edge-retry.service", "the start does not count")
	for range 3 {
		b.sh("systemctl start edge.service || :")
	}
	b.sh("touch /run/ready; systemctl start edge.service")
	b.event(mark, "upgrade_completed")
	b.runs("1.1.0", "stable")
}

// The units beside an instance of a template do not inherit the template's drop-ins, which
// may need a path that the version on trial lacks.
func TestUnderSystemdAttachedInstance(t *testing.T) {
	box.Long(t)
	b := setupAttached(t, rig.NodeConfig{})
	b.sh(`cat >/etc/systemd/system/app@.service <<'X'
[Service]
User=app
ExecStart=/opt/edge/current/app
[Install]
WantedBy=multi-user.target
X
systemctl disable --now edge-agent edge-restart.path edge.service; rm -r /etc/systemd/system/edge*; rm -f /opt/edge/restart
cd /opt/edge/versions/1.0.0 && mkdir share && echo A=1 >share/env && chown -R edge: share && chmod -R a+rX /opt/edge/versions
mkdir -p /etc/systemd/system/app@.service.d; printf '[Unit]\nConditionPathExists=/opt/edge/current/share\n[Service]\nEnvironmentFile=/opt/edge/current/share/env\n' >/etc/systemd/system/app@.service.d/x.conf
sed -i 's/^unit = .*/unit = "app@1.service"/' /opt/edge/config.toml
/opt/bin/edge-agent unit --config /opt/edge/config.toml --user edge --dir /etc/systemd/system --restart-secs 0.1 --environment EDGE_AGENT_SIM_TRUST=/opt/trust
systemctl daemon-reload; systemctl enable --now app@1-restart.path app@1-agent.service app@1.service
timeout 20 sh -c 'until systemctl is-active -q app@1 app@1-agent; do sleep 0.1; done'`)
	if got := b.sh("systemctl show -P DropInPaths app:1-watchdog.service app:1-retry.service app:1-restart.service"); strings.TrimSpace(got) != "" {
		t.Errorf("drop-ins of the units beside: %s", got)
	}
	b.sh("cd /opt/edge && cp -a versions/1.0.0 versions/1.1.5 && rm -r versions/1.1.5/share && ln -sfn versions/1.1.5 current && systemctl stop app@1-agent && { systemctl restart app@1.service || :; }")
	defer func() {
		if t.Failed() {
			t.Log(b.sh("systemctl list-jobs; systemctl status 'app@1*' 'app:1*'; journalctl -o short-precise --no-pager -n 200 -u 'app*'; true"))
		}
	}()
	b.sh(`timeout 60 sh -c 'until [ "$(readlink /opt/edge/current)" = versions/1.0.0 ] && systemctl is-active -q app@1; do sleep 0.2; done'`)
	if st, err := b.node.Status(b.ctx); err != nil || st.Status != "rolled_back" || b.current() != "1.0.0" {
		t.Errorf("%+v, %v, %s", st, err, b.current())
	}
}
