package state

import (
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/bilbycast/edge-agent/fsutil"
	"github.com/bilbycast/edge-agent/release"
)

// maxRelease bounds ReleaseFile, in bytes.
const maxRelease = 4 << 10

// WithProgram returns the layout for a service whose program is at name in a version's
// directory. Versions whose ReleaseFile names a program do not need it.
func (l Layout) WithProgram(name string) Layout { l.program = name; return l }

// WithProgramAt is WithProgram for the program at path, as systemd starts it: through a link
// of the root, or below versions/. Links within a version are not followed, since
// another version may have another target. For any other path it changes nothing.
func (l Layout) WithProgramAt(path string) Layout {
	for _, dir := range []string{l.Current(), l.LastGood(), l.Previous()} {
		if name, err := filepath.Rel(dir, path); err == nil && name != "." && filepath.IsLocal(name) {
			return l.WithProgram(name)
		}
	}
	rel, err := filepath.Rel(l.Versions(), path)
	if err != nil || !filepath.IsLocal(rel) {
		return l
	}
	dir, name, found := strings.Cut(rel, string(filepath.Separator))
	if _, err := release.ParseVersion(dir); err != nil || !found {
		return l
	}
	return l.WithProgram(name)
}

// damage returns why version v cannot be started, or "": its program is missing, empty,
// not executable or no file. What cannot be read now says nothing, and a version
// whose program nobody names counts as sound.
func (l Layout) damage(v release.Version) string {
	name := l.programOf(v)
	if name == "" {
		return ""
	}
	st, err := os.Stat(filepath.Join(l.Version(v), name))
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ENOTDIR):
		return "its program " + name + " is missing"
	case err != nil:
		return ""
	case !st.Mode().IsRegular():
		return "its program " + name + " is not a regular file"
	case st.Size() == 0:
		return "its program " + name + " is empty"
	case st.Mode()&0o111 == 0:
		return "its program " + name + " is not executable"
	}
	return ""
}

// programOf returns the program of v, as staging recorded it, or else as the caller of
// WithProgram names it; "": it is not known.
func (l Layout) programOf(v release.Version) string {
	var made struct {
		Program string `json:"program"`
	}
	b, err := fsutil.ReadFile(filepath.Join(l.Version(v), ReleaseFile), maxRelease)
	if err == nil && json.Unmarshal(b, &made) == nil && filepath.IsLocal(made.Program) {
		return made.Program
	}
	return l.program
}
