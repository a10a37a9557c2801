package config

import (
	"bytes"
	"fmt"
	"os"

	"github.com/bilbycast/edge-agent/fsutil"
	"github.com/bilbycast/edge-agent/internal/state"
	"github.com/bilbycast/edge-agent/release"
)

// OpenWith returns an Opener for a file of the service's own, which decode reads: with FromTOML or
// FromJSON, and then the service's own tables. If the file of a registered node cannot be used,
// the node runs with the copy of the last one that could, and refuses upgrades, as with Open:
// decode is called again, with that copy. A panic of decode is an error, and so is a call that
// takes longer than 10 s. So one wrong value stops no service, and its manager
// sees why. Warnings has what is wrong with the mode or the owner of the file.
func OpenWith(decode func(doc []byte) (Config, error)) Opener {
	return func(path string) (Settings, Warnings, error) {
		f, s, err := openOwn(path, decode)
		if err == nil {
			w := Warnings{Accepted: NewSecret(string(f.text)), List: f.unusedToken()}
			if ownRegistered(s) {
				w = f.withAccess(w, s.Layout)
			}
			return s, w, nil
		}
		for _, l := range f.roots() {
			_, s, copyErr := openOwn(l.AcceptedConfig(), decode)
			if copyErr != nil || !ownRegistered(s) {
				continue
			}
			return s, fallback(err, l.AcceptedConfig()), nil
		}
		return Settings{}, Warnings{}, err
	}
}

// openOwn reads a file with decode. With an error, f has what precedes it.
func openOwn(path string, decode func(doc []byte) (Config, error)) (f file, s Settings, err error) {
	f.path = path
	if f.text, err = fsutil.ReadFile(path, MaxFile); err != nil {
		return f, s, fmt.Errorf("config: %w", err)
	}
	r := guarded("the function that decodes it", decodeLimit, func() (r read) {
		r.config, r.err = decode(bytes.Clone(f.text)) // a call that does not return keeps it
		return r
	})
	if f.config = r.config; r.err != nil {
		return f, s, fmt.Errorf("%s: %w", path, r.err)
	}
	s, err = f.resolve()
	return f, s, err
}

// ownRegistered is registered for a file that only decode can read.
func ownRegistered(s Settings) bool {
	return registered(s.Layout) || s.Manager.URLs != nil && len(s.Manager.URLs) == 0
}

// fallback are the warnings of a node that runs with the copy at path, because of err.
func fallback(err error, path string) Warnings {
	w := Warning{
		release.Foreign(fmt.Sprintf("%v; the agent runs with a copy of the last valid file (%s) and refuses upgrades", err, path), maxText),
		"correct the file, and restart the service",
	}
	return Warnings{List: []Warning{w}, Withhold: w.String()}
}

// withAccess adds to w what is wrong with the mode or the owner of the file.
func (f file) withAccess(w Warnings, l state.Layout) Warnings {
	problem, repairable := f.access(l, uint32(os.Geteuid()))
	if problem.Cause == "" {
		return w
	}
	if w.List = append(w.List, problem); repairable {
		w.Path = f.path
	}
	return w
}
