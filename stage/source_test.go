package stage

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"github.com/bilbycast/edge-agent/internal/unreadable"
)

// A directory is read file by file, also one with many files of other releases; a file
// that cannot be read is reported as that, and not as missing.
func TestADirectoryAsASource(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for i := range maxFiles + 50 {
		if err := os.WriteFile(filepath.Join(dir, fmt.Sprintf("%04d.json", i)), []byte("other"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	manifest := filepath.Join(dir, "manifest.json")
	if err := os.WriteFile(manifest, []byte("{}"), 0o644); err != nil {
		t.Fatal(err)
	}
	src, err := OpenSource(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer src.Close()
	p, err := src.Open(t.Context(), "manifest.json", 0, "")
	if err != nil || p.Total != 2 {
		t.Fatalf("%+v, %v", p, err)
	}
	if b, err := io.ReadAll(p.Body); err != nil || string(b) != "{}" {
		t.Errorf("%q, %v", b, err)
	}
	if err := p.Body.Close(); err != nil {
		t.Error(err)
	}
	if _, err := src.Open(t.Context(), "none.json", 0, ""); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a missing file: %v", err)
	}
	unreadable.While(t, dir, manifest, func() {
		denied, err := OpenSource(dir)
		if err != nil {
			t.Error(err)
			return
		}
		defer denied.Close()
		if _, err := denied.Open(t.Context(), "manifest.json", 0, ""); !errors.Is(err, fs.ErrPermission) {
			t.Errorf("an unreadable file: %v", err)
		}
	})
}
