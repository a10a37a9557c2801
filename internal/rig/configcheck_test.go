package rig_test

import (
	"errors"
	"github.com/bilbycast/edge-agent/internal/box"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/bilbycast/edge-agent/internal/rig"
	"github.com/bilbycast/edge-agent/manager-sim/fakerelease"
	"github.com/bilbycast/edge-agent/release"
)

// declares makes the later releases of a bench declare the commands of edge-agent.
func (b *bench) declares() {
	b.releases.Commands = []string{release.CommandProbe, release.CommandConfigCheck}
}

// changeConfig adds lines to the config.toml under the running agent. The undo restores it.
func (b *bench) changeConfig(lines string) (undo func()) {
	b.t.Helper()
	path := filepath.Join(b.node.Root, "config.toml")
	text, err := os.ReadFile(path)
	if err == nil {
		err = os.WriteFile(path, append(text, lines...), 0o600)
	}
	if err != nil {
		b.t.Fatal(err)
	}
	return func() {
		if err := os.WriteFile(path, text, 0o600); err != nil {
			b.t.Fatal(err)
		}
	}
}

// refused checks that an upgrade is refused with a code, and starts nothing.
func (b *bench) refused(version string, code release.Code, says string) {
	b.t.Helper()
	mark, _ := b.upgrade(version)
	if e := b.event(mark, string(code)); !strings.Contains(e.Message, says) {
		b.t.Errorf("the event says %q, want %q", e.Message, says)
	}
	b.checkRuns("1.0.0", "stable", "failed")
	for _, e := range b.Timeline.Since(mark) {
		if e.From == rig.FromNode && e.Type != "status" {
			b.t.Errorf("the service changed: %+v", e)
		}
	}
}

// The new version's real `config check` reads the config.toml that the node has before the
// swap, not the one with which the running version started.
func TestTheConfigurationBeforeTheSwap(t *testing.T) {
	box.Slow(t)
	b := setup(t, rig.NodeConfig{})
	b.declares()
	b.publish("1.1.0", "")
	script := filepath.Join(t.TempDir(), "hangs")
	if err := os.WriteFile(script, []byte("#!/bin/sh\n[ \"$1\" != config ] || while :; do :; done\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	hanging := b.releases
	hanging.Version, hanging.Binary = "1.2.0", script
	if _, err := b.Publish(hanging); err != nil {
		t.Fatal(err)
	}

	undo := b.changeConfig("\n[upgrade.windows]\nmon = 1\n")
	b.refused("1.1.0", release.ConfigRefused, `unknown key "upgrade.windows"`)
	undo()
	b.refused("1.2.0", release.ExtractFailed, "`edge-agent config check` did not end within 10s of processor time")
	b.changeConfig("\n[metrics]\nport = 1\n")
	b.upgradeTo("1.1.0")
	journal, err := os.ReadFile(b.node.Journal)
	if err != nil || !strings.Contains(string(journal), "1.1.0 runs with config.toml, but not with everything in it") {
		t.Errorf("the journal has no warning: %v", err)
	}
}

// A release that does not declare `config check` is never asked.
func TestTheConfigurationIsNotCheckedUndeclared(t *testing.T) {
	b := setup(t, rig.NodeConfig{})
	dir := t.TempDir()
	wrapper, asked := filepath.Join(dir, "wrapper"), filepath.Join(dir, "asked")
	script := "#!/bin/sh\n[ \"$1\" = config ] && : >" + asked + "\nexec \"$(dirname \"$0\")/program\" \"$@\"\n"
	if err := os.WriteFile(wrapper, []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	if _, err := b.Publish(fakerelease.Options{Version: "1.1.0", Binary: wrapper, Extra: map[string]string{"program": b.bin["1.1.0"]}}); err != nil {
		t.Fatal(err)
	}
	b.changeConfig("\n[upgrade.windows]\nmon = 1\n")
	b.upgradeTo("1.1.0")
	if _, err := os.Stat(asked); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the program was asked: %v", err)
	}
}
