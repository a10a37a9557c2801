package install

import (
	"io/fs"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"syscall"

	"github.com/bilbycast/edge-agent/systemd"
)

// nonblock is the flag with which opening a FIFO does not block.
const nonblock = syscall.O_NONBLOCK

// resolved returns path without links, or path itself if a link cannot be followed.
func resolved(path string) string {
	if real, err := filepath.EvalSymlinks(path); err == nil {
		return real
	}
	return filepath.Clean(path)
}

func ownerIDs(st fs.FileInfo) (uid, gid uint32, ok bool) {
	sys, ok := st.Sys().(*syscall.Stat_t)
	if !ok {
		return 0, 0, false
	}
	return sys.Uid, sys.Gid, true
}

func ownerName(st fs.FileInfo) string {
	uid, _, _ := ownerIDs(st)
	return systemd.UserName(uid)
}

func ownedByRoot(st fs.FileInfo) bool {
	uid, _, ok := ownerIDs(st)
	return ok && uid == 0
}

// groupsOf returns the gids of a user's groups.
func groupsOf(uid uint32) []uint32 {
	u, err := user.LookupId(strconv.FormatUint(uint64(uid), 10))
	if err != nil {
		return nil
	}
	ids, err := u.GroupIds()
	if err != nil {
		ids = []string{u.Gid}
	}
	var out []uint32
	for _, id := range ids {
		if n, err := strconv.ParseUint(id, 10, 32); err == nil {
			out = append(out, uint32(n))
		}
	}
	return out
}

// isMount reports whether dir is on another device than its parent, as the root of a
// mounted file system is.
func isMount(dir string) bool {
	st, err1 := os.Lstat(dir)
	up, err2 := os.Lstat(filepath.Dir(dir))
	if err1 != nil || err2 != nil {
		return false
	}
	a, ok1 := st.Sys().(*syscall.Stat_t)
	b, ok2 := up.Sys().(*syscall.Stat_t)
	return ok1 && ok2 && a.Dev != b.Dev
}

// isMask reports whether a unit file is a mask: a link to /dev/null, or empty.
func isMask(path string) bool {
	to, err := filepath.EvalSymlinks(path)
	if err == nil && to == "/dev/null" {
		return true
	}
	st, err := os.Stat(path)
	return err == nil && st.Mode().IsRegular() && st.Size() == 0
}
