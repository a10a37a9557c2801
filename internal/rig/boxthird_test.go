package rig_test

import (
	"strings"
	"testing"

	"github.com/bilbycast/edge-agent/internal/box"
	"github.com/bilbycast/edge-agent/internal/rig"
)

// Somebody points current to a third version, which cannot run, while a healthy version is
// on trial, and restarts the service after the hold: the third version has its own starts,
// and the version before the trial returns.
func TestUnderSystemdAThirdVersionDuringATrial(t *testing.T) {
	b := setupBox(t, rig.NodeConfig{HoldSecs: 3, WindowSecs: 30}, box.Options{})
	b.publish("1.1.0", "")
	mark, _ := b.upgrade("1.1.0")
	said := func(what string) {
		b.sh("for i in $(seq 200); do journalctl -u edge -o cat --no-pager | grep -q '" + what + "' && exit; sleep 0.1; done; exit 1")
	}
	said("the new version is healthy; holding")
	b.sh("cd " + rig.BoxRoot + " && mkdir versions/1.0.5 && printf '#!/bin/sh\nexit 1\n' >versions/1.0.5/edge-agent && chmod 755 versions/1.0.5/edge-agent && chown -R edge: versions/1.0.5 && ln -sfn versions/1.0.5 current")
	said("is not on trial any more")
	if out := b.sh("cd " + rig.BoxRoot + " && readlink last-good && cat state.json"); !strings.Contains(out, "versions/1.0.0") || !strings.Contains(out, `"target": "1.0.5"`) && !strings.Contains(out, `"target":"1.0.5"`) || !strings.Contains(out, "pending_health") {
		t.Errorf("after the hold: %s", out)
	}
	b.sh("systemctl --no-block restart edge")
	if e := b.event(mark, "upgrade_rolled_back"); !strings.Contains(e.Message, "1.0.5 did not come up healthy in 3 starts") {
		t.Errorf("%+v", e)
	}
}
