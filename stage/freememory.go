package stage

import (
	"bufio"
	"os"
	"path/filepath"
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
	_, path, ok := strings.Cut(first("/proc/self/cgroup"), "0::/") // cgroup v2
	if !ok {
		return free
	}
	const root = "/sys/fs/cgroup"
	for dir := filepath.Join(root, path); len(dir) > len(root); dir = filepath.Dir(dir) {
		most, err := strconv.ParseUint(first(filepath.Join(dir, "memory.max")), 10, 64)
		if err != nil {
			continue // "max": no limit
		}
		used, err := strconv.ParseUint(first(filepath.Join(dir, "memory.current")), 10, 64)
		if err != nil {
			continue
		}
		cache, _ := field(filepath.Join(dir, "memory.stat"), "inactive_file") // the kernel takes it back
		used -= min(used, cache)
		free = min(free, most-min(most, used))
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
