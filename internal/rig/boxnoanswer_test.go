package rig_test

import (
	"strings"
	"testing"

	"github.com/bilbycast/edge-agent/internal/box"
	"github.com/bilbycast/edge-agent/internal/rig"
)

// slowSystemctl makes systemctl answer users other than root after 10 s. A program is always
// there: what restarts a service runs it at any moment.
const slowSystemctl = `cp -p /usr/bin/systemctl /usr/bin/systemctl.real && printf '#!/bin/sh\ntest "$(id -u)" = 0 || sleep 10\nexec /usr/bin/systemctl.real "$@"\n' >/usr/bin/systemctl.slow && chmod 755 /usr/bin/systemctl.slow && mv /usr/bin/systemctl.slow /usr/bin/systemctl`

// systemctl answers the service's user after 10 s, which is longer than the agent waits, and
// as long as the health window. That refuses no upgrade, and fails no start of the trial.
func TestUnderSystemdSystemctlIsSlow(t *testing.T) {
	box.Long(t)
	b := setupBox(t, rig.NodeConfig{HoldSecs: 1, MaxBootAttempts: 1}, box.Options{})
	b.publish("1.1.0", "")
	b.sh(slowSystemctl + ` && systemctl restart edge`)
	mark, _ := b.upgrade("1.1.0")
	if e := b.event(mark, "upgrade_completed"); !strings.Contains(e.Message, "after 1 start") {
		t.Errorf("the event says %q", e.Message)
	}
	b.ends("1.1.0", "stable", "upgrade completed")
}
