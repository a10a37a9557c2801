package fsutil

import (
	"bufio"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// MountPoint returns a mount point at path or below it, or "" if there is none, or if
// /proc is not mounted. It does not follow a link at path itself.
func MountPoint(path string) string {
	path, err := filepath.Abs(path)
	if err != nil {
		return ""
	}
	// The kernel lists real paths. The last element is not followed, as a rename
	// would not follow it.
	if dir, err := filepath.EvalSymlinks(filepath.Dir(path)); err == nil {
		path = filepath.Join(dir, filepath.Base(path))
	}
	for _, at := range mountPoints() {
		if at == path || strings.HasPrefix(at, path+"/") {
			return at
		}
	}
	return ""
}

// MountOf returns the mount point of the file system of path, also of a bind mount. It
// returns "/" if the mount point is unknown.
func MountOf(path string) string {
	if real, err := filepath.EvalSymlinks(path); err == nil {
		path = real
	}
	found := "/"
	for _, at := range mountPoints() {
		if len(at) > len(found) && (at == path || strings.HasPrefix(path, at+"/")) {
			found = at
		}
	}
	return found
}

// mountPoints returns every mount point that this process sees.
func mountPoints() (points []string) {
	f, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return nil
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		if fields := strings.Fields(lines.Text()); len(fields) >= 5 {
			points = append(points, unescape(fields[4]))
		}
	}
	return points
}

// unescape replaces the octal escapes of mountinfo, such as \040 for a blank.
func unescape(s string) string {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+3 < len(s) {
			if n, err := strconv.ParseUint(s[i+1:i+4], 8, 8); err == nil {
				b.WriteByte(byte(n))
				i += 3
				continue
			}
		}
		b.WriteByte(s[i])
	}
	return b.String()
}
