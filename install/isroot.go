package install

import (
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"github.com/bilbycast/edge-agent/config"
	"github.com/bilbycast/edge-agent/fsutil"
	"github.com/bilbycast/edge-agent/internal/state"
)

// replaceable returns what an administrator may replace by a link in a root.
func replaceable(l state.Layout) []string { return append(l.Dirs(), l.Files()...) }

// isRoot reports whether the directory of l is an install root, or has nothing to lose.
// One file that only an agent makes is enough, since the rest of a root may hold
// secrets. A file that only has the name of one is not; two such names are.
func isRoot(l state.Layout, entries []os.DirEntry) bool {
	telling := append(l.Files(), l.Versions(), l.Downloads(), l.OutboxDir(), l.Current(), l.LastGood())
	known, foreign := 0, 0
	for _, e := range entries {
		path := filepath.Join(l.Root(), e.Name())
		if e.Name() == "lost+found" && len(entries) == 1 || slices.Contains(replaceable(l), path) && isEmpty(path) {
			continue
		}
		foreign++
		if made(l, path) {
			return true
		}
		if slices.Contains(telling, path) {
			known++
		}
	}
	return foreign == 0 || known > 1
}

// isEmpty reports whether path is an empty file, an empty directory or a dangling link.
func isEmpty(path string) bool {
	st, err := os.Lstat(path)
	switch {
	case err != nil:
		return false
	case st.Mode().Type() == fs.ModeSymlink:
		_, err := os.Stat(path)
		return errors.Is(err, fs.ErrNotExist)
	case st.IsDir():
		entries, err := os.ReadDir(path)
		return err == nil && len(entries) == 0
	}
	return st.Mode().IsRegular() && st.Size() == 0
}

// made reports whether an agent or install made the file at path, for the root of l.
func made(l state.Layout, path string) bool {
	if l.IsConfigCopy(path) {
		return true
	}
	switch path {
	case l.ConfigFile():
		c, err := config.Load(resolved(path)) // the target of a link may be left from an earlier purge
		given := c.Service.InstallRoot
		if err == nil {
			var checked config.Settings
			checked, err = c.Resolve()
			c = checked.Config
		}
		return err == nil && (given == "" || resolved(c.Service.InstallRoot) == l.Root())
	case l.StateFile():
		b, err := fsutil.ReadLinked(path, state.MaxState)
		if err != nil {
			return false
		}
		s, err := state.Decode(b)
		return err == nil && s.Schema > 0
	case l.CredentialsFile():
		var c struct {
			ID     string `json:"node_id"`
			Secret string `json:"node_secret"`
		}
		b, err := fsutil.ReadLinked(path, maxToken<<2)
		return err == nil && json.Unmarshal(b, &c) == nil && c.ID != "" && c.Secret != ""
	}
	to, err := os.Readlink(path)
	return err == nil && slices.Contains(l.Links(), path) && state.IsLinkTarget(to)
}
