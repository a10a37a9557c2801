package install

import (
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/bilbycast/edge-agent/config"
	"github.com/bilbycast/edge-agent/fsutil"
	"github.com/bilbycast/edge-agent/release"
	"github.com/bilbycast/edge-agent/state"
)

// linkedNames are what an administrator may replace by a link in a root.
var linkedNames = []string{"versions", "downloads", "outbox", "trust", "config.toml", "credentials.json", "state.json"}

// isRoot reports whether dir, without links, is an install root, or has nothing
// to lose. One file that only an agent makes is enough: what is left of a root
// may hold secrets. A name alone proves nothing: two of them do.
func isRoot(dir string, entries []os.DirEntry) bool {
	known, foreign := 0, 0
	for _, e := range entries {
		path := filepath.Join(dir, e.Name())
		if e.Name() == "lost+found" && len(entries) == 1 || slices.Contains(linkedNames, e.Name()) && hollow(path) {
			continue
		}
		foreign++
		if made(dir, e.Name()) {
			return true
		}
		if slices.Contains([]string{"versions", "config.toml", "state.json", "current", "last-good", "credentials.json", "outbox", "downloads"}, e.Name()) {
			known++
		}
	}
	return foreign == 0 || known > 1
}

// hollow reports whether a file or a directory is empty, or a link dangling.
func hollow(path string) bool {
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

// made reports whether a file of dir is one that an agent or install made for
// this root.
func made(dir, name string) bool {
	path := filepath.Join(dir, name)
	if stamp, ok := strings.CutPrefix(name, "config.toml.before-"); ok {
		_, err := time.Parse(keepTime, stamp)
		return err == nil
	}
	switch name {
	case "config.toml":
		c, err := config.Load(resolved(path)) // a link's file may be left of an earlier purge
		given := c.Service.InstallRoot
		if err == nil {
			var checked config.Settings
			checked, err = c.Resolve()
			c = checked.Config
		}
		return err == nil && (given == "" || resolved(c.Service.InstallRoot) == dir)
	case "state.json":
		b, err := fsutil.ReadLinked(path, state.MaxState)
		if err != nil {
			return false
		}
		s, err := state.Decode(b)
		return err == nil && s.Schema > 0
	case "credentials.json":
		var c struct {
			ID     string `json:"node_id"`
			Secret string `json:"node_secret"`
		}
		b, err := fsutil.ReadLinked(path, maxToken<<2)
		return err == nil && json.Unmarshal(b, &c) == nil && c.ID != "" && c.Secret != ""
	case "current", "last-good", "previous":
		to, err := os.Readlink(path)
		version, ok := strings.CutPrefix(to, "versions/")
		if err != nil || !ok {
			return false
		}
		_, err = release.ParseVersion(version)
		return err == nil
	}
	return false
}
