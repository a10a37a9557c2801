package agent

import (
	"bufio"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/bilbycast/edge-agent/internal/state"
	"github.com/bilbycast/edge-agent/release"
)

// Limits of what each check of a version on trial reads.
const (
	maxGroups    = 100     // control groups of the service
	maxProcesses = 5000    // in them
	maxParents   = 100     // of a process
	maxStat      = 8 << 10 // bytes of /proc/PID/stat
)

// checkOtherVersions returns an error if a process of an earlier start, which executes
// another version than v, still runs in the control group of this service: that process may
// be what answers the checks. What this start began, such as the probe of last-good, is no
// such process. Neither is one that this user may not look at: it proves nothing. Outside a
// service of systemd there is nothing to find.
func checkOtherVersions(l state.Layout, v release.Version) error {
	versions, err := filepath.EvalSymlinks(l.Versions())
	if err != nil {
		return nil
	}
	m := machine{proc: "/proc", cgroups: "/sys/fs/cgroup", self: os.Getpid()}
	if name, pid := m.otherVersion(versions, v.String()); pid != 0 {
		return fmt.Errorf("a process of %s still runs (pid %d) and may be what answers: end it (kill %[2]d), and see KillMode= of the unit", release.Foreign(name, release.MaxNameLen), pid)
	}
	return nil
}

// machine is where processes and control groups are found, and the pid of this process.
type machine struct {
	proc, cgroups string
	self          int
}

// otherVersion returns a process of another version than own, and its version; pid is 0 if
// there is none. versions is the real path of the directory of all versions.
func (m machine) otherVersion(versions, own string) (version string, pid int) {
	self, ok := m.process(m.self)
	if !ok {
		return "", 0
	}
	for _, pid := range m.pids() {
		version, ok := m.versionOf(pid, versions)
		if !ok || version == own {
			continue
		}
		p, ok := m.process(pid)
		if !ok || p.ending || p.session == self.session || m.descends(p) {
			continue
		}
		// The pid may have gone to another process meanwhile.
		if again, ok := m.versionOf(pid, versions); ok && again == version {
			return version, pid
		}
	}
	return "", 0
}

// versionOf returns the version whose program the process executes. A program that was
// removed meanwhile keeps its path, with " (deleted)" behind it. A zombie has none.
func (m machine) versionOf(pid int, versions string) (string, bool) {
	exe, err := os.Readlink(filepath.Join(m.proc, strconv.Itoa(pid), "exe"))
	if err != nil {
		return "", false
	}
	below, ok := strings.CutPrefix(exe, versions+"/")
	version, _, inside := strings.Cut(below, "/")
	return version, ok && inside
}

// process is what /proc/PID/stat says about a process (proc(5)).
type process struct {
	parent  int
	session int  // systemd begins one for each start, and the kernel reuses no number in use
	ending  bool // it got SIGKILL, and executes nothing of its own any more
}

func (m machine) process(pid int) (p process, ok bool) {
	f, err := os.Open(filepath.Join(m.proc, strconv.Itoa(pid), "stat"))
	if err != nil {
		return p, false
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxStat))
	if err != nil {
		return p, false
	}
	// The name of the program, in brackets, may contain brackets and spaces.
	fields := strings.Fields(string(b[strings.LastIndexByte(string(b), ')')+1:]))
	const first, parent, session, signal = 3, 4, 6, 31 // numbers of fields
	if len(fields) <= signal-first {
		return p, false
	}
	p.parent, _ = strconv.Atoi(fields[parent-first])
	p.session, _ = strconv.Atoi(fields[session-first])
	pending, _ := strconv.ParseUint(fields[signal-first], 10, 64)
	p.ending = pending&(1<<(9-1)) != 0 || strings.ContainsAny(fields[0], "ZXx")
	return p, true
}

// descends reports whether this process started p, or one that did.
func (m machine) descends(p process) bool {
	for range maxParents {
		if p.parent == m.self {
			return true
		}
		var ok bool
		if p, ok = m.process(p.parent); !ok {
			return false
		}
	}
	return false
}

// pids returns the processes in the control group of the service, and in the groups below
// it: with Delegate= a service makes groups of its own.
func (m machine) pids() (pids []int) {
	groups := 0
	filepath.WalkDir(m.group(), func(dir string, d fs.DirEntry, err error) error {
		switch {
		case err != nil || !d.IsDir():
			return nil
		case groups == maxGroups:
			return fs.SkipAll
		}
		groups++
		f, err := os.Open(filepath.Join(dir, "cgroup.procs"))
		if err != nil {
			return nil
		}
		defer f.Close()
		for lines := bufio.NewScanner(f); lines.Scan(); {
			if len(pids) == maxProcesses {
				return fs.SkipAll
			}
			if pid, err := strconv.Atoi(lines.Text()); err == nil && pid > 0 {
				pids = append(pids, pid)
			}
		}
		return nil
	})
	return pids
}

// group returns the directory of the service's control group; "" if this process is not
// of a service, or the group cannot be seen. The unified hierarchy is at the top, or in
// "unified" beside the others (cgroups(7)), and systemd's own of version 1 in "systemd".
func (m machine) group() string {
	b, err := os.ReadFile(filepath.Join(m.proc, "self/cgroup"))
	if err != nil {
		return ""
	}
	for line := range strings.Lines(string(b)) {
		parts := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if len(parts) != 3 {
			continue
		}
		at := map[string][]string{"": {"", "unified"}, "name=systemd": {"systemd"}}[parts[1]]
		for _, hierarchy := range at {
			dir := filepath.Join(m.cgroups, hierarchy, serviceGroup(parts[2]))
			if _, err := os.Stat(filepath.Join(dir, "cgroup.procs")); err == nil && serviceGroup(parts[2]) != "" {
				return dir
			}
		}
	}
	return ""
}

// serviceGroup returns the path of the service's group, of which group is one or one
// below; "" if group is that of a login or of a container.
func serviceGroup(group string) string {
	for ; strings.Trim(group, "/.") != ""; group = filepath.Dir(group) {
		switch filepath.Ext(group) {
		case ".service":
			return group
		case ".scope", ".slice":
			return ""
		}
	}
	return ""
}
