package edgeagent_test

import (
	"go/doc"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"slices"
	"testing"
)

// Every public package has an Example that go test runs, because it has an output.
func TestEveryPublicPackageHasARunningExample(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"agent", "verify", "upgrade", "stage", "watchdog", "state", "release", "wire", "systemd", "fsutil", "config", "probe", "install"} {
		path := filepath.Join(name, "example_test.go")
		text, err := os.ReadFile(path)
		if err != nil {
			t.Error(err)
			continue
		}
		f, err := parser.ParseFile(token.NewFileSet(), path, text, parser.ParseComments)
		if err != nil {
			t.Fatal(err)
		}
		if !slices.ContainsFunc(doc.Examples(f), func(e *doc.Example) bool { return e.Output != "" }) {
			t.Errorf("%s has no example with an output", path)
		}
	}
}
