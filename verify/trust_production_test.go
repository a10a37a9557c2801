//go:build !sim

package verify_test

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/bilbycast/edge-agent/manager-sim/fakesig"
	"github.com/bilbycast/edge-agent/release"
	"github.com/bilbycast/edge-agent/verify"
)

// A production build does not trust a simulated Sigstore, not even one that
// claims to be our own workflow, and not with the simulation's variable set.
func TestProductionRefusesSimulation(t *testing.T) {
	dir := t.TempDir()
	root, err := instance().TrustedRoot()
	if err != nil {
		t.Fatal(err)
	}
	for name, b := range map[string][]byte{
		"trusted_root.json": root, "release_ca.pem": nil,
		"sim.json": []byte(`{"release_host":"https://127.0.0.1:1","signers":[]}`),
	} {
		if err := os.WriteFile(filepath.Join(dir, name), b, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv("EDGE_AGENT_SIM_TRUST", dir)

	trust, err := verify.Load(nil)
	if err != nil {
		t.Fatal(err)
	}
	if left := trust.LeftOut(); len(left) > 0 {
		t.Errorf("the embedded trust root has entries that this program does not understand: %q", left)
	}
	v := release.MustVersion("1.5.0")
	const own = "https://github.com/Bilbycast/bilbycast-edge/releases/download/v1.5.0"
	if got := trust.FetchURLs(v); !slices.Equal(got, []string{own}) {
		t.Errorf("fetches from %s", got)
	}
	// A repository that was renamed has a row for each name, and perhaps for each workflow.
	row := verify.DefaultSigners()[0]
	old, nightly := row, row
	old.Repository, nightly.Workflow = "https://github.com/Bilbycast/edge", ".github/workflows/other.yml"
	renamed, err := verify.Load([]verify.Signer{row, nightly, old})
	if err != nil {
		t.Fatal(err)
	}
	if got := renamed.FetchURLs(v); !slices.Equal(got, []string{own, "https://github.com/Bilbycast/edge/releases/download/v1.5.0"}) {
		t.Errorf("fetches from %s", got)
	}
	m := manifest(t, "1.5.0")
	ours := fakesig.GitHub("Bilbycast/bilbycast-edge", ".github/workflows/nightly-release.yml", "refs/tags/v1.5.0", commit)
	for _, opt := range []fakesig.Opt{{}, {RekorV2: true}} {
		b, err := instance().Sign(m, ours, time.Now(), opt)
		if err != nil {
			t.Fatal(err)
		}
		_, err = trust.Release(m, b)
		var coded *release.Error
		if !errors.As(err, &coded) || coded.Code != release.RekorInvalid {
			t.Errorf("got %v", err)
		}
	}
	if verify.Simulation || verify.VersionSuffix != "" {
		t.Error("a production build calls itself a simulation")
	}
}
