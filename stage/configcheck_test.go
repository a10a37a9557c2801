package stage

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/bilbycast/edge-agent/internal/state"
	"github.com/bilbycast/edge-agent/release"
	"golang.org/x/sys/unix"
)

// installedProgram returns a root with version 1.1.0, whose program is a script that
// follows the command.
func installedProgram(t *testing.T, script string, commands ...string) (state.Layout, release.Version) {
	t.Helper()
	l, err := state.At(t.TempDir())
	v := release.MustVersion("1.1.0")
	dir := l.Version(v)
	if err := errors.Join(err, os.MkdirAll(dir, 0o755), os.WriteFile(l.ConfigFile(), []byte("[service]\n"), 0o600),
		os.WriteFile(filepath.Join(dir, "edge"), []byte("#!/bin/sh\n"+script+"\n"), 0o755),
		marker{Version: v, Program: "edge", Commands: commands}.write(l.Disk(), dir)); err != nil {
		t.Fatal(err)
	}
	return l, v
}

// Exit 1 refuses, 3 warns, and whatever else a declared command does is not sound. The
// words of the program are cleaned and bounded.
func TestCheckConfig(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		script  string
		want    release.Code
		says    string // the error
		warning string
	}{
		"good":               {script: `[ "$*" = "config check $0/../../../config.toml" ] || [ -r "$3" ]`},
		"refuses":            {script: `printf 'line 7: unknown\n\033[31mkey\n' >&2; exit 1`, want: release.ConfigRefused, says: "line 7: unknown ?[31mkey"},
		"refuses silently":   {script: `exit 1`, want: release.ConfigRefused, says: "it printed no reason"},
		"refuses at length":  {script: `while :; do echo 0123456789abcdef; done | head -c 100000; exit 1`, want: release.ConfigRefused, says: "0123456789abcdef 0123456789abcdef"},
		"ignores":            {script: `echo "line 8: unknown key"; exit 3`, warning: "line 8: unknown key"},
		"ignores silently":   {script: `exit 3`, warning: "it printed no reason"},
		"does not know it":   {script: `echo "unknown command" >&2; exit 2`, want: release.ExtractFailed, says: "exit status 2: unknown command"},
		"crashes":            {script: `kill -SEGV $$`, want: release.ExtractFailed, says: "signal: segmentation fault"},
		"hangs":              {script: `sleep 600`, want: release.ExtractFailed, says: "`edge config check` did not end within 2s"},
		"prints without end": {script: `exec cat /dev/zero`, want: release.ExtractFailed, says: "did not end within 2s"},
		"has no environment": {script: `[ -z "$HOME$NOTIFY_SOCKET$EDGE_AGENT_SIM_TRUST" ]`},
		"leaves a process":   {script: `sleep 600 & exit 0`, want: release.ExtractFailed, says: "config check"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l, v := installedProgram(t, tt.script, "of a later node", release.CommandConfigCheck)
			warning, err := checkConfig(t.Context(), l, v, Limits{10 * time.Second, 2 * time.Second})
			if warning != tt.warning || (err == nil) != (tt.want == "") || err != nil && (release.CodeOf(err) != tt.want || !strings.Contains(err.Error(), tt.says)) {
				t.Errorf("got %q, %v", warning, err)
			}
			if err != nil && len(err.Error()) > 1000 {
				t.Errorf("an error of %d bytes", len(err.Error()))
			}
		})
	}
}

// Without the declaration no program is run, nor without a file to check.
func TestCheckConfigRunsNoUnknownCommand(t *testing.T) {
	t.Parallel()
	const script = `: >../../ran; exit 1`
	ran := func(l state.Layout) bool {
		_, err := os.Lstat(filepath.Join(l.Root(), "ran"))
		return err == nil
	}
	for name, change := range map[string]func(l state.Layout, v release.Version) error{
		"declared": func(state.Layout, release.Version) error { return nil },
		"undeclared": func(l state.Layout, v release.Version) error {
			return marker{Version: v, Program: "edge", Commands: []string{release.CommandProbe}}.write(l.Disk(), l.Version(v))
		},
		"no marker": func(l state.Layout, v release.Version) error { return os.Remove(filepath.Join(l.Version(v), Marker)) },
		"damaged marker": func(l state.Layout, v release.Version) error {
			return os.WriteFile(filepath.Join(l.Version(v), Marker), []byte(`{"version"`), 0o644)
		},
		"outside": func(l state.Layout, v release.Version) error {
			return marker{Version: v, Program: "../edge", Commands: []string{release.CommandConfigCheck}}.write(l.Disk(), l.Version(v))
		},
		"no file": func(l state.Layout, _ release.Version) error { return os.Remove(l.ConfigFile()) },
	} {
		l, v := installedProgram(t, script, release.CommandConfigCheck)
		if err := change(l, v); err != nil {
			t.Fatal(err)
		}
		if _, err := CheckConfig(t.Context(), l, v); (err != nil) != (name == "declared") || ran(l) != (name == "declared") {
			t.Errorf("%s: %v, ran %t", name, err, ran(l))
		}
	}
}

// An upgrade that is interrupted during the check is interrupted, not refused.
func TestCheckConfigEndsWithItsCaller(t *testing.T) {
	t.Parallel()
	l, v := installedProgram(t, "sleep 600", release.CommandConfigCheck)
	stopped := errors.New("stopped")
	ctx, cancel := context.WithCancelCause(t.Context())
	time.AfterFunc(100*time.Millisecond, func() { cancel(stopped) })
	if _, err := CheckConfig(ctx, l, v); !errors.Is(err, stopped) {
		t.Error(err)
	}
}

// The marker keeps what the manifest declares. A later manifest of the same files is
// recorded as well, an earlier one is not, and markers of earlier agents declare nothing.
func TestTheMarkerKeepsDeclarations(t *testing.T) {
	t.Parallel()
	s := setup(t, nil)
	v := release.MustVersion("1.0.0")
	rel, a := fetch(t, s, "1.0.0")
	if _, err := s.Stage(t.Context(), s.Host(v), rel, a, func() {}); err != nil {
		t.Fatal(err)
	}
	if c, f := CommandsOf(s.Layout, v), FirstStartOf(s.Layout, v); len(c) != 2 || c[1] != release.CommandConfigCheck || f != 10*time.Minute {
		t.Errorf("staged: %q, %v", c, f)
	}
	m, err := readMarker(s.Layout, v)
	if err != nil {
		t.Fatal(err)
	}
	rewrite := func(change func(*marker)) {
		next := m
		change(&next)
		if err := next.write(s.Layout.Disk(), s.Layout.Version(v)); err != nil {
			t.Fatal(err)
		}
		if _, err := s.Stage(t.Context(), s.Host(v), rel, a, func() {}); err != nil {
			t.Fatal(err)
		}
	}
	rewrite(func(m *marker) { m.Sequence, m.Commands, m.FirstStartSecs = 0, nil, 0 })
	if got, err := readMarker(s.Layout, v); err != nil || got.Sequence != m.Sequence || len(got.Commands) != 2 || got.FirstStartSecs != 600 || got.Record != m.Record || got.SHA256 != m.SHA256 {
		t.Errorf("of an earlier agent: %+v, %v", got, err)
	}
	rewrite(func(m *marker) { m.Sequence, m.Commands, m.FirstStartSecs = 1<<40, nil, 7 })
	if got, err := readMarker(s.Layout, v); err != nil || got.Sequence != 1<<40 || got.FirstStartSecs != 7 {
		t.Errorf("of a later manifest: %+v, %v", got, err)
	}
	for _, text := range []string{`{"version":"1.0.0","sha256":"x"}`, `{"version":"1.0.0","first_start_secs":99999999}`, `{"version":"1.0.0","first_start_secs":-1}`, `{`} {
		if err := os.WriteFile(filepath.Join(s.Layout.Version(v), Marker), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		if c, f := CommandsOf(s.Layout, v), FirstStartOf(s.Layout, v); len(c) != 0 || f != 0 {
			t.Errorf("%s: %q, %v", text, c, f)
		}
	}
}

// The marker of the largest manifest can be read again.
func TestTheLargestMarker(t *testing.T) {
	t.Parallel()
	l, err := state.At(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	v := release.MustVersion("1.0.0-" + strings.Repeat("a", 58))
	full := marker{Version: v, SHA256: strings.Repeat("a", 64), Sequence: 1<<64 - 1, Program: strings.Repeat("p/", 500) + "p", Record: strings.Repeat("b", 64), FirstStartSecs: 3600}
	for range release.MaxCommands {
		full.Commands = append(full.Commands, strings.Repeat("c", release.MaxCommandLen))
	}
	if err := errors.Join(os.MkdirAll(l.Version(v), 0o755), full.write(l.Disk(), l.Version(v))); err != nil {
		t.Fatal(err)
	}
	if got := CommandsOf(l, v); len(got) != release.MaxCommands {
		b, _ := json.Marshal(full)
		t.Errorf("%d bytes: %q", len(b), got)
	}
}

// What a check leaves behind ends with it: nothing of a version that is not on trial runs
// in the service's cgroup.
func TestCheckConfigLeavesNoProcess(t *testing.T) {
	t.Parallel()
	l, v := installedProgram(t, "sleep 600 >../../fifo 2>&1 & exit 0", release.CommandConfigCheck)
	fifo := filepath.Join(l.Root(), "fifo")
	if err := unix.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	r, err := os.OpenFile(fifo, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if warning, err := CheckConfig(t.Context(), l, v); err != nil || warning != "" {
		t.Errorf("%q, %v", warning, err)
	}
	r.SetReadDeadline(time.Now().Add(10 * time.Second))
	if _, err := r.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
		t.Errorf("the process runs on: %v", err)
	}
}
