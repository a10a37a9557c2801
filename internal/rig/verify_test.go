package rig_test

import (
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/bilbycast/edge-agent/internal/rig"
	"github.com/bilbycast/edge-agent/manager-sim/fakerelease"
)

// What an auditor asks of a release: by version, by URL, from a directory and
// from a tar file; good and bad; for a node and for none.
func TestVerifyCommand(t *testing.T) {
	if testing.Short() {
		t.Skip("it builds and publishes a release for each fault")
	}
	b := setup(t, rig.NodeConfig{})
	b.publish("1.1.0", "")
	b.publish("1.2.0", fakerelease.BadChecksum)
	b.publish("1.3.0", fakerelease.WrongIdentity)
	b.publish("1.4.0", fakerelease.NoLogEntry)
	b.publish("0.9.0", "")
	type report struct {
		Verified     bool `json:"verified"`
		WouldInstall bool `json:"would_install"`
		Code, Reason string
		Running      string
		Manifest     struct{ Version string }
		Signature    struct {
			Workflow, Commit, Run, Log string
			LogIndex                   int64  `json:"log_index"`
			TimeSource                 string `json:"time_source"`
		}
		Artefact, Tarball, Cosign string
	}
	run := func(args ...string) (report, string, int) {
		t.Helper()
		cmd := exec.CommandContext(t.Context(), b.bin["1.0.0"], append([]string{"verify"}, args...)...)
		cmd.Env = append(os.Environ(), "EDGE_AGENT_SIM_TRUST="+b.TrustDir())
		out, err := cmd.Output()
		code := 0
		var exit *exec.ExitError
		if errors.As(err, &exit) {
			code = exit.ExitCode()
			out = append(out, exit.Stderr...)
		}
		var r report
		json.NewDecoder(strings.NewReader(string(out))).Decode(&r)
		return r, string(out), code
	}
	config := filepath.Join(b.node.Root, "config.toml")
	dir := func(version string) string {
		return filepath.Join(b.Releases, "www", "acme", "edge", "releases", "download", "v"+version)
	}
	tar := filepath.Join(t.TempDir(), "edge.tar")
	if err := fakerelease.Bundle(b.Releases, fakerelease.DefaultRepository, "1.1.0", tar); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{
		{"1.1.0", "--config", config, "--json"}, {dir("1.1.0"), "--config", config, "--json"}, {tar, "--config", config, "--json"},
		{b.Host + "/acme/edge/releases/download/v1.1.0", "--json"}, {tar, "--json"}, {"1.1.0", "--json"},
	} {
		r, out, code := run(args...)
		s := r.Signature
		if code != 0 || !r.Verified || !r.WouldInstall || r.Manifest.Version != "1.1.0" || r.Artefact == "" || s.Commit == "" || s.Log == "" || s.LogIndex == 0 || s.TimeSource == "" ||
			!strings.Contains(r.Cosign, s.Workflow) || !strings.HasPrefix(s.Run, "https://github.com/acme/edge/actions/runs/") {
			t.Errorf("verify %q: %d %s", args, code, out)
		}
	}
	for _, tt := range []struct {
		args     []string
		exit     int
		verified bool
		want     string
	}{
		{[]string{dir("1.2.0"), "--json"}, 1, true, "upgrade_checksum_mismatch"},
		{[]string{"1.3.0", "--json"}, 1, false, "upgrade_identity_not_allowed"},
		{[]string{"1.4.0", "--json"}, 1, false, "upgrade_rekor_invalid"},
		{[]string{"0.9.0", "--config", config, "--json"}, 1, true, "upgrade_version_too_old"},
		{[]string{"1.0.0", "--config", config, "--json"}, 1, true, "runs already"},
		{[]string{"7.7.7"}, 1, false, "is not there (404)"},
		{[]string{"/nowhere"}, 1, false, "no such file"},
		{[]string{t.TempDir()}, 1, false, "manifest.json"},
		{nil, 2, false, ""},
		{[]string{"a", "b"}, 2, false, ""},
	} {
		r, out, code := run(tt.args...)
		if code != tt.exit || r.Verified != tt.verified || r.WouldInstall || !strings.Contains(out, tt.want) {
			t.Errorf("verify %q: exit %d, want %d with %q: %s", tt.args, code, tt.exit, tt.want, out)
		}
	}
	if _, out, code := run(tar, "--config", config); code != 0 || !strings.Contains(out, "it would be installed") || !strings.Contains(out, "cosign verify-blob --bundle manifest.sig.bundle") {
		t.Errorf("the table: %d %s", code, out)
	} else {
		t.Log(out)
	}
}
