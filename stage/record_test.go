package stage

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/bilbycast/edge-agent/internal/unreadable"
	"github.com/bilbycast/edge-agent/release"
	"github.com/bilbycast/edge-agent/state"
)

// Staging records every file, and Compare finds each that differs, and no other.
func TestCompare(t *testing.T) {
	t.Parallel()
	s := setup(t, nil)
	v := release.MustVersion("1.0.0")
	rel, a := fetch(t, s, "1.0.0")
	if _, err := s.Stage(t.Context(), s.Host(v), rel, a, func() {}); err != nil {
		t.Fatal(err)
	}
	dir := s.Layout.Version(v)
	program := filepath.Join(dir, s.Binary)
	whole, err := os.ReadFile(program)
	if err != nil {
		t.Fatal(err)
	}
	record := filepath.Join(dir, state.DigestsFile)
	lines, err := os.ReadFile(record)
	if err != nil || strings.Count(string(lines), "\n") < 2 || !strings.Contains(string(lines), "*"+s.Binary+"\n") {
		t.Fatalf("%s, %v", lines, err)
	}
	var data string // a file that is no program
	for line := range strings.Lines(string(lines)) {
		if _, name, ok := strings.Cut(strings.TrimSpace(line), "  "); ok {
			data = filepath.Join(dir, name)
		}
	}
	if data == "" {
		t.Fatalf("no data file in %s", lines)
	}
	sum := exec.Command("sha256sum", "--check", "--strict", "--quiet", state.DigestsFile)
	sum.Dir = dir
	if out, err := sum.CombinedOutput(); err != nil {
		t.Errorf("sha256sum: %v: %s", err, out)
	}
	flip := func(b []byte) []byte { c := append([]byte(nil), b...); c[len(c)/2] ^= 1; return c }
	for name, tt := range map[string]struct {
		change func() error
		why    string
		code   bool
	}{
		"nothing":              {func() error { return nil }, "", false},
		"an extra file":        {func() error { return os.WriteFile(filepath.Join(dir, "cache"), []byte("x"), 0o644) }, "", false},
		"one bit of a program": {func() error { return os.WriteFile(program, flip(whole), 0o755) }, "has another content", true},
		"a missing program":    {func() error { return os.Remove(program) }, "is missing", true},
		"a FIFO":               {func() error { return errors.Join(os.Remove(program), exec.Command("mkfifo", program).Run()) }, "has another content", true},
		"a changed data file":  {func() error { return os.Truncate(data, 1) }, "has another content", false},
		"no record":            {func() error { return os.Remove(record) }, "", false},
	} {
		saved, err := os.ReadFile(data)
		if err != nil {
			t.Fatal(err)
		}
		if err := tt.change(); err != nil {
			t.Fatal(err)
		}
		changes, err := Compare(t.Context(), s.Layout, v)
		switch {
		case err != nil:
			t.Errorf("%s: %v", name, err)
		case tt.why == "" && len(changes) > 0, tt.why != "" && (len(changes) != 1 || !strings.Contains(changes[0].Why, tt.why) || changes[0].Code != tt.code):
			t.Errorf("%s: %+v", name, changes)
		}
		if err := errors.Join(os.RemoveAll(program), os.WriteFile(program, whole, 0o755), os.WriteFile(data, saved, 0o644), os.WriteFile(record, lines, 0o644)); err != nil {
			t.Fatal(err)
		}
	}
	unreadable.While(t, s.Layout.Root(), program, func() {
		if changes, err := Compare(t.Context(), s.Layout, v); err == nil || len(changes) > 0 {
			t.Errorf("an unreadable program: %+v, %v", changes, err)
		}
	})
	for _, damaged := range []string{"x\n", strings.Repeat("0", 64) + "\n", strings.Repeat("0", 64) + "  ../../../etc/hostname\n"} {
		if err := os.WriteFile(record, []byte(damaged), 0o644); err != nil {
			t.Fatal(err)
		}
		if changes, err := Compare(t.Context(), s.Layout, v); err == nil {
			t.Errorf("a record with %q: %+v", damaged, changes)
		}
	}
}
