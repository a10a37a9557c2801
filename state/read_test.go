package state_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/bilbycast/edge-agent/state"
)

// Reading changes nothing, and reports what is damaged with the rest.
func TestReadOfADamagedRoot(t *testing.T) {
	t.Parallel()
	root, err := node()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(root) })
	path := filepath.Join(root, "state.json")
	for _, text := range []string{"{", `{"schema":999}`, ""} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		n, err := state.Read(root)
		if n.Current.String() != "1.5.0" || len(n.Installed) != 2 {
			t.Errorf("%q: %+v, %v", text, n, err)
		}
		if b, err := os.ReadFile(path); err != nil || string(b) != text {
			t.Errorf("%q became %q, %v", text, b, err)
		}
	}
	if _, err := state.Read("relative"); err == nil {
		t.Error("a relative path is accepted")
	}
	if n, err := state.Read(t.TempDir()); err != nil || !n.Current.IsZero() {
		t.Errorf("an empty root: %+v, %v", n, err)
	}
}
