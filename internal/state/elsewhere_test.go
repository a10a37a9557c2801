package state

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/bilbycast/edge-agent/internal/unreadable"
	"github.com/bilbycast/edge-agent/release"
)

// A version is a link of an administrator's to a directory that cannot be entered now.
// Nothing changes, stable or on trial, and nothing has changed once it can be entered. A
// link to nothing, or to itself, is a missing version.
func TestAVersionThatCannotBeReachedNow(t *testing.T) {
	t.Parallel()
	for _, stable := range []bool{true, false} {
		base := t.TempDir()
		l, err := At(filepath.Join(base, "root"))
		if err != nil {
			t.Fatal(err)
		}
		disk := filepath.Join(base, "disk")
		if err := errors.Join(os.Mkdir(l.Root(), 0o755), l.Make(), os.MkdirAll(filepath.Join(disk, "1.1.0"), 0o755), os.Mkdir(l.Version(v1), 0o755), os.Symlink(filepath.Join(disk, "1.1.0"), l.Version(v2))); err != nil {
			t.Fatal(err)
		}
		for _, v := range []release.Version{v1, v2} {
			if err := os.WriteFile(filepath.Join(l.Version(v), "edge"), []byte("program"), 0o755); err != nil {
				t.Fatal(err)
			}
		}
		l = l.WithProgram("edge")
		if _, err := l.Do(t.Context(), func(s State, tr Tree, now time.Time) (State, Tree, error) {
			s = Begin(Install(s, Trial{Target: v1}, now), Trial{ID: "c", Target: v2}, now)
			s.BootAttempts = 1
			tr.LastGood, tr.Previous, tr.Current = v1, v1, v2
			if stable {
				s, tr = Keep(s, tr, v2, "", now)
			}
			return s, tr, nil
		}); err != nil {
			t.Fatal(err)
		}
		before := contents(t, l.Root())
		unreadable.While(t, base, disk, func() {
			res, err := l.AtStart().Do(t.Context(), nil)
			if err != nil || res.Tree.Current != v2 || len(res.Notes) > 0 {
				t.Errorf("stable %t: %+v, %+v, %q, %v", stable, res.State, res.Tree, res.Notes, err)
			}
		})
		after := contents(t, l.Root())
		for path, text := range before {
			if after[path] != text {
				t.Errorf("stable %t: %s was %q, and is %q", stable, path, text, after[path])
			}
		}
		for _, target := range []string{"nothing", "1.1.0"} {
			if err := errors.Join(os.Remove(l.Version(v2)), os.Symlink(target, l.Version(v2))); err != nil {
				t.Fatal(err)
			}
			if tree, err := l.Tree(); err != nil || tree.Has(v2) || !tree.Current.IsZero() {
				t.Errorf("a link to %s: %+v, %v", target, tree, err)
			}
		}
	}
}

// A link of the root leads through a directory that cannot be entered now: it may lead to a
// version, so nothing is decided.
func TestALinkThatCannotBeFollowedNow(t *testing.T) {
	t.Parallel()
	base := t.TempDir()
	l, err := At(filepath.Join(base, "root"))
	if err != nil {
		t.Fatal(err)
	}
	way := filepath.Join(base, "way")
	if err := errors.Join(os.Mkdir(l.Root(), 0o755), l.Make(), os.Mkdir(l.Version(v1), 0o755), os.Mkdir(l.Version(v2), 0o755), os.Mkdir(way, 0o755), os.Symlink(l.Versions(), filepath.Join(way, "versions"))); err != nil {
		t.Fatal(err)
	}
	if _, err := l.Do(t.Context(), func(s State, tr Tree, now time.Time) (State, Tree, error) {
		tr.LastGood, tr.Previous, tr.Current = v2, v1, v2
		return Install(s, Trial{Target: v2}, now), tr, nil
	}); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(os.Remove(l.Current()), os.Symlink(filepath.Join(way, "versions", "1.1.0"), l.Current())); err != nil {
		t.Fatal(err)
	}
	before := contents(t, l.Root())
	unreadable.While(t, base, way, func() {
		if res, err := l.AtStart().Do(t.Context(), nil); !errors.Is(err, syscall.EACCES) {
			t.Errorf("%+v, %v", res, err)
		}
	})
	after := contents(t, l.Root())
	for path, text := range before {
		if after[path] != text {
			t.Errorf("%s was %q, and is %q", path, text, after[path])
		}
	}
	if tree, err := l.Tree(); err != nil || tree.Current != v2 {
		t.Errorf("%+v, %v", tree, err)
	}
}

// A program is judged by what the owner of the root may do with it, not by any right to
// execute it.
func TestAProgramThatTheOwnerCannotExecute(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("only root makes files of other users")
	}
	const owner, other = 64001, 64002
	for name, tt := range map[string]struct {
		change func(dir, program string) error
		why    string // "": it can be started
	}{
		"unchanged":                            {func(_, p string) error { return nil }, ""},
		"root's, 0700":                         {func(_, p string) error { return errors.Join(os.Chown(p, 0, 0), os.Chmod(p, 0o700)) }, "is not executable for the owner"},
		"root's, 0755":                         {func(_, p string) error { return os.Chown(p, 0, 0) }, ""},
		"its own, 0645":                        {func(_, p string) error { return os.Chmod(p, 0o645) }, "is not executable for the owner"},
		"its own, 0654":                        {func(_, p string) error { return os.Chmod(p, 0o654) }, "is not executable for the owner"},
		"another user's, 0750, of its group":   {func(_, p string) error { return errors.Join(os.Chown(p, other, owner), os.Chmod(p, 0o750)) }, ""},
		"another user's, 0705, of its group":   {func(_, p string) error { return errors.Join(os.Chown(p, other, owner), os.Chmod(p, 0o705)) }, "is not executable for the owner"},
		"another user's, 0750, groups unknown": {func(_, p string) error { return errors.Join(os.Chown(p, other, other), os.Chmod(p, 0o750)) }, ""},
		"a link to itself":                     {func(_, p string) error { return errors.Join(os.Remove(p), os.Symlink("app", p)) }, "leads to itself"},
		"a link to a file that is none":        {func(_, p string) error { return errors.Join(os.Remove(p), os.Symlink("/etc/passwd", p)) }, "is not executable"},
		"its directory is root's, 0700":        {func(d, _ string) error { return errors.Join(os.Chown(d, 0, 0), os.Chmod(d, 0o700)) }, "cannot be entered"},
		"a directory below is root's, 0700": {func(_, p string) error {
			return errors.Join(os.Chown(filepath.Dir(p), 0, 0), os.Chmod(filepath.Dir(p), 0o700))
		}, "cannot be entered"},
	} {
		l, program := programRoot(t, false)
		if out, err := exec.Command("chown", "-R", "64001:64001", l.Root()).CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		if err := tt.change(l.Version(v2), program); err != nil {
			t.Fatal(err)
		}
		tree, err := l.Tree()
		if err != nil || tree.Has(v2) != (tt.why == "") || !strings.Contains(tree.Damaged[v2], tt.why) {
			t.Errorf("%s: %+v, %v", name, tree, err)
		}
	}
}
