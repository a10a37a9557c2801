package release_test

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"testing"

	"github.com/bilbycast/edge-agent/release"
)

// Manifests of every shipped form parse. A form that release-manifest still writes is
// written again byte for byte: no new field appears in a manifest that does not set it.
func TestParseReadsEveryShippedManifest(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob("testdata/manifest/*.json")
	if err != nil || len(files) != 3 {
		t.Fatal(files, err)
	}
	for i, file := range files {
		signed, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		m, err := release.Parse(signed)
		if err != nil {
			t.Errorf("%s: %v", file, err)
			continue
		}
		if m.Sequence != 42 || len(m.Artefacts) != 1 || (len(m.Commands) == 2) != (i == 2) || (m.FirstStartSecs == 600) != (i == 2) {
			t.Errorf("%s: %+v", file, m)
		}
		written, err := json.MarshalIndent(m, "", "  ")
		if err != nil || i > 0 && !bytes.Equal(append(written, '\n'), signed) {
			t.Errorf("%s is written as\n%s\n%v", file, written, err)
		}
	}
}
