package box_test

import (
	"os"
	"strings"
	"testing"

	"github.com/bilbycast/edge-agent/internal/box"
)

func TestTwoBoxesAtOnce(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"one", "two"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := box.ForTest(t.Context(), t, box.Options{Name: name})
			out, err := b.Exec(t.Context(), "hostname")
			if err != nil || strings.TrimSpace(out) != name {
				t.Errorf("got %q, %v", out, err)
			}
			if _, err := b.Exec(t.Context(), "systemctl", "start", "none.service"); err == nil || !strings.Contains(err.Error(), "none.service") {
				t.Errorf("got %v", err)
			}
		})
	}
}

// Synced data survives a power cut, and other data does not.
func TestCutLosesWhatWasNotSynced(t *testing.T) {
	t.Parallel()
	b := box.ForTest(t.Context(), t, box.Options{Name: "cut", DiskMB: 128})
	if _, err := b.Exec(t.Context(), "sh", "-c", "echo kept >/opt/kept && sync && echo lost >/opt/lost"); err != nil {
		t.Fatal(err)
	}
	if err := b.Cut(t.Context(), false); err != nil {
		t.Fatal(err)
	}
	if err := b.Boot(t.Context()); err != nil {
		t.Fatal(err)
	}
	path := func(name string) string {
		p, err := b.Path(t.Context(), name)
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	if text, err := os.ReadFile(path("/opt/kept")); err != nil || string(text) != "kept\n" {
		t.Errorf("what was synced: %q, %v", text, err)
	}
	if text, err := os.ReadFile(path("/opt/lost")); err == nil && len(text) > 0 {
		t.Errorf("what was not synced is still there: %q", text)
	}
}
