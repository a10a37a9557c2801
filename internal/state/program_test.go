package state

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/bilbycast/edge-agent/internal/unreadable"
	"github.com/bilbycast/edge-agent/release"
)

// programRoot returns a root whose version 1.1.0 runs, and is the good one, with 1.0.0
// below it. recorded: staging recorded the name of the program.
func programRoot(t *testing.T, recorded bool) (l Layout, program string) {
	t.Helper()
	l, err := At(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	v0, v1 := release.MustVersion("1.0.0"), release.MustVersion("1.1.0")
	if err := l.Make(); err != nil {
		t.Fatal(err)
	}
	for _, v := range []release.Version{v0, v1} {
		bin := filepath.Join(l.Version(v), "bin")
		if err := errors.Join(os.MkdirAll(bin, 0o755), os.WriteFile(filepath.Join(bin, "app"), []byte("program"), 0o755)); err != nil {
			t.Fatal(err)
		}
		if recorded {
			if err := os.WriteFile(filepath.Join(l.Version(v), ReleaseFile), []byte(`{"version":"`+v.String()+`","program":"bin/app"}`), 0o644); err != nil {
				t.Fatal(err)
			}
		}
	}
	if !recorded {
		l = l.WithProgramAt(filepath.Join(l.Version(v0), "bin", "app"))
	}
	if _, err := l.Do(t.Context(), func(s State, tr Tree, now time.Time) (State, Tree, error) {
		tr.Previous, tr.LastGood, tr.Current = v0, v1, v1
		return Install(s, Trial{Target: v1}, now), tr, nil
	}); err != nil {
		t.Fatal(err)
	}
	return l, filepath.Join(l.Version(v1), "bin", "app")
}

// damages are what an administrator, a virus scanner or a bit error leave of a program.
var damages = map[string]struct {
	damage func(program string) error
	why    string
}{
	"missing":                  {os.Remove, "bin/app is missing"},
	"empty":                    {func(p string) error { return os.Truncate(p, 0) }, "bin/app is empty"},
	"not executable":           {func(p string) error { return os.Chmod(p, 0o644) }, "bin/app is not executable"},
	"a directory":              {func(p string) error { return errors.Join(os.Remove(p), os.Mkdir(p, 0o755)) }, "bin/app is not a regular file"},
	"a dangling link":          {func(p string) error { return errors.Join(os.Remove(p), os.Symlink("gone", p)) }, "bin/app is missing"},
	"its directory is missing": {func(p string) error { return os.RemoveAll(filepath.Dir(p)) }, "bin/app is missing"},
}

// A version whose program cannot be started is not installed: the next start runs the
// previous one, and reports why, each time that it happens.
func TestAVersionWhoseProgramIsDamaged(t *testing.T) {
	t.Parallel()
	v0, v1 := release.MustVersion("1.0.0"), release.MustVersion("1.1.0")
	for name, tt := range damages {
		for _, recorded := range []bool{true, false} {
			l, program := programRoot(t, recorded)
			if err := tt.damage(program); err != nil {
				t.Fatal(err)
			}
			tree, err := l.Tree()
			if err != nil || tree.Has(v1) || !strings.Contains(tree.Damaged[v1], tt.why) || !tree.Current.IsZero() {
				t.Errorf("%s: %+v, %v", name, tree, err)
			}
			res, err := l.AtStart().Do(t.Context(), nil)
			if err != nil || res.Tree.Current != v0 || res.State.Good != v0 || res.State.Status != Stable {
				t.Errorf("%s: %+v, %+v, %v", name, res.Tree, res.State, err)
			}
			entries, _, err := l.Outbox().List()
			if err != nil || len(entries) != 1 || entries[0].Event == nil || entries[0].Event.From != v1 || entries[0].Event.To != v0 || !strings.Contains(entries[0].Event.Message, tt.why) {
				t.Errorf("%s: reported %+v, %v", name, entries, err)
			}
		}
	}
}

// A version on trial whose program is damaged is rolled back at once, with the reason.
func TestATrialWhoseProgramIsDamaged(t *testing.T) {
	t.Parallel()
	l, program := programRoot(t, true)
	v0, v1 := release.MustVersion("1.0.0"), release.MustVersion("1.1.0")
	if _, err := l.Do(t.Context(), func(s State, tr Tree, now time.Time) (State, Tree, error) {
		s = Begin(atRest(s, Stable, v0, now), Trial{ID: "c", Target: v1}, now)
		tr.LastGood, tr.Previous, tr.Current = v0, v0, v1
		return s, tr, nil
	}); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(program, 0); err != nil {
		t.Fatal(err)
	}
	res, err := l.AtStart().Do(t.Context(), nil)
	if err != nil || res.State.Status != RolledBack || res.Tree.Current != v0 || !strings.Contains(res.State.Reason, "bin/app is empty") {
		t.Errorf("%+v, %+v, %v", res.Tree, res.State, err)
	}
}

// What cannot be read now says nothing about a version; nor does a version of which
// nobody names a program.
func TestAProgramThatIsNotKnownToBeDamaged(t *testing.T) {
	t.Parallel()
	l, program := programRoot(t, true)
	v1 := release.MustVersion("1.1.0")
	unreadable.While(t, l.Root(), filepath.Dir(program), func() {
		if tree, err := l.Tree(); err != nil || tree.Current != v1 {
			t.Errorf("a directory that cannot be entered: %+v, %v", tree, err)
		}
	})
	if err := errors.Join(os.Remove(program), os.Remove(filepath.Join(l.Version(v1), ReleaseFile))); err != nil {
		t.Fatal(err)
	}
	if tree, err := l.Tree(); err != nil || tree.Current != v1 {
		t.Errorf("no program is named: %+v, %v", tree, err)
	}
}

func TestWithProgramAt(t *testing.T) {
	t.Parallel()
	l, program := programRoot(t, true)
	for path, want := range map[string]string{
		program:                              "bin/app",
		filepath.Join(l.Versions(), "1.1.0"): "",
		filepath.Join(l.Versions(), "other", "app"):   "",
		filepath.Join(l.Root(), "..", "app"):          "",
		"/usr/local/bin/edge-agent":                   "",
		filepath.Join(l.Versions(), "2.0.0", "agent"): "agent",
	} {
		if got := l.WithProgramAt(path).program; got != want {
			t.Errorf("%s: %q, want %q", path, got, want)
		}
	}
}
