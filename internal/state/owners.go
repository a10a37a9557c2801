package state

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// maxOwners bounds how many files of versions Misowned looks at.
const maxOwners = 20000

// Misowned returns a file that the agent must own and that does not belong to owner, with
// the uid of its owner. ok is false if there is none. A file that is a link
// counts as what it points to. config.toml is left out: an administrator's file may
// belong to root.
func (l Layout) Misowned(owner uint32) (path string, by uint32, ok bool, err error) {
	files := []string{l.root, l.StateFile(), l.lockFile(), l.CredentialsFile()}
	for _, dir := range l.Dirs() {
		files = append(files, dir)
		entries, _ := os.ReadDir(dir) // other checks report an unreadable directory
		for _, e := range entries {
			files = append(files, filepath.Join(dir, e.Name()))
		}
	}
	files = append(files, l.AgentLock(), l.AcceptedConfig(), l.ManagerFile(), l.hooksFile(), l.startFile(), l.path(trialName), l.path(actionsName))
	for _, path := range files {
		st, err := os.Stat(path)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			continue
		case err != nil:
			return path, 0, false, err
		}
		if by, known := ownerOf(st); known && by != owner {
			return path, by, true, nil
		}
	}
	path, by, ok = misownedBelow(resolvedDir(l.Versions()), owner)
	return path, by, ok, nil
}

// misownedBelow is Misowned for the files of all versions, of which it counts links
// themselves. Unreadable directories are left out.
func misownedBelow(dir string, owner uint32) (found string, by uint32, ok bool) {
	n := 0
	filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if n++; err != nil || n > maxOwners {
			return nil
		}
		st, err := e.Info()
		if err != nil {
			return nil
		}
		if uid, known := ownerOf(st); known && uid != owner && path != dir {
			found, by, ok = path, uid, true
			return fs.SkipAll
		}
		return nil
	})
	return found, by, ok
}

// inspectOwners finds files that do not belong to the service's user.
func (l Layout) inspectOwners(owner uint32) []Flaw {
	path, by, found, err := l.Misowned(owner)
	switch {
	case err != nil:
		return []Flaw{{"owners", err.Error(), l.chown(owner)}}
	case found:
		return []Flaw{{"owners", fmt.Sprintf("%s belongs to %s, but the service runs as %s", path, userName(by), userName(owner)), l.chown(owner)}}
	}
	return nil
}

// chown returns the command that gives the root to the service's user, with what an
// administrator's links point to.
func (l Layout) chown(owner uint32) string {
	dirs := []string{resolvedDir(l.root)}
	for _, dir := range l.Dirs() {
		if st, err := os.Lstat(dir); err == nil && st.Mode().Type() == fs.ModeSymlink {
			if real, err := filepath.EvalSymlinks(dir); err == nil {
				dirs = append(dirs, real)
			}
		}
	}
	return fmt.Sprintf("run: chown -R %s %s", l.NewOwner(userName(owner)), strings.Join(dirs, " "))
}

// KeepGroup returns l for a root whose group lets another user than its owner reach the
// versions, as that of an attached service. The remedies of Inspect leave the group.
func (l Layout) KeepGroup() Layout {
	l.group = true
	return l
}

// NewOwner returns user as an argument of chown: with the user's group, unless the group
// of the root stays.
func (l Layout) NewOwner(user string) string {
	if l.group {
		return user
	}
	return user + ":"
}

// resolvedDir returns dir without links, or dir if a link cannot be followed.
func resolvedDir(dir string) string {
	if real, err := filepath.EvalSymlinks(dir); err == nil {
		return real
	}
	return dir
}

// Owner returns the uid of the owner of the root, or of what it is a link to.
func (l Layout) Owner() (uint32, error) {
	st, err := os.Stat(l.root)
	if err != nil {
		return 0, err
	}
	uid, ok := ownerOf(st)
	if !ok {
		return 0, fmt.Errorf("%s: the owner is unknown", l.root)
	}
	return uid, nil
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
