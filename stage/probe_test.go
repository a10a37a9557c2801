package stage

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/bilbycast/edge-agent/release"
)

// What a probe prints, how it ends, and what follows from it.
func TestProbe(t *testing.T) {
	t.Parallel()
	const held = `echo '{"url":"wss://a","stage":"auth","ok":true}'; echo '{"url":"wss://a","stage":"held","ok":true}'; `
	const failed = `echo '{"url":"wss://a","stage":"tls","ok":false,"error":"unknown authority"}'; `
	for name, tt := range map[string]struct {
		script         string
		held, answered bool
		words          string
	}{
		"held":                     {held + "exit 0", true, true, "wss://a: reached held"},
		"one of two held":          {`echo '{"url":"wss://b","stage":"resolve","ok":false,"error":"no name"}'; ` + held, true, true, "wss://b: failed at resolve: no name; wss://a: reached held"},
		"held, but it failed":      {held + "exit 1", false, true, "reached held"},
		"failed":                   {failed + "exit 1", false, true, "wss://a: failed at tls: unknown authority"},
		"it did not authenticate":  {"exit 3", false, true, "exit status 3"},
		"it cannot read the file":  {"echo 'line 7: unknown key' >&2; exit 1", false, true, "exit status 1: line 7: unknown key"},
		"wrong usage":              {"exit 2", false, true, "exit status 2"},
		"another exit":             {"exit 127", false, false, "exit status 127"},
		"crashes":                  {"kill -SEGV $$", false, false, "signal: segmentation fault"},
		"crashes after an answer":  {failed + "kill -SEGV $$", false, true, "unknown authority"},
		"hangs":                    {"sleep 600", false, false, "did not end within 2s"},
		"hangs after an answer":    {failed + "sleep 600", false, true, "unknown authority"},
		"claims it, and hangs":     {held + "sleep 600", false, true, "reached held"},
		"prints no JSON":           {`echo '"stage": held'; echo '{"stage":3}'; exit 127`, false, true, "exit status 127"},
		"prints without end":       {"exec cat /dev/zero", false, false, "did not end within 2s"},
		"hostile words":            {`printf '{"url":"wss://a","stage":"tls","error":"\\u001b[31m\\nline 2"}\n'; exit 1`, false, true, "line 2"},
		"its own environment":      {`[ -z "$NOTIFY_SOCKET$WATCHDOG_USEC$INVOCATION_ID" ] && [ -n "$PATH" ] && ` + held, true, true, "reached held"},
		"the arguments":            {`[ "$1 $2 $4 $5 $6 $7 $8 $9" = "probe --config --json --credentials /copy --manager-key k1 --manager-key" ] && ` + held, true, true, "reached held"},
		"the first to be killed":   {`until [ "$(cat /proc/$$/oom_score_adj)" = 1000 ]; do :; done; ` + held, true, true, "reached held"},
		"leaves a process":         {held + "sleep 600 >/dev/null 2>&1 & exit 0", true, true, "reached held"},
		"leaves one with a stream": {held + "sleep 600 & exit 0", false, true, "reached held"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l, v := installedProgram(t, tt.script, release.CommandProbe)
			r := Probe(t.Context(), l, v, ProbeArgs{Credentials: "/copy", Keys: []string{"k1", "k2"}, Limit: 2 * time.Second})
			if r.Held() != tt.held || r.Answered != tt.answered || r.Unable || !strings.Contains(r.Words(), tt.words) {
				t.Errorf("held %t, answered %t, %q, %v", r.Held(), r.Answered, r.Words(), r.Err)
			}
			if w := r.Words(); len(w) > maxProbeWords || strings.ContainsAny(w, "\x1b\n") || len(r.Lines) > probeOutput {
				t.Errorf("words %q, %d bytes", w, len(r.Lines))
			}
		})
	}
}

// A program is never run with a command that it does not declare.
func TestHasProbe(t *testing.T) {
	t.Parallel()
	l, v := installedProgram(t, "exit 0", release.CommandConfigCheck)
	if HasProbe(l, v) || HasProbe(l, release.MustVersion("9.9.9")) {
		t.Error("it does not declare probe")
	}
	if l, v = installedProgram(t, "exit 0", release.CommandProbe); !HasProbe(l, v) {
		t.Error("it declares probe")
	}
	if err := os.Remove(filepath.Join(l.Version(v), "edge")); err != nil {
		t.Fatal(err)
	}
	if r := Probe(t.Context(), l, v, ProbeArgs{Limit: time.Minute}); r.Err == nil || r.Answered || r.Unable {
		t.Errorf("without its program: %+v", r)
	}
}

// A probe ends with its caller.
func TestProbeEndsWithItsCaller(t *testing.T) {
	t.Parallel()
	l, v := installedProgram(t, "sleep 600", release.CommandProbe)
	ctx, cancel := context.WithCancel(t.Context())
	time.AfterFunc(100*time.Millisecond, cancel)
	began := time.Now()
	if r := Probe(ctx, l, v, ProbeArgs{Limit: 10 * time.Minute}); r.Err == nil || r.Answered || time.Since(began) > time.Minute {
		t.Errorf("%+v", r)
	}
}

// Only what this process lacks makes a probe impossible.
func TestUnable(t *testing.T) {
	t.Parallel()
	for err, want := range map[error]bool{syscall.EMFILE: true, syscall.EAGAIN: true, syscall.ENOMEM: true,
		syscall.ENFILE: false, syscall.ENOENT: false, syscall.EACCES: false, syscall.ENOEXEC: false} {
		if got := lacks(&os.PathError{Op: "fork/exec", Path: "edge", Err: err}); got != want {
			t.Errorf("%v: %t", err, got)
		}
	}
}
