package rig_test

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/bilbycast/edge-agent/manager-sim/fakerelease"
	"github.com/bilbycast/edge-agent/manager-sim/fakesig"
	"github.com/bilbycast/edge-agent/manager-sim/rig"
)

// Sigstore gets new keys after the agents of a fleet were built: a release that
// brings the newer trust root is taken, if the TUF keys prove that root, and
// the root is kept; one that brings a forged one is refused. Who serves it does
// not matter.
func TestATrustRootComesWithARelease(t *testing.T) {
	b := setup(t, rig.NodeConfig{})
	put := func(dir, name string, text []byte) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, name), text, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	put(b.TrustDir(), "tuf_root.json", fakesig.TUFRoot(1, "ab", "t", "ab")) // what is compiled in
	// Another Sigstore's releases, on the same host.
	publish := func(version, targetsKey string) {
		t.Helper()
		dir := t.TempDir()
		p, err := fakerelease.Publish(dir, fakerelease.Options{Version: version, Binary: b.bin[version]})
		if err != nil {
			t.Fatal(err)
		}
		root, err := os.ReadFile(filepath.Join(p.TrustDir, "trusted_root.json"))
		if err != nil {
			t.Fatal(err)
		}
		to := filepath.Join(b.Releases, "www", "acme", "edge", "releases", "download", "v"+version)
		if err := os.CopyFS(to, os.DirFS(p.Dir)); err != nil {
			t.Fatal(err)
		}
		put(to, "2.root.json", fakesig.TUFRoot(2, "bc", "u", "abc")) // a key was rotated meanwhile
		put(to, "targets.json", fakesig.TUFTargets(7, root, targetsKey))
		put(to, "trusted_root.json", root)
	}
	publish("1.2.0", "t") // by the key that was revoked
	publish("1.1.0", "u")
	end := func(version string) rig.Entry {
		t.Helper()
		mark := len(b.Timeline.Since(0))
		if _, err := b.Upgrade(b.ctx, b.id, version); err != nil {
			t.Fatal(err)
		}
		return b.wait(mark, "the end of "+version, func(e rig.Entry) bool {
			return e.ErrorCode == "upgrade_completed" || strings.HasPrefix(e.ErrorCode, "upgrade_") && strings.HasSuffix(e.ErrorCode, "_invalid")
		})
	}
	trust := func() (source string, targets int) {
		t.Helper()
		cmd := exec.CommandContext(b.ctx, b.bin["1.0.0"], "trust", "show", "--json", "--root", b.node.Root)
		cmd.Env = append(os.Environ(), "EDGE_AGENT_SIM_TRUST="+b.TrustDir())
		out, err := cmd.Output()
		if err != nil {
			t.Fatal(err)
		}
		var r struct {
			Source  string `json:"source"`
			Targets int    `json:"tuf_targets_version"`
		}
		if err := json.Unmarshal(out, &r); err != nil {
			t.Fatal(err)
		}
		return r.Source, r.Targets
	}
	if e := end("1.2.0"); e.ErrorCode != "upgrade_rekor_invalid" {
		t.Errorf("a forged root: %s %s", e.ErrorCode, e.Message)
	}
	if source, _ := trust(); source != "compiled in" {
		t.Errorf("a forged root is kept: %s", source)
	}
	if e := end("1.1.0"); e.ErrorCode != "upgrade_completed" {
		t.Errorf("a proven root: %s %s", e.ErrorCode, e.Message)
	}
	if source, targets := trust(); source != "renewed" || targets != 7 {
		t.Errorf("the trust is %s, of targets %d", source, targets)
	}
	// The log that the new root does not know any more is not believed any more.
	b.publish("1.3.0", "")
	if e := end("1.3.0"); e.ErrorCode != "upgrade_rekor_invalid" {
		t.Errorf("by the log that was replaced: %s %s", e.ErrorCode, e.Message)
	}
}
