package supervise_test

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/bilbycast/edge-agent/internal/supervise"
	"github.com/coreos/go-systemd/v22/daemon"
	"github.com/google/go-cmp/cmp"
)

// The test binary is also the service.
func TestMain(m *testing.M) {
	if file := os.Getenv("SUPERVISOR"); file != "" {
		supervise.Run(context.Background(), supervise.Unit{Restart: time.Hour, TimeoutStart: time.Hour,
			ExecStart: []string{"/bin/sh", "-c", `echo $$ >"$0.new"; mv "$0.new" "$0"; exec sleep 1000`, file}})
		return
	}
	if os.Getenv("SUPERVISED") != "" {
		for _, a := range os.Args[1:] {
			switch what, arg, _ := strings.Cut(a, ":"); what {
			case "notify":
				daemon.SdNotify(false, arg)
			case "exit":
				os.Exit(int(arg[0] - '0'))
			case "wait":
				select {}
			}
		}
		return
	}
	os.Exit(m.Run())
}

// run supervises u until stop returns true for the events so far. It returns the events as
// text: the kind, and the status text of the service.
func run(t *testing.T, u supervise.Unit, stop func([]string) bool) []string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	var got []string
	ended := false
	u.Restart = time.Millisecond
	if u.TimeoutStart == 0 {
		u.TimeoutStart = 10 * time.Second
	}
	u.Env = append(u.Env, "SUPERVISED=1")
	u.OnChange = func(e supervise.Event) {
		if ended {
			return
		}
		word := fmt.Sprintf("%d %s", e.Start, e.Kind)
		if e.Kind == supervise.Exited || e.Kind == supervise.StatusText {
			word += " " + e.Text
		}
		got = append(got, word)
		if stop(got) {
			ended = true
			cancel()
		}
	}
	if err := supervise.Run(ctx, u); err != nil {
		t.Fatal(err)
	}
	if !ended {
		t.Errorf("never came to its end: %q", got)
	}
	return got
}

func last(want string) func([]string) bool {
	return func(got []string) bool { return got[len(got)-1] == want }
}

func self(args ...string) []string { return append([]string{os.Args[0]}, args...) }

func TestRestartAlways(t *testing.T) {
	t.Parallel()
	got := run(t, supervise.Unit{ExecStart: self("notify:READY=1\nSTATUS=hello", "exit:0")}, last("2 exited exit status 0"))
	// A service that exits at once may be gone before its messages are read.
	var kinds []string
	for _, g := range got {
		if !strings.Contains(g, "ready") && !strings.Contains(g, "status hello") {
			kinds = append(kinds, g)
		}
	}
	want := []string{"1 started", "1 exited exit status 0", "2 started", "2 exited exit status 0"}
	if d := cmp.Diff(want, kinds); d != "" {
		t.Error(d)
	}
}

func TestReadyEndsTheStartTimeout(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "x")
	// Ready, and then running for longer than the timeout.
	got := run(t, supervise.Unit{TimeoutStart: 300 * time.Millisecond,
		ExecStart: []string{"/bin/sh", "-c", `"$0" notify:READY=1 exit:0; sleep 0.5; : > "$1"; exit 3`, os.Args[0], file}},
		last("1 exited exit status 3"))
	if d := cmp.Diff([]string{"1 started", "1 ready", "1 exited exit status 3"}, got); d != "" {
		t.Error(d)
	}
	if _, err := os.Stat(file); err != nil {
		t.Error(err)
	}
}

func TestStartTimeout(t *testing.T) {
	t.Parallel()
	got := run(t, supervise.Unit{TimeoutStart: 50 * time.Millisecond, ExecStart: self("wait")}, last("2 start_timeout"))
	if d := cmp.Diff([]string{"1 started", "1 start_timeout", "2 started", "2 start_timeout"}, got); d != "" {
		t.Error(d)
	}
}

func TestExtendTimeout(t *testing.T) {
	t.Parallel()
	got := run(t, supervise.Unit{TimeoutStart: 500 * time.Millisecond,
		ExecStart: []string{"/bin/sh", "-c", `"$0" notify:EXTEND_TIMEOUT_USEC=20000000 exit:0; sleep 0.7; exit 3`, os.Args[0]}},
		last("1 exited exit status 3"))
	if d := cmp.Diff([]string{"1 started", "1 exited exit status 3"}, got); d != "" {
		t.Error(d)
	}
}

func TestPreFails(t *testing.T) {
	t.Parallel()
	got := run(t, supervise.Unit{ExecStartPre: []string{"/bin/false"}, ExecStart: self("wait")}, last("2 pre_failed"))
	if d := cmp.Diff([]string{"1 pre_started", "1 pre_failed", "2 pre_started", "2 pre_failed"}, got); d != "" {
		t.Error(d)
	}
}

func TestCannotExec(t *testing.T) {
	t.Parallel()
	bad := filepath.Join(t.TempDir(), "bad")
	if err := os.WriteFile(bad, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	got := run(t, supervise.Unit{ExecStartPre: []string{"/bin/true"}, ExecStart: []string{bad}}, last("2 exec_failed"))
	if d := cmp.Diff([]string{"1 pre_started", "1 exec_failed", "2 pre_started", "2 exec_failed"}, got); d != "" {
		t.Error(d)
	}
}

// Processes that a service leaves are killed before the next start.
func TestLeftProcessesAreKilled(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	run(t, supervise.Unit{Output: &out,
		ExecStart: []string{"/bin/sh", "-c", `sleep 1000 >/dev/null 2>&1 & echo $!; exit 1`}}, last("2 started"))
	var pid int
	if _, err := fmt.Sscan(out.String(), &pid); err != nil {
		t.Fatal(err)
	}
	await(t, "the service's child is gone", func() bool { return gone(pid) })
}

// A killed supervisor leaves no service: the next supervisor would run a second one on the
// same root.
func TestAKilledSupervisorLeavesNoService(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "pid")
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), "SUPERVISOR="+file)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer cmd.Process.Kill()
	var pid int
	await(t, "the service runs", func() bool {
		b, err := os.ReadFile(file)
		if err != nil {
			return false
		}
		_, err = fmt.Sscan(string(b), &pid)
		return err == nil
	})
	cmd.Process.Kill()
	cmd.Wait()
	await(t, "the service is gone", func() bool { return gone(pid) })
}

// gone reports whether a process has ended, also as a zombie.
func gone(pid int) bool {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	return err != nil || strings.Contains(string(b), ") Z ")
}

// await returns when is does: a signal is delivered some time after it is sent.
func await(t *testing.T, what string, is func() bool) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for end := time.After(20 * time.Second); !is(); {
		select {
		case <-tick.C:
		case <-end:
			t.Fatalf("waiting in vain until %s", what)
		}
	}
}
