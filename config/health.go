package config

import (
	"net/url"
	"path/filepath"
	"strings"

	"github.com/bilbycast/edge-agent/internal/state"
)

// Dependency is [health] dependency: in config.toml the text of a URL, or the list of a
// program's absolute path and its arguments. The zero Dependency names nothing.
type Dependency []string

// dependencyForm is what the value must be.
const dependencyForm = `a URL in quotes, or a program and its arguments like ["/a", "b"]`

// Set reports whether a dependency is named.
func (d Dependency) Set() bool { return len(d) > 0 }

// URL returns the URL to ask; "": there is none.
func (d Dependency) URL() string {
	if len(d) == 1 && strings.Contains(d[0], "://") && !filepath.IsAbs(d[0]) {
		return d[0]
	}
	return ""
}

// Command returns the program to run, and its arguments; nil: there is none.
func (d Dependency) Command() []string {
	if d.URL() != "" {
		return nil
	}
	return d
}

// UnmarshalText reads a URL. A path is an error: a program is the first of a list.
func (d *Dependency) UnmarshalText(b []byte) error {
	*d = Dependency{string(b)}
	if d.URL() == "" {
		return NewError("health.dependency", " must be %s", dependencyForm) // no DecodeError for a number
	}
	return nil
}

// resolve checks h and fills in its defaults; the error names the key.
func (h *Health) resolve(l state.Layout) error {
	if h.HTTP != "" {
		if err := checkURL("http", h.HTTP); err != nil {
			return err
		}
	}
	if err := checkCommand("command", h.Command); err != nil {
		return err
	}
	if u := h.Dependency.URL(); u != "" {
		if err := checkURL("dependency", u); err != nil {
			return err
		}
	}
	if err := checkCommand("dependency", h.Dependency.Command()); err != nil {
		return err
	}
	for _, arg := range h.Dependency.Command() {
		if ofAVersion(l, arg) {
			return NewError("health.dependency", " uses %q, which belongs to a version: a version on trial could then answer for its own dependency; use a program and files outside %s and %s", arg, l.Versions(), l.Current())
		}
	}
	if h.TimeoutSecs == 0 {
		h.TimeoutSecs = 5
	}
	if h.TimeoutSecs < 1 || h.TimeoutSecs > 9 {
		return NewError("health.timeout_secs", " = %d is outside 1 to 9 seconds", h.TimeoutSecs)
	}
	return nil
}

func checkURL(key, text string) error {
	u, err := url.Parse(text)
	if err != nil || u.Host == "" || u.User != nil || (u.Scheme != "http" && u.Scheme != "https") {
		return NewError("health."+key, " %q is not like http://127.0.0.1:8080/healthz", withoutSecret(text))
	}
	return nil
}

func checkCommand(key string, args []string) error {
	if len(args) > 0 && !filepath.IsAbs(args[0]) {
		return NewError("health."+key, " begins with %q, which is not the absolute path of a program", args[0])
	}
	return nil
}

// ofAVersion reports whether an argument has a path below the directory of the versions, or
// below a link to one, also where links that an administrator made point there.
func ofAVersion(l state.Layout, arg string) bool {
	if l.Root() == "" {
		return false
	}
	for _, dir := range append(l.Links(), l.Versions()) {
		within := func(path, dir string) bool { return strings.HasPrefix(path+"/", dir+"/") }
		if strings.Contains(arg+"/", dir+"/") || filepath.IsAbs(arg) && (within(filepath.Clean(arg), dir) || within(existing(arg), resolved(dir))) {
			return true
		}
	}
	return false
}

// existing is resolved for a path of which the end may be missing.
func existing(path string) string {
	if real, err := filepath.EvalSymlinks(path); err == nil || path == filepath.Dir(path) {
		return real
	}
	return filepath.Join(existing(filepath.Dir(path)), filepath.Base(path))
}
