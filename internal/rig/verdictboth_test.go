package rig_test

import (
	"fmt"
	"os/exec"
	"path/filepath"
	"time"

	"github.com/bilbycast/edge-agent/internal/line"
	"github.com/bilbycast/edge-agent/internal/rig"
	"github.com/bilbycast/edge-agent/internal/supervise"
	"github.com/bilbycast/edge-agent/manager-sim/fakerelease"
)

// A day, in rows that are faster than the others: 24 windows.
const (
	dayFaster     = 1000
	dayWindowSecs = 3600
	day           = 24 * time.Hour / dayFaster
)

// bothFaults are rows with a fault of the world and one of the version, or with more than
// one new version.
func bothFaults() []verdict {
	refused := always(line.Refused)
	aDay := func(w *world) { w.pass(day) }
	return []verdict{
		{name: "world bad for a day", faster: dayFaster, windowSecs: dayWindowSecs, swap: refused, during: aDay, meanwhile: unproven, end: kept},
		{name: "link alone bad, and the world for a day", faster: dayFaster, windowSecs: dayWindowSecs, fault: "rejects-the-ca", swap: refused, during: aDay, meanwhile: unproven, end: rolledBack},
		{name: "bad check and bad world", fault: "never-healthy", swap: refused, end: rolledBack},
		{name: "bad link and bad world", fault: "rejects-the-ca", swap: refused, meanwhile: unproven, end: rolledBack},
		{name: "last-good cannot read today's config.toml", fault: "rejects-the-ca", config: oldProbeFails, swap: newerKey, meanwhile: unproven, end: unproven},
		{name: "an unproven version, and a newer one that crashes", config: neverLastGood, swap: refused, during: newerFromAStick, end: rolledBack,
			events: []string{"upgrade_superseded", "upgrade_rolled_back"}},
	}
}

// neverLastGood checks at each change of the service that last-good is 1.0.0.
func neverLastGood(w *world, c *rig.NodeConfig) {
	before := c.OnChange
	c.OnChange = func(e supervise.Event) {
		before(e)
		if tree, err := w.node.Tree(); err == nil && tree.LastGood.String() != "1.0.0" {
			w.t.Errorf("last-good is %s", tree.LastGood)
		}
	}
}

// newerFromAStick waits until 1.1.0 is unproven, and then has an operator install 1.2.0,
// which crashes.
func newerFromAStick(w *world) {
	w.until("unproven", func() bool { return w.now() == unproven })
	w.releaseOf("1.2.0", "exits-at-once")
	stick := filepath.Join(w.t.TempDir(), "stick.tar")
	if err := fakerelease.Bundle(w.Releases, fakerelease.DefaultRepository, "1.2.0", stick); err != nil {
		w.t.Fatal(err)
	}
	cmd := exec.CommandContext(w.ctx, w.bin["1.2.0"], "stage", "--config", w.config(), "--from", stick, "--apply")
	cmd.Env = append(w.env, "EDGE_AGENT_SIM_TRUST="+w.TrustDir())
	if out, err := cmd.CombinedOutput(); err != nil {
		w.t.Fatalf("%v: %s", err, out)
	}
	w.until("the rollback", func() bool { return w.now() == rolledBack })
}

// oldProbeFails makes 1.0.0 a version whose probe refuses the configuration, once an operator
// has set in it what only newer versions know.
func oldProbeFails(w *world, c *rig.NodeConfig) {
	w.wrap(c, fmt.Sprintf("if [ \"$1\" = probe ] && grep -q '# newer' %s; then echo 'unknown key' >&2; exit 1; fi", w.config()))
}

// newerKey is such a change of the configuration.
func newerKey(w *world) { w.changeConfig("\n# newer\n") }
