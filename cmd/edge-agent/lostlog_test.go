//go:build !sim

package main

import (
	"bytes"
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/bilbycast/edge-agent/internal/state"
	"github.com/bilbycast/edge-agent/release"
)

// lostLogs are what may become of a log: its reader is gone, or reads nothing.
var lostLogs = map[string]func(t *testing.T) *os.File{
	"gone": func(t *testing.T) *os.File {
		r, w := pipe(t)
		r.Close()
		return w
	},
	"full": func(t *testing.T) *os.File {
		_, w := pipe(t)
		fd := int(w.Fd())
		if err := syscall.SetNonblock(fd, true); err != nil {
			t.Fatal(err)
		}
		for {
			if _, err := syscall.Write(fd, make([]byte, 4096)); errors.Is(err, syscall.EAGAIN) {
				break
			} else if err != nil {
				t.Fatal(err)
			}
		}
		if err := syscall.SetNonblock(fd, false); err != nil {
			t.Fatal(err)
		}
		return w
	},
}

func pipe(t *testing.T) (r, w *os.File) {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close(); w.Close() })
	return r, w
}

// service returns the command as systemd runs it, with that log.
func service(log *os.File, args ...string) *exec.Cmd {
	cmd := &exec.Cmd{Path: "/proc/self/exe", Args: append([]string{"edge-agent"}, args...), Stdout: log, Stderr: log}
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "INVOCATION_ID=" + strings.Repeat("a", 32)}
	return cmd
}

func lostLogRoot(t *testing.T) state.Layout {
	t.Helper()
	l, err := state.At(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	v1, v2 := release.MustVersion("1.0.0"), release.MustVersion("1.1.0")
	if err := errors.Join(l.Make(), os.Mkdir(l.Version(v1), 0o755), os.Mkdir(l.Version(v2), 0o755)); err != nil {
		t.Fatal(err)
	}
	if _, err := l.Do(t.Context(), func(s state.State, tr state.Tree, now time.Time) (state.State, state.Tree, error) {
		s = state.Begin(state.Install(s, state.Trial{Target: v1}, now), state.Trial{ID: "c", Target: v2}, now)
		tr.LastGood, tr.Previous, tr.Current = v1, v1, v2
		return s, tr, nil
	}); err != nil {
		t.Fatal(err)
	}
	return l
}

// The watchdog counts a start and exits 0, whatever becomes of its log.
func TestTheWatchdogOutlivesItsLog(t *testing.T) {
	t.Parallel()
	for name, lost := range lostLogs {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l := lostLogRoot(t)
			if err := service(lost(t), "watchdog", "--root", l.Root()).Run(); err != nil {
				t.Error(err)
			}
			if res, err := l.Read(); err != nil || res.State.BootAttempts != 1 {
				t.Errorf("%+v, %v", res.State, err)
			}
		})
	}
}

// The agent runs, tells systemd so, and stops when it is told to.
func TestTheAgentOutlivesItsLog(t *testing.T) {
	t.Parallel()
	for name, lost := range lostLogs {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l := lostLogRoot(t)
			config := "[service]\ndevice_type = \"edge\"\nbinary = \"edge-agent\"\ninstall_root = \"" + l.Root() + "\"\n" +
				"[manager]\nurls = [\"wss://127.0.0.1:1\"]\nregistration_token = \"t\"\n"
			if err := os.WriteFile(l.ConfigFile(), []byte(config), 0o600); err != nil {
				t.Fatal(err)
			}
			if _, err := l.Do(t.Context(), func(s state.State, tr state.Tree, now time.Time) (state.State, state.Tree, error) {
				s, tr = state.Revert(s, tr, "not in this test", now)
				return s, tr, nil
			}); err != nil {
				t.Fatal(err)
			}
			socket := filepath.Join(t.TempDir(), "s")
			systemd, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: socket, Net: "unixgram"})
			if err != nil {
				t.Fatal(err)
			}
			defer systemd.Close()
			cmd := service(lost(t), "run", "--config", l.ConfigFile(), "--log-level", "debug")
			cmd.Env = append(cmd.Env, "NOTIFY_SOCKET="+socket, "WATCHDOG_USEC=600000") // a ping every 0.2 s
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			defer cmd.Process.Kill()
			// It logs several attempts to connect in that time, and goes on.
			for pings := 0; pings < 25; {
				b := make([]byte, 4096)
				systemd.SetReadDeadline(time.Now().Add(30 * time.Second))
				n, err := systemd.Read(b)
				if err != nil {
					t.Fatalf("after %d pings: %v", pings, err)
				}
				if bytes.Contains(b[:n], []byte("WATCHDOG=1")) {
					pings++
				}
			}
			cmd.Process.Signal(syscall.SIGTERM)
			if err := cmd.Wait(); err != nil {
				t.Errorf("the agent ends: %v", err)
			}
		})
	}
}
