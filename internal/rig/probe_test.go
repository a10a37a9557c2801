package rig_test

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/bilbycast/edge-agent/internal/rig"
)

// The real command probes the real manager beside the running agent, whose session goes
// on. While the manager cannot serve sessions, the probe fails as well.
func TestProbe(t *testing.T) {
	b := setup(t, rig.NodeConfig{})
	probe := func(args ...string) (out string, code int) {
		t.Helper()
		cmd := exec.CommandContext(b.ctx, b.bin["1.1.0"], append([]string{"probe", "--config", filepath.Join(b.node.Root, "config.toml")}, args...)...)
		cmd.Env = append(os.Environ(), "EDGE_AGENT_SIM_FASTER=30")
		text, err := cmd.CombinedOutput()
		var exit *exec.ExitError
		if err != nil && !errors.As(err, &exit) {
			t.Fatal(err)
		}
		return string(text), cmd.ProcessState.ExitCode()
	}
	mark := b.Timeline.Mark()
	before := tree(t, b.node.Root)
	out, code := probe()
	if code != 0 || !strings.Contains(out, "  held       ok") {
		t.Errorf("exit code %d:\n%s", code, out)
	}
	if out, code = probe("--json", "--manager-key", strings.Repeat("0", 64)); code != 3 || !strings.Contains(out, `"stage":"auth","ok":false,"skipped":true`) {
		t.Errorf("another key: exit code %d:\n%s", code, out)
	}
	if after := tree(t, b.node.Root); strings.Join(after, "\n") != strings.Join(before, "\n") {
		t.Errorf("the root changed:\n%q\n%q", before, after)
	}
	b.Manager.SetEnding(true)
	if out, code = probe(); code != 1 || !strings.Contains(out, "  auth       FAILED") {
		t.Errorf("a manager that ends each session: exit code %d:\n%s", code, out)
	}
	b.Manager.SetEnding(false)
	b.Manager.SetUnavailable(time.Second)
	if out, code = probe(); code != 1 || !strings.Contains(out, "  websocket  FAILED") || !strings.Contains(out, "503") {
		t.Errorf("503: exit code %d:\n%s", code, out)
	}
	b.Manager.SetUnavailable(0)
	for _, e := range b.Timeline.Since(mark) {
		if e.Type == "disconnected" || e.Type == "authenticated" || e.Type == "event" {
			t.Errorf("the probes changed the node: %+v", e)
		}
	}
}
