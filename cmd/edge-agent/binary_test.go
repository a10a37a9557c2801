package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
)

// maxProgram bounds the stripped program for x86_64, in bytes.
const maxProgram = 16_000_000

// A release build is small, and has no method that is called by its name: for one, the
// linker keeps every exported method of every type. Package text/template does that.
func TestTheProgramIsSmall(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("it compiles a release build")
	}
	program := filepath.Join(t.TempDir(), "edge-agent")
	cmd := exec.Command("go", "build", "-trimpath", "-tags", "grpcnotrace,nethttpomithttp2", "-gcflags=all=-l", "-gcflags=runtime/...=", "-gcflags=internal/...=", "-gcflags=crypto/internal/...=", "-gcflags=github.com/klauspost/...=", "-ldflags", "-s -w -funcalign=8 -dumpdep", "-o", program, ".")
	cmd.Env = append(cmd.Environ(), "CGO_ENABLED=0", "GOARCH=amd64", "GOOS=linux")
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %.2000s", err, out)
	}
	for line := range strings.Lines(string(out)) {
		if from, _, _ := strings.Cut(line, " -> "); strings.Contains(from, "<ReflectMethod>") {
			t.Fatalf("%s calls methods by their names", from)
		}
	}
	if !strings.Contains(string(out), "main.main -> ") {
		t.Errorf("the linker reports no dependencies: %.200s", out)
	}
	st, err := os.Stat(program)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%s: %d bytes", runtime.Version(), st.Size())
	if st.Size() > maxProgram {
		t.Errorf("the program has %d bytes, more than %d", st.Size(), maxProgram)
	}
}

// What no command needs is not initialised at the start: the watchdog runs before
// every start of the service, and a release is checked by its command version. The
// libraries initialise 2 MB all the same (docs/performance.md).
func TestOurPackagesInitialiseNothing(t *testing.T) {
	t.Parallel()
	const most = 4 << 10 // bytes of a package: its errors
	cmd := exec.Command(os.Args[0], "-test.run=^$")
	cmd.Env = append(cmd.Environ(), "GODEBUG=inittrace=1")
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %.2000s", err, out)
	}
	seen := 0
	for line := range strings.Lines(string(out)) {
		rest, ours := strings.CutPrefix(line, "init github.com/bilbycast/edge-agent/")
		if !ours {
			continue
		}
		seen++
		var pkg string
		var at, clock float64
		var bytes int
		if _, err := fmt.Sscanf(rest, "%s @%f ms, %f ms clock, %d bytes", &pkg, &at, &clock, &bytes); err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		if bytes > most && !strings.HasPrefix(pkg, "internal/") { // only tests have those
			t.Errorf("package %s allocates %d bytes at the start, more than %d", pkg, bytes, most)
		}
	}
	if seen == 0 {
		t.Errorf("nothing is traced: %.500s", out)
	}
}
