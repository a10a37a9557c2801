package state

import (
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/bilbycast/edge-agent/fsutil"
	"github.com/bilbycast/edge-agent/release"
)

// maxRelease bounds ReleaseFile, in bytes.
const maxRelease = 4 << 10

// WithProgram returns the layout for a service whose program is at name in a version's
// directory. Versions whose ReleaseFile names a program do not need it.
func (l Layout) WithProgram(name string) Layout { l.program = name; return l }

// WithProgramAt is WithProgram for the program at path, if that is in a version's
// directory: the watchdog is the program of such a version.
func (l Layout) WithProgramAt(path string) Layout {
	versions, err := filepath.EvalSymlinks(l.Versions())
	if err != nil {
		return l
	}
	rel, err := filepath.Rel(versions, path)
	if err != nil || !filepath.IsLocal(rel) {
		return l
	}
	dir, name, found := cutPath(rel)
	if _, err := release.ParseVersion(dir); err != nil || !found {
		return l
	}
	return l.WithProgram(name)
}

// cutPath returns the first element of a relative path, and the rest.
func cutPath(rel string) (first, rest string, found bool) {
	for i := range len(rel) {
		if rel[i] == filepath.Separator {
			return rel[:i], rel[i+1:], true
		}
	}
	return rel, "", false
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
	case errors.Is(err, fs.ErrNotExist):
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
