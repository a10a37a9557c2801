package systemd

import (
	"path/filepath"
	"slices"
	"strings"
)

// Layout names the paths of an install root; state.Layout is one. Every path is
// absolute, clean and below Root, and need not exist.
type Layout interface {
	Root() string
	ConfigFile() string
	Current() string     // the link to the version that the unit starts
	LastGood() string    // the link to the version that the watchdog runs from
	Previous() string    // the link to the version that a rollback returns to
	Versions() string    // the directory of the versions
	RestartFile() string // what the agent writes to have the service restarted
	Written() []string   // what the agent writes to, besides Root
}

// below returns the path that l has for p: the same file by the name that begins
// with l.Root(). It follows the links before the root, and none inside it.
func (u unit) below(p string) (path string, ok bool) {
	root := u.Layout.Root()
	for _, dir := range []string{root, u.real} {
		if rest, ok := strings.CutPrefix(filepath.Clean(p), dir+"/"); ok {
			return filepath.Join(root, rest), true
		}
	}
	// Another name of the root: follow what stands before a name that is ours.
	for _, ours := range []string{u.Layout.Current(), u.Layout.LastGood(), u.Layout.Previous(), u.Layout.Versions()} {
		if dir, rest, ok := strings.Cut(p+"/", u.name(ours)+"/"); ok && dir != "" && resolve(dir) == u.real {
			return filepath.Join(ours, rest), true
		}
	}
	return "", false
}

// name returns a path of the layout without the root: "/" and the rest.
func (u unit) name(path string) string {
	return strings.TrimPrefix(path, strings.TrimSuffix(u.Layout.Root(), "/"))
}

// inVersion reports whether a path is a version's directory, or in one.
func (u unit) inVersion(path string) bool {
	if !strings.HasPrefix(path, "/") {
		return false
	}
	if in, ok := u.below(path); ok {
		links := []string{u.Layout.Current(), u.Layout.LastGood(), u.Layout.Previous()}
		return slices.ContainsFunc(links, func(link string) bool { return within(in, link) }) || strings.HasPrefix(in, u.Layout.Versions()+"/")
	}
	return strings.HasPrefix(path, resolve(u.Layout.Versions())+"/")
}

// within reports whether path is dir, or below it.
func within(path, dir string) bool {
	return dir == "/" || path == dir || strings.HasPrefix(path, dir+"/")
}

// resolve returns path without links, or path itself if it cannot be followed.
func resolve(path string) string {
	if real, err := filepath.EvalSymlinks(path); err == nil {
		return real
	}
	return filepath.Clean(path)
}
