package rig_test

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/bilbycast/edge-agent/internal/rig"
	"github.com/bilbycast/edge-agent/manager-sim/fakerelease"
	"github.com/bilbycast/edge-agent/manager-sim/fakesig"
)

// elsewhere publishes a release that an unknown Sigstore signed, and adds the trust root of
// that Sigstore. targetsKey signed the root's targets.json.
func elsewhere(t *testing.T, version, program, targetsKey string) (dir string) {
	t.Helper()
	dir = t.TempDir()
	p, err := fakerelease.Publish(dir, fakerelease.Options{Version: version, Binary: program})
	if err != nil {
		t.Fatal(err)
	}
	root, err := os.ReadFile(filepath.Join(p.TrustDir, "trusted_root.json"))
	if err != nil {
		t.Fatal(err)
	}
	for name, b := range map[string][]byte{
		"2.root.json":       fakesig.TUFRoot(2, "bc", "u", "abc"), // a key was rotated meanwhile
		"targets.json":      fakesig.TUFTargets(7, root, targetsKey),
		"trusted_root.json": root,
	} {
		if err := os.WriteFile(filepath.Join(p.Dir, name), b, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// writeTUFRoot writes the TUF root that the nodes have compiled in.
func writeTUFRoot(t *testing.T, r *rig.Rig) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(r.TrustDir(), "tuf_root.json"), fakesig.TUFRoot(1, "ab", "t", "ab"), 0o644); err != nil {
		t.Fatal(err)
	}
}

// trustOf returns the output of `trust show` for a node.
func trustOf(t *testing.T, r *rig.Rig, program, root string) (source string, targets int) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), program, "trust", "show", "--json", "--root", root)
	cmd.Env = append(os.Environ(), "EDGE_AGENT_SIM_TRUST="+r.TrustDir())
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	var rep struct {
		Source  string `json:"source"`
		Targets int    `json:"tuf_targets_version"`
	}
	if err := json.Unmarshal(out, &rep); err != nil {
		t.Fatal(err)
	}
	return rep.Source, rep.Targets
}

// Sigstore's keys change after the agents were built. A release with the newer trust root
// is installed if the TUF keys prove the root, and the node keeps the root. A release with
// a forged root is refused. The host of the root does not matter.
func TestATrustRootIsRenewedByARelease(t *testing.T) {
	b := setup(t, rig.NodeConfig{})
	writeTUFRoot(t, b.Rig)
	publish := func(version, targetsKey string) {
		t.Helper()
		const at = "www/acme/edge/releases/download"
		from := filepath.Join(elsewhere(t, version, b.bin[version], targetsKey), at)
		if err := os.CopyFS(filepath.Join(b.Releases, at), os.DirFS(from)); err != nil {
			t.Fatal(err)
		}
	}
	publish("1.2.0", "t") // by the key that was revoked
	publish("1.1.0", "u")
	end := func(version string) rig.Entry {
		t.Helper()
		id, err := b.Upgrade(b.ctx, b.id, version)
		if err != nil {
			t.Fatal(err)
		}
		return b.wait(0, "the end of "+version, func(e rig.Entry) bool {
			return e.CommandID == id && e.Type == "event" && (e.ErrorCode == "upgrade_completed" || strings.HasPrefix(e.ErrorCode, "upgrade_") && strings.HasSuffix(e.ErrorCode, "_invalid"))
		})
	}
	if e := end("1.2.0"); e.ErrorCode != "upgrade_rekor_invalid" {
		t.Errorf("a forged root: %s %s", e.ErrorCode, e.Message)
	}
	if source, _ := trustOf(t, b.Rig, b.bin["1.0.0"], b.node.Root); source != "compiled in" {
		t.Errorf("a forged root is kept: %s", source)
	}
	if e := end("1.1.0"); e.ErrorCode != "upgrade_completed" {
		t.Errorf("a proven root: %s %s", e.ErrorCode, e.Message)
	}
	if source, targets := trustOf(t, b.Rig, b.bin["1.0.0"], b.node.Root); source != "renewed" || targets != 7 {
		t.Errorf("the trust is %s, of targets %d", source, targets)
	}
	// The log that the new root no longer lists is no longer trusted.
	b.publish("1.3.0", "")
	if e := end("1.3.0"); e.ErrorCode != "upgrade_rekor_invalid" {
		t.Errorf("by the log that was replaced: %s %s", e.ErrorCode, e.Message)
	}
}

// The same works from a stick without a network.
func TestATrustRootIsRenewedFromAStick(t *testing.T) {
	t.Parallel()
	bin := builds(t)
	r := newRig(t)
	if _, err := r.Publish(fakerelease.Options{Version: "1.0.0", Binary: bin["1.0.0"]}); err != nil { // for the trust directory
		t.Fatal(err)
	}
	writeTUFRoot(t, r)
	n, err := r.Install(t.Context(), rig.NodeConfig{Version: "1.0.0", Binary: bin["1.0.0"]})
	if err != nil {
		t.Fatal(err)
	}
	stage := func(targetsKey string) (string, error) {
		t.Helper()
		tar := filepath.Join(t.TempDir(), "edge.tar")
		if err := fakerelease.Bundle(elsewhere(t, "1.1.0", bin["1.1.0"], targetsKey), fakerelease.DefaultRepository, "1.1.0", tar); err != nil {
			t.Fatal(err)
		}
		cmd := exec.CommandContext(t.Context(), bin["1.0.0"], "stage", "--config", filepath.Join(n.Root, "config.toml"), "--from", tar)
		cmd.Env = append(os.Environ(), "EDGE_AGENT_SIM_TRUST="+r.TrustDir())
		out, err := cmd.CombinedOutput()
		return string(out), err
	}
	if out, err := stage("t"); err == nil || !strings.Contains(out, "the trust root beside the release is not accepted") {
		t.Errorf("a forged root: %v %s", err, out)
	}
	if out, err := stage("u"); err != nil || !strings.Contains(out, "1.1.0 is staged") {
		t.Errorf("a proven root: %v %s", err, out)
	}
	if source, targets := trustOf(t, r, bin["1.0.0"], n.Root); source != "renewed" || targets != 7 {
		t.Errorf("the trust is %s, of targets %d", source, targets)
	}
}
