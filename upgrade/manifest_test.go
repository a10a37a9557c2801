package upgrade

import (
	"crypto/sha256"
	"encoding/hex"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/bilbycast/edge-agent/internal/state"
	"github.com/bilbycast/edge-agent/release"
	"github.com/bilbycast/edge-agent/stage"
)

// A release that was published again after its manager pinned the manifest is refused before
// its tarball is downloaded. The pinned one is installed, and its digest is kept.
func TestAPinnedManifest(t *testing.T) {
	t.Parallel()
	trust := trusted(t, nil)
	b, err := os.ReadFile(filepath.Join(published.dir, "www/acme/edge/releases/download/v1.7.0", release.ManifestName))
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(b)
	pinned, v := hex.EncodeToString(sum[:]), release.MustVersion("1.7.0")
	for name, tt := range map[string]struct {
		pin  string
		code release.Code
	}{
		"another": {strings.Repeat("0", 64), release.ManifestChanged}, "the same": {pinned, ""}, "none": {"", ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			n := nodeWith(t, "1.0.0", "")
			p := pipeline(t, &n, trust)
			do(t, n.Layout, func(s state.State, tr state.Tree, _ time.Time) (state.State, state.Tree, error) {
				return state.Accept(s, state.Command{ID: "c", Version: v}), tr, nil
			})
			downloaded := false
			_, err := p.Run(t.Context(), p.Host(v), Request{Version: v, Channel: "stable", ManifestSHA256: tt.pin, CommandID: "c", End: Swap, Downloaded: func() { downloaded = true }})
			if codeOf(err) != tt.code {
				t.Fatalf("got %v, want the code %q", err, tt.code)
			}
			if tt.code == "" {
				if got := stage.ManifestOf(n.Layout, v); got != pinned {
					t.Errorf("the marker has %q, not %s", got, pinned)
				}
				return
			}
			if downloaded || !strings.Contains(err.Error(), pinned) || !strings.Contains(err.Error(), tt.pin) {
				t.Errorf("downloaded: %v; %v", downloaded, err)
			}
			if _, err := os.Stat(n.Layout.Version(v)); !os.IsNotExist(err) {
				t.Errorf("the version is there: %v", err)
			}
		})
	}
}
