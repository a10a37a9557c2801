package install

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/bilbycast/edge-agent/fsutil"
	"github.com/bilbycast/edge-agent/internal/state"
)

// resumable reports whether a root without the link current has no state yet, or the one
// that an interrupted installation left: it records the version before the links.
func resumable(l state.Layout) bool {
	b, err := fsutil.ReadFile(l.StateFile(), state.MaxState)
	if errors.Is(err, fs.ErrNotExist) {
		return true
	}
	if err != nil {
		return false
	}
	s, err := state.Decode(b)
	if err != nil {
		return false
	}
	t, err := l.Tree()
	return err == nil && s.Status == state.Stable && t.Has(s.Good)
}

// makeRoot creates the install root and its missing parents, which belong to root then.
// Existing parents keep their modes, and nobody else may enter an existing root.
func (n *Node) makeRoot(l state.Layout, kept ownership) (ownership, error) {
	disk := l.Disk()
	for dir, missing := filepath.Dir(n.real), []string{}; ; dir = filepath.Dir(dir) {
		if _, err := os.Lstat(dir); err == nil {
			for i := len(missing) - 1; i >= 0; i-- {
				if err := disk.Mkdir(missing[i], 0o755); err != nil {
					return kept, err
				}
			}
			break
		} else if !errors.Is(err, fs.ErrNotExist) {
			return kept, err
		}
		missing = append(missing, dir)
	}
	if err := disk.Mkdir(n.real, 0o750); err != nil {
		return kept, err
	}
	st, err := os.Lstat(n.real)
	if err != nil {
		return kept, err
	}
	if st.Mode().Perm()&^0o750 != 0 { // an existing root that other users may enter
		if err := disk.Chmod(n.real, st.Mode().Perm()&0o750); err != nil {
			return kept, err
		}
	}
	if kept.exists {
		return kept, nil
	}
	return n.ownership(l)
}
