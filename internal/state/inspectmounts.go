package state

import (
	"errors"
	"fmt"
	"io/fs"
	"os"

	"github.com/bilbycast/edge-agent/fsutil"
)

// inspectMounts finds mount options that prevent upgrades.
func (l Layout) inspectMounts() []Flaw {
	var flaws []Flaw
	seen := map[string]bool{}
	for _, dir := range append([]string{l.root}, l.Dirs()...) {
		if at := fsutil.MountOf(dir); fsutil.ReadOnly(dir) && !seen[at] {
			seen[at] = true
			flaws = append(flaws, Flaw{"install root", dir + " is on a file system that is mounted read-only: no upgrade and no rollback is possible",
				"mount it read-write: mount -o remount,rw " + at})
		}
	}
	if len(flaws) == 0 && fsutil.NoExec(l.Versions()) {
		flaws = append(flaws, Flaw{"install root", l.Versions() + " is on a file system that is mounted noexec, so no version can be started",
			fmt.Sprintf("mount it with exec: mount -o remount,exec %s (and remove noexec from its line in /etc/fstab)", fsutil.MountOf(l.Versions()))})
	}
	return flaws
}

// inspectDirs finds directories that are dangling links, as those to a disk that is not
// mounted.
func (l Layout) inspectDirs() []Flaw {
	var flaws []Flaw
	for _, dir := range l.Dirs() {
		if to, dangles := danglingDir(dir); dangles {
			flaws = append(flaws, Flaw{"links", fmt.Sprintf("%s is a dangling link: it points to %s, which is missing", dir, to),
				fmt.Sprintf("mount the file system that has %s, or create that directory", to)})
		}
	}
	return flaws
}

// danglingDir returns the target of the link at path, and whether it is missing.
func danglingDir(path string) (to string, ok bool) {
	to, err := os.Readlink(path)
	if err != nil {
		return "", false
	}
	_, err = os.Stat(path)
	return to, errors.Is(err, fs.ErrNotExist)
}
