package main

import (
	"context"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// The README's first command succeeds, and reports its progress while it builds.
func TestDemo(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("it builds two programs")
	}
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "go", "run", "-v", "./cmd/demo", "--dir", filepath.Join(t.TempDir(), "demo"))
	cmd.Dir = "../.."
	out, err := cmd.CombinedOutput()
	text := string(out)
	if err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	at := 0
	for _, want := range []string{"demo: building the manager and the agent", "demo: built in", "status stable", "status rolled_back", "demo: ok in"} {
		i := strings.Index(text[at:], want)
		if i < 0 {
			t.Fatalf("%q is not there, or not in its place:\n%s", want, text)
		}
		at += i
	}
}

// Few imports keep the time until the first line short.
func TestImportsLittle(t *testing.T) {
	t.Parallel()
	out, err := exec.Command("go", "list", "-deps", ".").Output()
	if err != nil {
		t.Fatal(err)
	}
	if deps := strings.Fields(string(out)); len(deps) > 60 {
		t.Errorf("%d packages to compile first", len(deps))
	}
}

func TestLinesOfABuild(t *testing.T) {
	t.Parallel()
	for line, want := range map[string]bool{
		"github.com/acme/edge/cmd": true, "os": true, "": false, "# github.com/acme/edge": false,
		"cmd/x.go:3:1: undefined: y": false, "go: downloading example.com/x v1.0.0": false,
	} {
		if isPackage(line) != want {
			t.Errorf("%q: %t", line, !want)
		}
	}
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	lines := make(chan string, 10)
	go func() {
		io.WriteString(w, "a\nlonger\nno end")
		w.Close()
	}()
	scan(r, lines)
	if a, b := <-lines, <-lines; a != "a" || b != "longer" || len(lines) != 0 {
		t.Errorf("%q, %q and %d more", a, b, len(lines))
	}
	if got := decimal(0) + " " + decimal(10) + " " + decimal(1234); got != "0 10 1234" {
		t.Error(got)
	}
}
