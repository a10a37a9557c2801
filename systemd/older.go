package systemd

import (
	"context"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Limits of what Older reads.
const (
	maxGroups    = 100     // control groups of the service
	maxProcesses = 5000    // in them
	maxStat      = 8 << 10 // bytes of /proc/PID/stat
)

// olderMargin is how much a process must be older than its service's start. systemd and the
// kernel note the two times one after the other, and the kernel rounds to 10 ms.
const olderMargin = time.Second

// userTick is the unit of the times in /proc/PID/stat, on every processor of Go.
const userTick = 10 * time.Millisecond

// Older says which process in the control group of the service began before its present start
// did: it may be what answers the checks. It returns "" if there is none. The user needs no
// rights over the process. If systemd did not answer in time, the error has a method Timeout
// that returns true. What cannot be read proves nothing.
func (a Attached) Older(ctx context.Context) (string, error) {
	pid, err := a.older(ctx)
	if pid != 0 {
		return fmt.Sprintf("a process of an earlier start still runs (pid %d) and may be what answers: end it (kill %[1]d), and see KillMode= of %s", pid, a.Name), nil
	}
	return "", err
}

// older returns such a process, or 0.
func (a Attached) older(ctx context.Context) (pid int, err error) {
	p, err := show(ctx, a.Name, "ActiveState", "SubState", "ControlGroup", "MainPID", "InactiveExitTimestampMonotonic", "ActiveExitTimestampMonotonic", "ExecMainStartTimestampMonotonic")
	if err != nil {
		return 0, err
	}
	return machine{proc: "/proc", cgroups: "/sys/fs/cgroup"}.older(p, suspended()), nil
}

// checkOlder is Older for people.
func (s Service) checkOlder(ctx context.Context) Report {
	r := Report{Checks: []string{"old processes"}}
	if pid, _ := (Attached{Name: s.Unit}).older(ctx); pid != 0 {
		r.Problems = []Problem{{Check: "old processes", Remedy: fmt.Sprintf("end it (kill %d), and see KillMode= of %s", pid, s.Unit),
			Cause: fmt.Sprintf("a process of an earlier start of %s still runs (pid %d), and may answer in place of the present one", s.Unit, pid)}}
	}
	return r
}

// suspended reports whether the machine was suspended since it was booted, or may have been.
// Then the kernel's times of processes are later than those of systemd.
func suspended() bool {
	var with, without unix.Timespec
	if unix.ClockGettime(unix.CLOCK_MONOTONIC, &without) != nil || unix.ClockGettime(unix.CLOCK_BOOTTIME, &with) != nil {
		return true
	}
	return time.Duration(with.Nano()-without.Nano()) > olderMargin/2
}

// machine is where processes and control groups are found.
type machine struct{ proc, cgroups string }

// older returns a process that began before the present start of a service, with the
// service's properties, or 0.
func (m machine) older(p map[string]string, suspended bool) int {
	begin, main := since(p, "InactiveExit"), since(p, "ExecMainStart")
	switch state := p["ActiveState"]; {
	case state != "active" && state != "activating" && state != "reloading", strings.Contains(p["SubState"], "auto-restart"):
		return 0
	case p["ControlGroup"] == "" || p["ControlGroup"] == "/" || begin == 0:
		return 0
	}
	begin = max(begin, since(p, "ActiveExit")) // with RestartMode=direct it was not inactive
	pid, _ := strconv.Atoi(p["MainPID"])
	switch began, ok := m.began(pid); {
	case ok: // both times of the main process show how far apart the clocks are
		begin = began - max(main-begin, 0)
	case suspended:
		return 0
	}
	for _, pid := range m.pids(p["ControlGroup"]) {
		if began, ok := m.began(pid); ok && began < begin-olderMargin {
			return pid
		}
	}
	return 0
}

// began returns when a process began, by CLOCK_BOOTTIME (proc(5)). ok is false if there is
// none, or if it executes nothing any more.
func (m machine) began(pid int) (began time.Duration, ok bool) {
	if pid <= 0 {
		return 0, false
	}
	f, err := os.Open(filepath.Join(m.proc, strconv.Itoa(pid), "stat"))
	if err != nil {
		return 0, false
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxStat))
	if err != nil {
		return 0, false
	}
	// The name of the program, in brackets, may contain brackets and spaces.
	fields := strings.Fields(string(b[strings.LastIndexByte(string(b), ')')+1:]))
	const first, start, signal = 3, 22, 31 // numbers of fields
	if len(fields) <= signal-first {
		return 0, false
	}
	pending, _ := strconv.ParseUint(fields[signal-first], 10, 64)
	ticks, err := strconv.ParseInt(fields[start-first], 10, 64)
	killed := pending&(1<<(unix.SIGKILL-1)) != 0
	return time.Duration(ticks) * userTick, err == nil && !killed && !strings.ContainsAny(fields[0], "ZXx")
}

// pids returns the processes of a control group and of the groups below it, from the first
// hierarchy that has it: the unified one, or systemd's own.
func (m machine) pids(group string) (pids []int) {
	for _, hierarchy := range []string{"", "systemd", "unified"} {
		dir := filepath.Join(m.cgroups, hierarchy, group)
		if _, err := os.Stat(filepath.Join(dir, "cgroup.procs")); err != nil {
			continue
		}
		groups := 0
		filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
			if groups >= maxGroups || len(pids) >= maxProcesses {
				return filepath.SkipAll
			}
			if err != nil || !e.IsDir() {
				return nil
			}
			groups++
			b, _ := os.ReadFile(filepath.Join(path, "cgroup.procs"))
			for line := range strings.FieldsSeq(string(b)) {
				if pid, err := strconv.Atoi(line); err == nil {
					pids = append(pids, pid)
				}
			}
			return nil
		})
		return pids
	}
	return nil
}
