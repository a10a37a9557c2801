package agent

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/bilbycast/edge-agent/internal/state"
	"github.com/bilbycast/edge-agent/release"
	"github.com/bilbycast/edge-agent/stage"
	"github.com/bilbycast/edge-agent/wire"
)

// A request for the version that runs, with another manifest, is refused: a version is not
// installed again under its name. Without a digest on either side it is as before.
func TestTheRunningVersionWithAnotherManifest(t *testing.T) {
	t.Parallel()
	runs, other := strings.Repeat("a", 64), strings.Repeat("b", 64)
	for name, tt := range map[string]struct{ marker, asked, want string }{
		"the same":              {runs, runs, "current"},
		"another":               {runs, other, "upgrade_manifest_changed"},
		"none asked":            {runs, "", "current"},
		"an earlier agent's":    {"", other, "current"},
		"a marker that is none": {"x", other, "current"},
		"no digest":             {runs, "sha256:" + runs, "upgrade_manifest_changed"},
		"in capitals":           {runs, strings.ToUpper(runs), "upgrade_manifest_changed"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			o := newTrial(t, t.TempDir())
			o.c.Policy.Enabled = true
			l, v := o.c.Layout, o.c.version
			marker := fmt.Sprintf(`{"version":%q,"sha256":"x","manifest_sha256":%q}`, v, tt.marker)
			if err := os.WriteFile(filepath.Join(l.Version(v), stage.Marker), []byte(marker), 0o644); err != nil {
				t.Fatal(err)
			}
			if _, err := o.do(t.Context(), func(s state.State, tr state.Tree, now time.Time) (state.State, state.Tree, error) {
				s, tr = state.Keep(s, tr, v, "", now)
				return s, tr, nil
			}); err != nil {
				t.Fatal(err)
			}
			if ack := o.upgrade(t.Context(), &wire.Command{CommandID: "c", Action: wire.Action{Type: wire.ActionUpgrade, Version: v.String(), Channel: "stable", ManifestSHA256: tt.asked}}); ack != nil {
				t.Fatalf("answered at once: %+v", ack)
			}
			res, err := l.Read()
			if err != nil {
				t.Fatal(err)
			}
			c, ok := res.State.Command("c")
			if got := c.Status + string(c.Code); !ok || got != tt.want {
				t.Errorf("the command ended with %q (%s), want %q", got, c.Error, tt.want)
			}
			want := tt.marker
			if !release.IsSHA256(want) {
				want = ""
			}
			if h := o.health(t.Context()); h.ManifestSHA256 != want {
				t.Errorf("health has %q, want %q", h.ManifestSHA256, want)
			}
		})
	}
}
