package fsutil

import (
	"bufio"
	"cmp"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
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

// FileSystem returns the type of the file system of path, such as ext4, nfs4, vfat or
// fuse.sshfs, and its mount point. Where /proc does not tell, the type is the number of
// statfs(2), as 0x4d44.
func FileSystem(path string) (kind, mount string) {
	if real, err := filepath.EvalSymlinks(path); err == nil {
		path = real
	}
	for _, m := range mounts() {
		if len(m.at) >= len(mount) && (m.at == path || m.at == "/" || strings.HasPrefix(path, m.at+"/")) { // a later mount hides an earlier one
			kind, mount = m.kind, m.at
		}
	}
	if kind == "" {
		var st unix.Statfs_t
		if unix.Statfs(path, &st) == nil {
			kind = fmt.Sprintf("%#x", uint32(st.Type))
		}
	}
	return cmp.Or(kind, "unknown"), cmp.Or(mount, "/")
}

// mountPoints returns every mount point that this process sees.
func mountPoints() (points []string) {
	for _, m := range mounts() {
		points = append(points, m.at)
	}
	return points
}

type mount struct{ at, kind string }

// mounts returns what this process sees mounted, in the order of the mounts.
func mounts() (all []mount) {
	f, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return nil
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		// 36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 - ext3 /dev/root rw,errors=continue
		fields := strings.Fields(lines.Text())
		if len(fields) < 5 {
			continue
		}
		m := mount{at: unescape(fields[4])}
		if i := slices.Index(fields, "-"); i >= 0 && i+1 < len(fields) {
			m.kind = unescape(fields[i+1])
		}
		all = append(all, m)
	}
	return all
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
