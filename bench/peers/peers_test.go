package peers

import (
	"context"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func TestEveryScriptHasItsFunctions(t *testing.T) {
	t.Parallel()
	all, err := All()
	if err != nil {
		t.Fatal(err)
	}
	files, err := scripts.ReadDir("scripts")
	if err != nil {
		t.Fatal(err)
	}
	if len(files) != len(all)+1 {
		t.Errorf("%d scripts, and %d peers", len(files), len(all))
	}
	dir := t.TempDir()
	if err := Scripts(dir); err != nil {
		t.Fatal(err)
	}
	for _, p := range all {
		for _, f := range []string{"version", "make", "prepare", "install", "detach", "active", "inactive"} {
			text := `. "$1/common.sh"; . "$1/$2.sh"; command -v ` + f
			if out, err := exec.Command("sh", "-euc", text, "sh", dir, p.Name).CombinedOutput(); err != nil || strings.TrimSpace(string(out)) != f {
				t.Errorf("%s has no function %s: %s%v", p.Name, f, out, err)
			}
		}
	}
}

func TestMissing(t *testing.T) {
	t.Parallel()
	p := Peer{tools: []string{"sh", "no-such-tool-1", "no-such-tool-2", "no-such-tool-3"}, packages: []string{"dash", "one", "two", "one"}}
	if got := p.Missing(); !slices.Equal(got, []string{"one", "two"}) {
		t.Errorf("%v", got)
	}
}

func TestCall(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if err := Scripts(dir); err != nil {
		t.Fatal(err)
	}
	p := Peer{Name: "shell"}
	w := Place{Target: filepath.Join(t.TempDir(), "a b")}
	for _, f := range []string{"prepare", "detach"} {
		if _, err := p.Call(t.Context(), dir, w, f); err != nil {
			t.Fatal(err)
		}
	}
	if got, err := p.Call(t.Context(), dir, w, "active"); err != nil || got != w.Target+"/current" {
		t.Errorf("%q, %v", got, err)
	}
	if _, err := p.Call(t.Context(), dir, w, "none"); err == nil || !strings.Contains(err.Error(), "none of shell") {
		t.Errorf("an unknown function: %v", err)
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := p.Call(ended, dir, w, "active"); err == nil {
		t.Error("no error")
	}
}
