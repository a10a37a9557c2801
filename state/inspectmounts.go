package state

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/bilbycast/edge-agent/fsutil"
)

// inspectMounts finds file systems that are mounted in a way in which the agent
// cannot work.
func (l Layout) inspectMounts() []Flaw {
	var flaws []Flaw
	seen := map[string]bool{}
	for _, dir := range append([]string{l.root}, l.Dirs()...) {
		if at := mountPoint(dir); fsutil.ReadOnly(dir) && !seen[at] {
			seen[at] = true
			flaws = append(flaws, Flaw{"install root", dir + " is on a file system that is mounted read-only: no upgrade and no rollback is possible",
				"mount it read-write: mount -o remount,rw " + at})
		}
	}
	if len(flaws) == 0 && fsutil.NoExec(l.Versions()) {
		flaws = append(flaws, Flaw{"install root", l.Versions() + " is on a file system that is mounted noexec, so no version can be started",
			fmt.Sprintf("mount it with exec: mount -o remount,exec %s (and remove noexec from its line in /etc/fstab)", mountPoint(l.Versions()))})
	}
	return flaws
}

// inspectDirs finds directories that are dangling links: of a disk that is not
// mounted, for instance.
func (l Layout) inspectDirs() []Flaw {
	var flaws []Flaw
	for _, dir := range l.Dirs() {
		if to, dangles := danglingDir(dir); dangles {
			flaws = append(flaws, Flaw{"links", fmt.Sprintf("%s is a dangling link: it points to %s, which is not there", dir, to),
				fmt.Sprintf("mount the file system that has %s, or create that directory", to)})
		}
	}
	return flaws
}

// danglingDir returns the target of a link that stands for nothing.
func danglingDir(path string) (to string, ok bool) {
	to, err := os.Readlink(path)
	if err != nil {
		return "", false
	}
	_, err = os.Stat(path)
	return to, errors.Is(err, fs.ErrNotExist)
}

// mountPoint returns the mount point of the file system that path is on, also of
// a bind mount, or "/" where it cannot be found out.
func mountPoint(path string) string {
	if real, err := filepath.EvalSymlinks(path); err == nil {
		path = real
	}
	f, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return "/"
	}
	defer f.Close()
	found := "/"
	unescape := strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`)
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		fields := strings.Fields(lines.Text())
		if len(fields) < 5 {
			continue
		}
		if at := unescape.Replace(fields[4]); len(at) > len(found) && (at == path || strings.HasPrefix(path, at+"/")) {
			found = at
		}
	}
	return found
}
