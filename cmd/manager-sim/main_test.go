package main

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/bilbycast/edge-agent/cmd/internal/cli"
	"github.com/rogpeppe/go-internal/testscript"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"manager-sim": main})
}

func TestScripts(t *testing.T) {
	t.Parallel()
	testscript.Run(t, testscript.Params{Dir: "testdata", RequireExplicitExec: true})
}

// The demo prints each step and ends with ok.
func TestDemo(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute) // a cold build is in it
	defer cancel()
	dir := filepath.Join(t.TempDir(), "demo")
	var out, errs bytes.Buffer
	if code := run(ctx, []string{"demo", "--dir", dir}, &out, &errs); code != cli.OK {
		t.Fatalf("exit code %d\n%s%s", code, &out, &errs)
	}
	text := out.String()
	at := 0
	for _, step := range []string{
		"upgrade_started", "upgrade_downloaded", "upgrade_staged", "authenticated with version 1.1.0", "upgrade_completed",
		"current -> 1.1.0, last-good -> 1.1.0, status stable",
		`{"version":"1.2.0"}`, "upgrade_staged", "exited: exit status 1", "upgrade_rolled_back (critical)",
		"current -> 1.1.0, last-good -> 1.1.0, status rolled_back", "logs: ", "next: ", "demo: ok in ",
	} {
		i := strings.Index(text[at:], step)
		if i < 0 {
			t.Fatalf("%q is not shown, or not in its place:\n%s", step, text)
		}
		at += i
	}
	if last := regexp.MustCompile(`(?m)^.*$`).FindAllString(strings.TrimSpace(text), -1); !regexp.MustCompile(`^demo: ok in [0-9.]+ s$`).MatchString(last[len(last)-1]) {
		t.Errorf("the last line is %q", last[len(last)-1])
	}
	for _, name := range []string{"node.journal", "manager.log"} {
		if st, err := os.Stat(filepath.Join(dir, name)); err != nil || st.Size() == 0 {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestDemoThatFailsReportsWhy(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	var out, errs bytes.Buffer
	if code := run(ctx, []string{"demo", "--dir", filepath.Join(t.TempDir(), "demo")}, &out, &errs); code != cli.Failed {
		t.Errorf("exit code %d", code)
	}
	lines := strings.Split(strings.TrimSpace(out.String()), "\n")
	if last := lines[len(lines)-1]; !strings.HasPrefix(last, "demo: failed: ") {
		t.Errorf("the last line is %q", last)
	}
}
