package stage

import (
	"os"
	"strings"
	"testing"

	"github.com/bilbycast/edge-agent/internal/hostile"
	"github.com/bilbycast/edge-agent/internal/tarstream"
	"github.com/bilbycast/edge-agent/release"
)

// Every hostile archive is refused, by a text that names what is wrong, and
// nothing is written outside of the version's directory (unpack looks).
func TestHostileArchives(t *testing.T) {
	t.Parallel()
	if hostile.MaxEntries != tarstream.MaxEntries || hostile.MaxPath != tarstream.MaxPath || hostile.MaxDepth != tarstream.MaxDepth || hostile.MaxTrailer != tarstream.MaxTrailer || hostile.Marker != Marker {
		t.Fatal("package hostile has other limits")
	}
	cases := hostile.Cases()
	if len(cases) < 50 {
		t.Errorf("%d cases", len(cases))
	}
	for _, c := range cases {
		t.Run(c.Name, func(t *testing.T) {
			t.Parallel()
			if c.Slow && testing.Short() {
				t.Skip("slow")
			}
			b := c.Tarball()
			_, err := unpack(t, b, release.Artefact{Size: max(int64(len(b)), 1), UnpackedSize: c.Unpacked})
			if code(err) != release.ExtractFailed || !strings.Contains(err.Error(), c.Error) {
				t.Errorf("got %s: %v, want %q", code(err), err, c.Error)
			}
			if err != nil && strings.ContainsAny(err.Error(), "\n\x00") {
				t.Errorf("not fit for a log: %q", err)
			}
		})
	}
}

// Names that only look alike are different files, and stay so.
func TestExtractKeepsCase(t *testing.T) {
	t.Parallel()
	dir, err := unpack(t, archive(t, "file a = 1", "file A = 2", "link B -> a", "file b = 3", "file \u00e4 = 4", "file a\u0308 = 5"), release.Artefact{})
	if err != nil {
		t.Fatal(err)
	}
	if entries, _ := os.ReadDir(dir); len(entries) != 7 { // with the record of the digests
		t.Errorf("%v", entries)
	}
}
