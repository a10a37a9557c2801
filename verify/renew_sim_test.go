//go:build sim

package verify

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/bilbycast/edge-agent/manager-sim/fakesig"
)

// A renewed root that is kept is used, and one that does not prove itself is
// not, but the one that came with the program.
func TestRenewedRootIsUsed(t *testing.T) {
	_, old := sigstore(t)
	_, fresh := sigstore(t)
	dir := t.TempDir()
	t.Setenv(TrustDirEnv, dir)
	for name, b := range map[string][]byte{
		"trusted_root.json": old, "release_ca.pem": nil, "tuf_root.json": fakesig.TUFRoot(1, "a", "t", "a"),
		"sim.json": []byte(`{"signers":[{"issuer":"https://x","repository":"https://github.com/acme/edge","workflow":".github/workflows/release.yml","ref":"refs/tags/v*"}]}`),
	} {
		if err := os.WriteFile(filepath.Join(dir, name), b, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	files := dirOf(map[string][]byte{targetsFile: fakesig.TUFTargets(3, fresh, "t"), trustedRootFile: fresh})
	r, err := Renew(files, dirOf(nil))
	if err != nil {
		t.Fatal(err)
	}
	used, unfit, err := LoadKept(nil, dirOf(r.Files))
	if err != nil || unfit != nil {
		t.Fatal(unfit, err)
	}
	if root, targets, ok := used.Renewed(); root != 1 || targets != 3 || !ok {
		t.Errorf("root %d, targets %d, %v", root, targets, ok)
	}
	r.Files[trustedRootFile] = old
	used, unfit, err = LoadKept(nil, dirOf(r.Files))
	if _, _, renewed := used.Renewed(); err != nil || unfit == nil || renewed {
		t.Errorf("a root that was changed: %v, %v", unfit, err)
	}
	if used, unfit, err = LoadKept(nil, dirOf(nil)); err != nil || unfit != nil || len(used.Keys()) == 0 {
		t.Errorf("nothing kept: %v, %v", unfit, err)
	}
}
