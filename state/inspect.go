package state

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/user"
	"strconv"
	"syscall"

	"github.com/bilbycast/edge-agent/fsutil"
)

// Inspect returns what an operator should mend in the root, in words that say
// how. It looks at what no start can settle by itself: owners, kinds of
// files, and the mount.
func (l Layout) Inspect() []string {
	st, err := os.Stat(l.root)
	if err != nil {
		return []string{err.Error()}
	}
	var notes []string
	if fsutil.ReadOnly(l.root) {
		notes = append(notes, fmt.Sprintf("%s is on a file system that is mounted read-only: no upgrade and no rollback is possible; mount it read-write", l.root))
	}
	owner, known := ownerOf(st)
	if !known {
		return notes
	}
	for _, path := range []string{l.Versions(), l.Downloads(), l.outboxDir(), l.stateFile(), l.lockFile(), l.CredentialsFile()} {
		st, err := os.Lstat(path)
		switch o, ok := uint32(0), false; {
		case errors.Is(err, fs.ErrNotExist):
		case err != nil:
			notes = append(notes, err.Error())
		default:
			if o, ok = ownerOf(st); ok && o != owner {
				name := userName(owner)
				notes = append(notes, fmt.Sprintf("%s belongs to %s, but the root to %s: chown -R %s: %s", path, userName(o), name, name, l.root))
			}
		}
	}
	if st, err := os.Lstat(l.outboxDir()); err == nil && !st.IsDir() {
		notes = append(notes, fmt.Sprintf("%s is not a directory; it is kept aside when the next event is written", l.outboxDir()))
	}
	return notes
}

func ownerOf(st fs.FileInfo) (uint32, bool) {
	sys, ok := st.Sys().(*syscall.Stat_t)
	if !ok {
		return 0, false
	}
	return sys.Uid, true
}

func userName(uid uint32) string {
	id := strconv.FormatUint(uint64(uid), 10)
	if u, err := user.LookupId(id); err == nil {
		return u.Username
	}
	return id
}
