package systemd

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// The kernel's times are in ticks of 10 ms since the boot, systemd's in microseconds.
func TestOlder(t *testing.T) {
	t.Parallel()
	const shown = "ActiveState=active\nSubState=running\nControlGroup=/system.slice/app.service\nMainPID=10\nInactiveExitTimestampMonotonic=100000000\nExecMainStartTimestampMonotonic=103000000\n"
	for name, tt := range map[string]struct {
		lines     string
		processes map[int]string // state and begin in ticks
		suspended bool
		want      int
	}{
		"only its own":                       {"", map[int]string{10: "S 10300", 11: "S 10000", 12: "S 10450"}, false, 0},
		"one of the start before":            {"", map[int]string{10: "S 10300", 11: "S 9800"}, false, 11},
		"within the margin":                  {"", map[int]string{10: "S 10300", 11: "S 9910"}, false, 0},
		"a zombie":                           {"", map[int]string{10: "S 10300", 11: "Z 9000"}, false, 0},
		"one that is being killed":           {"", map[int]string{10: "S 10300", 11: "K 9000"}, false, 0},
		"after a suspend of 1000 s":          {"", map[int]string{10: "S 110300", 11: "S 110000"}, true, 0},
		"older, after a suspend":             {"", map[int]string{10: "S 110300", 11: "S 109800"}, true, 11},
		"no main process":                    {"MainPID=0\nExecMainStartTimestampMonotonic=0", map[int]string{11: "S 9800"}, false, 11},
		"no main process, its own":           {"MainPID=0\nExecMainStartTimestampMonotonic=0", map[int]string{11: "S 10000"}, false, 0},
		"no main process, after a suspend":   {"MainPID=0\nExecMainStartTimestampMonotonic=0", map[int]string{11: "S 9800"}, true, 0},
		"main process before InactiveExit":   {"ExecMainStartTimestampMonotonic=99999700", map[int]string{10: "S 9999", 11: "S 9950"}, false, 0},
		"RestartMode=direct":                 {"ActiveExitTimestampMonotonic=102000000", map[int]string{10: "S 10300", 11: "S 10050"}, false, 11},
		"it stops":                           {"ActiveState=deactivating", map[int]string{10: "S 10300", 11: "S 9800"}, false, 0},
		"in the pause":                       {"ActiveState=activating\nSubState=auto-restart\nMainPID=0", map[int]string{11: "S 9800"}, false, 0},
		"without a control group":            {"ControlGroup=", map[int]string{10: "S 10300", 11: "S 9800"}, false, 0},
		"the main process named by a worker": {"ExecMainStartTimestampMonotonic=150000000", map[int]string{10: "S 10300", 11: "S 10000"}, false, 0},
	} {
		for _, hierarchy := range []string{"", "systemd"} {
			dir := t.TempDir()
			group := filepath.Join(dir, "cgroup", hierarchy, "system.slice/app.service")
			write := func(path, text string) {
				if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			write(filepath.Join(group, "cgroup.procs"), "10\n")
			var below strings.Builder
			for pid, text := range tt.processes {
				state, begin, _ := strings.Cut(text, " ")
				signal := 0
				if state == "K" {
					state, signal = "D", 1<<8
				}
				write(filepath.Join(dir, "proc", fmt.Sprint(pid), "stat"),
					fmt.Sprintf("%d (a) b (c) %s %s%s 0 0 0 0 0 0 0 0 %d 0 0\n", pid, state, strings.Repeat("0 ", 18), begin, signal))
				fmt.Fprintln(&below, pid)
			}
			write(filepath.Join(group, "workers/cgroup.procs"), below.String())
			m := machine{proc: filepath.Join(dir, "proc"), cgroups: filepath.Join(dir, "cgroup")}
			if got := m.older(properties(replaceLines(shown, tt.lines)), tt.suspended); got != tt.want {
				t.Errorf("%s: pid %d, want %d", name, got, tt.want)
			}
		}
	}
}

// A real process began before now, and not long ago.
func TestBegan(t *testing.T) {
	t.Parallel()
	began, ok := machine{proc: "/proc"}.began(os.Getpid())
	now, err := monotonic()
	if err != nil || !ok || began <= 0 || !suspended() && (began > now+olderMargin || began < now-time.Hour) {
		t.Errorf("began %v %t, now %v %v", began, ok, now, err)
	}
}
