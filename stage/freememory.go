package stage

import (
	"bufio"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// freeMemory returns how many bytes a child could use: what the machine has, and what the
// memory limits of the service's cgroup leave. systemd may end a service in whose cgroup the
// kernel kills a process, so such a child must not be started. It returns a large number if
// nothing is known.
func freeMemory() uint64 {
	const unknown = 1 << 62
	free := uint64(unknown)
	if kib, ok := field("/proc/meminfo", "MemAvailable:"); ok {
		free = kib << 10
	}
	groups, _ := os.ReadFile("/proc/self/cgroup")
	return min(free, freeInGroups("/sys/fs/cgroup", string(groups)))
}

// freeInGroups is what the memory limits leave of the control groups, in lines as of
// /proc/self/cgroup, and of those above them.
func freeInGroups(root, groups string) uint64 {
	free := uint64(1 << 62)
	for line := range strings.Lines(groups) {
		parts := strings.SplitN(strings.TrimSuffix(line, "\n"), ":", 3)
		if len(parts) < 3 {
			continue
		}
		top, limit, usage, cached := root, "memory.max", "memory.current", "inactive_file"
		if parts[1] != "" { // cgroup v1: its controllers
			if !slices.Contains(strings.Split(parts[1], ","), "memory") {
				continue
			}
			top, limit, usage, cached = filepath.Join(root, "memory"), "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"
		}
		for dir := filepath.Join(top, parts[2]); len(dir) >= len(top); dir = filepath.Dir(dir) {
			most, err := strconv.ParseUint(first(filepath.Join(dir, limit)), 10, 64)
			if err != nil {
				continue // "max": no limit
			}
			used, err := strconv.ParseUint(first(filepath.Join(dir, usage)), 10, 64)
			if err != nil {
				continue
			}
			cache, _ := field(filepath.Join(dir, "memory.stat"), cached) // the kernel takes it back
			used -= min(used, cache)
			free = min(free, most-min(most, used))
		}
	}
	return free
}

// first returns the first line of a file; "" if there is none.
func first(path string) string {
	b, _ := os.ReadFile(path)
	line, _, _ := strings.Cut(string(b), "\n")
	return line
}

// field returns the number that follows name at the begin of a line of the file.
func field(path, name string) (uint64, bool) {
	f, err := os.Open(path)
	if err != nil {
		return 0, false
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		if fields := strings.Fields(lines.Text()); len(fields) > 1 && fields[0] == name {
			n, err := strconv.ParseUint(fields[1], 10, 50)
			return n, err == nil
		}
	}
	return 0, false
}
