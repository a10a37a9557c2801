package systemd

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// FitVersion returns an error, with the remedy, if the unit names a path below current that
// the version in dir lacks, or nil: systemd could not start that version. A setting
// marked optional, with a leading "-", needs nothing. What systemd does not answer is no
// reason.
func (s Service) FitVersion(ctx context.Context, dir string) error {
	if Booted() != nil {
		return nil
	}
	p := answered(ctx, func() (map[string]string, error) { return s.shownAll(ctx, s.Unit) })
	if p == nil {
		return nil
	}
	return s.fitAll(ctx, p, dir)
}

// answered calls ask until systemd answers in time, at most fitTries times, and returns its
// last result.
func answered(ctx context.Context, ask func() (map[string]string, error)) map[string]string {
	p, err := ask()
	for tries := 1; unanswered(err) != nil && tries < fitTries && ctx.Err() == nil; tries++ {
		p, err = ask()
	}
	return p
}

// fitTries is how often FitVersion asks a question that systemd does not answer in time.
const fitTries = 3

// shownAll returns what systemd knows of a unit; nil if that is nothing. The error says that
// it did not answer every question.
func (s Service) shownAll(ctx context.Context, unit string) (map[string]string, error) {
	p, err := show(ctx, unit, slices.Concat(commands, shown)...)
	if err != nil || p["LoadState"] != "loaded" {
		return nil, err
	}
	return p, addHidden(ctx, unit, p)
}

// hiddenTries is how often OwnFault asks for what systemctl does not print. An old busctl
// cannot answer; then the files of the unit must do.
const hiddenTries = 5

// OwnFault returns why the version that current points to cannot be started, if that is its
// own fault: it lacks a path that the unit names below current, or it was started so
// often that systemd gave up. It returns "" otherwise. It asks until systemd answers, or ctx
// is done.
func (s Service) OwnFault(ctx context.Context) string {
	if Booted() != nil {
		return ""
	}
	p, err := s.shownAll(ctx, s.Unit)
	for tries := 1; err != nil && (p == nil || tries < hiddenTries); tries++ {
		select {
		case <-ctx.Done():
			return ""
		case <-time.After(stopPoll):
		}
		p, err = s.shownAll(ctx, s.Unit)
	}
	if p == nil {
		return ""
	}
	if state, err := QueryState(ctx, s.Unit); err == nil && state.Result == "start-limit-hit" {
		return state.EndReason()
	}
	if err := s.fitAll(ctx, p, s.Layout.Current()); err != nil {
		return err.Error()
	}
	return ""
}

// maxRequired bounds how many units FitVersion looks at.
const maxRequired = 20

// fitAll is fitVersion of the unit, and of the services that it requires: systemd does not
// start the unit if one of them fails.
func (s Service) fitAll(ctx context.Context, p map[string]string, dir string) error {
	errs := []error{s.fitVersion(p, dir), s.fitPrivileges(p, dir)}
	seen := []string{s.Unit}
	for todo := required(p); len(todo) > 0 && len(seen) < maxRequired; todo = todo[1:] {
		name := todo[0]
		if slices.Contains(seen, name) {
			continue
		}
		seen = append(seen, name)
		other := s
		other.Unit = name
		if p := answered(ctx, func() (map[string]string, error) { return other.shownAll(ctx, name) }); p != nil {
			if err := other.fitVersion(p, dir); err != nil {
				errs = append(errs, fmt.Errorf("%s needs %s: %w", s.Unit, name, err))
			}
			todo = append(todo, required(p)...)
		}
	}
	return errors.Join(errs...)
}

// required returns the services without which systemd does not start a unit.
func required(p map[string]string) (out []string) {
	for _, key := range []string{"Requires", "Requisite", "BindsTo"} {
		for name := range strings.FieldsSeq(p[key]) {
			if strings.HasSuffix(name, ".service") {
				out = append(out, name)
			}
		}
	}
	return out
}

// FitVersionSelf is FitVersion for the unit of this process. It returns nil if this
// process is not the service of a unit.
func (s Service) FitVersionSelf(ctx context.Context, dir string) error {
	p := answered(ctx, func() (map[string]string, error) {
		p, err := s.self(ctx, commands...)
		if p != nil {
			err = addHidden(ctx, s.named().Unit, p)
		}
		return p, err
	})
	if p == nil {
		return nil
	}
	return s.named().fitAll(ctx, p, dir)
}

func (s Service) fitVersion(p map[string]string, dir string) error {
	u := unit{Service: s, p: p, real: resolve(s.Layout.Root())}
	var errs []error
	for _, n := range append(u.lacking(dir), u.commandsLacking(dir)...) {
		from := n.file
		if from == "" {
			from = strings.TrimPrefix(u.fromFile(n.key), " from ")
		}
		if err := fmt.Errorf("%s has %s=%s, and %s %s: publish a version with it, or correct %[2]s= in %[6]s, then run: systemctl daemon-reload",
			s.Unit, n.key, n.path, filepath.Base(resolve(dir)), n.fault(), from); len(errs) < 3 {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// fault says how a version does not meet n.
func (n need) fault() string {
	switch _, kind := n.condition(); {
	case n.negated:
		return "does not meet that"
	case strings.HasPrefix(kind, "PathExists") || kind == "":
		return "does not have it"
	}
	return "does not have it in that form"
}

// inNext returns the part of path below current or last-good, which point to another
// version after an upgrade.
func (u unit) inNext(path string) (rest string, ok bool) {
	in, ok := u.below(path)
	if !ok {
		return "", false
	}
	for _, link := range []string{u.Layout.Current(), u.Layout.LastGood()} {
		if within(in, link) {
			return strings.TrimPrefix(in, link), true
		}
	}
	return "", false
}

// lacking returns what settings of the unit need, and the version in dir does not have.
func (u unit) lacking(dir string) (out []need) {
	triggers := map[string][]need{}
	for _, n := range u.needs() {
		if n.trigger {
			class, _ := n.condition()
			triggers[class] = append(triggers[class], n)
			continue
		}
		if n.key != "ExecCondition" && !u.met(n, dir) { // see commandsLacking
			out = append(out, n)
		}
	}
	for _, class := range []string{"Condition", "Assert"} {
		of := triggers[class]
		if len(of) > 0 && !slices.ContainsFunc(of, func(n need) bool { return n.path == "" || u.met(n, dir) }) {
			out = append(out, of[0])
		}
	}
	return out
}

// met reports whether the version in dir has what n needs, or n is not about a version
// that changes with an upgrade.
func (u unit) met(n need, dir string) bool {
	rest, ok := u.inNext(n.path)
	if !ok {
		return true
	}
	_, kind := n.condition()
	return has(kind, n.key, filepath.Join(dir, rest)) != n.negated
}

// has reports whether path is what a setting needs. kind is that of a condition, or "".
func has(kind, key, path string) bool {
	st, err := os.Stat(path)
	exists := err == nil
	switch {
	case kind == "PathExistsGlob" || key == "EnvironmentFile":
		found, err := filepath.Glob(path)
		return err == nil && len(found) > 0
	case kind == "PathIsSymbolicLink":
		st, err := os.Lstat(path)
		return err == nil && st.Mode().Type() == os.ModeSymlink
	case kind == "PathIsDirectory", key == "WorkingDirectory", key == "RootDirectory":
		return exists && st.IsDir()
	case kind == "DirectoryNotEmpty":
		entries, err := os.ReadDir(path)
		return err == nil && len(entries) > 0
	case kind == "FileNotEmpty":
		return exists && st.Mode().IsRegular() && st.Size() > 0
	case kind == "FileIsExecutable":
		return exists && st.Mode().IsRegular() && st.Mode()&0o111 != 0
	case key == "StandardOutput", key == "StandardError": // systemd creates the file
		st, err := os.Stat(filepath.Dir(path))
		return exists || err == nil && st.IsDir()
	}
	return exists
}

// commands are the properties of the commands that systemd runs for a start or a stop.
var commands = []string{"ExecStartPost", "ExecReload", "ExecStop", "ExecStopPost"}

// commandsLacking returns the commands of the unit that the version in dir does not have,
// and the arguments that the running version or last-good has, and that one does not, like
// the script of an interpreter.
func (u unit) commandsLacking(dir string) (out []need) {
	for _, key := range append([]string{"ExecCondition", "ExecStartPre", "ExecStart"}, commands...) {
		for _, e := range execLines(u.p[key]) {
			if e.ignored || len(e.args) == 0 {
				continue
			}
			if rest, ok := u.inNext(e.path); ok && !has("FileIsExecutable", key, filepath.Join(dir, rest)) {
				out = append(out, need{key: key, path: e.path})
			}
			if key == "ExecReload" || strings.HasPrefix(key, "ExecStop") {
				continue
			}
			for _, arg := range e.args[1:] {
				for _, path := range u.versionPaths(arg) {
					rest, ok := u.inNext(path)
					had := has("", key, filepath.Join(u.Layout.Current(), rest)) || has("", key, filepath.Join(u.Layout.LastGood(), rest))
					if ok && had && !has("", key, filepath.Join(dir, rest)) {
						out = append(out, need{key: key, path: path})
					}
				}
			}
		}
	}
	return out
}
