package verify_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/bilbycast/edge-agent/manager-sim/fakesig"
	"github.com/bilbycast/edge-agent/verify"
)

// Real cosign takes our fake bundles, and refuses one for another manifest: so
// the fake is like the real thing. It is optional: cosign takes minutes to build.
//
//	CGO_ENABLED=0 go install github.com/sigstore/cosign/v3/cmd/cosign@v3.1.2
func TestCosignTakesOurBundles(t *testing.T) {
	t.Parallel()
	cosign, err := exec.LookPath("cosign")
	if err != nil {
		t.Skip("cosign is not installed")
	}
	root, err := instance().TrustedRoot()
	if err != nil {
		t.Fatal(err)
	}
	for name, opt := range map[string]fakesig.Opt{"rekor v1": {}, "rekor v1 and a timestamp": {TSA: true}, "rekor v2": {RekorV2: true}} {
		dir := t.TempDir()
		m := manifest(t, "1.5.0")
		b, err := instance().Sign(m, claims(), signedAt, opt)
		if err != nil {
			t.Fatal(err)
		}
		for file, data := range map[string][]byte{"manifest.json": m, "other.json": append(m[:len(m):len(m)], ' '), "bundle": b, "root.json": root} {
			if err := os.WriteFile(filepath.Join(dir, file), data, 0o644); err != nil {
				t.Fatal(err)
			}
		}
		run := func(file string) ([]byte, error) {
			cmd := exec.CommandContext(t.Context(), cosign, "verify-blob", "--bundle", "bundle", "--trusted-root", "root.json",
				"--certificate-oidc-issuer", verify.GitHubIssuer, "--certificate-identity", claims().SAN, file)
			cmd.Dir, cmd.Env = dir, append(os.Environ(), "HOME="+dir)
			return cmd.CombinedOutput()
		}
		if out, err := run("manifest.json"); err != nil {
			t.Errorf("%s: %v\n%s", name, err, out)
		}
		if out, err := run("other.json"); err == nil {
			t.Errorf("%s: cosign takes another manifest\n%s", name, out)
		}
	}
}
