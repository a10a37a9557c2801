package rig_test

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/bilbycast/edge-agent/internal/box"
	"github.com/bilbycast/edge-agent/internal/rig"
)

// brokenStarts are settings with which systemd starts nothing when share/ is missing in
// the version that current points to.
var brokenStarts = []struct{ section, setting, why string }{
	{"Service", "WorkingDirectory=CURRENT/share", "the working directory could not be entered"},
	{"Service", "EnvironmentFile=CURRENT/share/env", "a file or a directory that the unit names is missing"},
	{"Service", "LoadCredential=key:CURRENT/share/env", ""},
	{"Service", "BindReadOnlyPaths=CURRENT/share:/srv", "the sandbox could not be set up"},
	{"Service", "StandardInput=file:CURRENT/share/env", ""},
	{"Service", "ExecCondition=/usr/bin/test -e CURRENT/share", ""},
	{"Unit", "ConditionPathExists=CURRENT/share", "a condition of its unit is not met"},
	{"Unit", "ConditionFileNotEmpty=|CURRENT/share/env", "a condition of its unit is not met"},
	{"Unit", "AssertPathIsDirectory=CURRENT/share", "a condition of its unit is not met"},
}

// dropIn replaces the drop-in of edge.service that a test uses; "" removes it.
func (b *inBox) dropIn(section, setting string) {
	b.t.Helper()
	path, err := b.node.Path(b.ctx, "/etc/systemd/system/edge.service.d/60-test.conf")
	if err != nil {
		b.t.Fatal(err)
	}
	text := fmt.Sprintf("[%s]\n%s\n", section, strings.ReplaceAll(setting, "CURRENT", rig.BoxRoot+"/current"))
	b.sh("mkdir -p /etc/systemd/system/edge.service.d")
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		b.t.Fatal(err)
	}
	b.sh("systemctl daemon-reload")
}

// trial makes a version like 1.0.0, without share/, and starts it as an operator does.
func (b *inBox) trial(version string) {
	b.t.Helper()
	b.sh(fmt.Sprintf(`cd %s && cp -a versions/1.0.0 versions/%s && rm -r versions/%[2]s/share && ln -sfn versions/%[2]s current && { systemctl restart edge.service || :; }`, rig.BoxRoot, version))
}

// Every start is counted, and the version is rolled back, also where a setting of the unit
// fails before the first command, or makes systemd skip the start.
func TestUnderSystemdStartsThatFailBeforeTheWatchdog(t *testing.T) {
	box.Long(t)
	b := setupBox(t, rig.NodeConfig{HoldSecs: 1}, box.Options{})
	b.sh("cd " + rig.BoxRoot + "/versions/1.0.0 && mkdir share && echo A=1 >share/env && chmod -R go+rX share && chown -R edge: share")
	for i, tt := range brokenStarts {
		b.dropIn(tt.section, tt.setting)
		mark := b.Timeline.Mark()
		version := fmt.Sprintf("1.1.%d", i)
		b.trial(version)
		e := b.event(mark, "upgrade_rolled_back")
		if !strings.Contains(e.Message, "rolled back from "+version+" to 1.0.0") || !strings.Contains(e.Message, "in 3 starts") || !strings.Contains(e.Message, tt.why) {
			t.Errorf("%s: the event says %q", tt.setting, e.Message)
		}
		b.wait(mark, "the old version", func(e rig.Entry) bool { return e.Type == "authenticated" && e.Version == "1.0.0" })
		b.ends("1.0.0", "rolled_back", "rolled back: "+version)
	}
}

// The same for an attached service, also while its agent is restarted again and again.
func TestUnderSystemdAttachedStartsThatFailBeforeTheWatchdog(t *testing.T) {
	box.Long(t)
	b := setupAttached(t, rig.NodeConfig{})
	b.sh("cd " + rig.BoxRoot + "/versions/1.0.0 && mkdir share && echo A=1 >share/env && chown -R edge: share")
	for i, tt := range brokenStarts {
		if strings.HasPrefix(tt.setting, "ExecCondition") {
			tt.setting = "ExecCondition=\n" + tt.setting // before that of the watchdog
		}
		b.dropIn(tt.section, tt.setting)
		mark := b.Timeline.Mark()
		version := fmt.Sprintf("1.1.%d", i)
		b.trial(version)
		b.sh("systemctl restart edge-agent.service")
		e := b.event(mark, "upgrade_rolled_back")
		if !strings.Contains(e.Message, "rolled back from "+version+" to 1.0.0") || !strings.Contains(e.Message, "in 3 starts") {
			t.Errorf("%s: the event says %q", tt.setting, e.Message)
		}
		b.runs("1.0.0", "rolled_back")
	}
}

// A release that lacks a path which the unit names below current is refused before the
// swap, with the name of the setting. A setting marked optional refuses nothing.
func TestUnderSystemdAReleaseThatLacksAPath(t *testing.T) {
	box.Long(t)
	b := setupBox(t, rig.NodeConfig{HoldSecs: 1}, box.Options{})
	b.sh("cd " + rig.BoxRoot + "/versions/1.0.0 && mkdir share && echo A=1 >share/env && chown -R edge: share")
	b.publish("1.1.0", "")
	for _, i := range []int{0, 2, 5, 6} { // a node starts few upgrades in a row; TestFitVersion has all
		tt := brokenStarts[i]
		b.dropIn(tt.section, tt.setting)
		mark := b.Timeline.Mark()
		b.upgrade("1.1.0")
		e := b.event(mark, "upgrade_internal")
		key, _, _ := strings.Cut(tt.setting, "=")
		if !strings.Contains(e.Message, key+"=") || !strings.Contains(e.Message, "60-test.conf") {
			t.Errorf("%s: the event says %q", tt.setting, e.Message)
		}
		if got := b.current(); got != "1.0.0" {
			t.Fatalf("%s: %s runs", tt.setting, got)
		}
	}
	b.dropIn("Service", "WorkingDirectory=-CURRENT/share\nEnvironmentFile=-CURRENT/share/env")
	mark := b.Timeline.Mark()
	b.upgrade("1.1.0")
	b.event(mark, "upgrade_completed")
}

// Nodes with the units of an earlier version keep working. The doctor names the unit that
// they lack, and installing again adds it.
func TestUnderSystemdUnitsOfAnEarlierVersion(t *testing.T) {
	b := setupBox(t, rig.NodeConfig{HoldSecs: 1}, box.Options{})
	b.sh("cd /etc/systemd/system && rm edge-watchdog.service edge-retry.service edge-restart.service edge-respawn.* && sed -i '/^Wants=/d; s/^After=.*/After=network.target/' edge.service && systemctl daemon-reload && systemctl restart edge.service")
	b.publish("1.1.0", "")
	mark := b.Timeline.Mark()
	b.upgrade("1.1.0")
	b.event(mark, "upgrade_completed")
	var bad []finding
	for _, f := range b.doctor("") {
		if !f.OK {
			bad = append(bad, f)
		}
	}
	if len(bad) != 1 || bad[0].What != "unit edge-watchdog.service" {
		t.Fatalf("doctor finds %+v", bad)
	}
	remedy, _ := strings.CutPrefix(bad[0].Remedy, "write the units again: ")
	b.sh("PATH=/opt/bin:$PATH; " + strings.Replace(remedy, ", then: ", " && ", 1))
	b.well("the remedy")
}
