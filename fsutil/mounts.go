package fsutil

import (
	"bufio"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// MountPoint returns a mount point at path or below it, or "" if there is
// none. What cannot be found out counts as none: /proc may be missing.
func MountPoint(path string) string {
	path, err := filepath.Abs(path)
	if err != nil {
		return ""
	}
	// The kernel lists real paths; the last element is not followed, as a rename
	// would not.
	if dir, err := filepath.EvalSymlinks(filepath.Dir(path)); err == nil {
		path = filepath.Join(dir, filepath.Base(path))
	}
	f, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return ""
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		fields := strings.Fields(lines.Text())
		if len(fields) < 5 {
			continue
		}
		if at := unescape(fields[4]); at == path || strings.HasPrefix(at, path+"/") {
			return at
		}
	}
	return ""
}

// unescape replaces \040 and the like, as mountinfo writes blanks.
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
