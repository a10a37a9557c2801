package state

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/bilbycast/edge-agent/fsutil"
	"github.com/bilbycast/edge-agent/release"
)

type seam func(op fsutil.Op, make func() error) error

func (s seam) Change(op fsutil.Op, make func() error) error { return s(op, make) }

// versionsOf lists the installed versions, and the entries of versions/.
func versionsOf(t *testing.T, l Layout) string {
	t.Helper()
	entries, err := os.ReadDir(l.Versions())
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	tree, err := l.Tree()
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprint(tree.Versions, " ", strings.Join(names, " "))
}

func rootWith(t *testing.T, versions ...string) Layout {
	t.Helper()
	l, err := At(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	for _, v := range versions {
		if err := os.MkdirAll(filepath.Join(l.Versions(), v, "data"), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return l
}

// A version that is being removed never looks installed, whether or not its directory
// can be renamed. A removal that a crash interrupts is finished later.
func TestRetire(t *testing.T) {
	t.Parallel()
	v := release.MustVersion("1.0.0")
	for cause, hidden := range map[error]string{
		nil:               "[2.0.0] .partial-removed-1.0.0 2.0.0",
		syscall.EXDEV:     "[2.0.0] .removed-1.0.0 1.0.0 2.0.0",
		syscall.EINVAL:    "[2.0.0] .removed-1.0.0 1.0.0 2.0.0",
		syscall.ENOTSUP:   "[2.0.0] .removed-1.0.0 1.0.0 2.0.0",
		syscall.EBUSY:     "",
		syscall.EPERM:     "",
		syscall.EROFS:     "",
		syscall.ENOTEMPTY: "",
	} {
		for _, crash := range []bool{false, true} {
			l := rootWith(t, "1.0.0", "2.0.0")
			bad := l.On(fsutil.Disk{Seam: seam(func(op fsutil.Op, make func() error) error {
				if op.Kind == fsutil.OpRename && op.Path == l.Version(v) && cause != nil {
					return cause
				}
				return make()
			})})
			free, err := bad.Retire(v)
			if hidden == "" {
				if !errors.Is(err, cause) || !strings.Contains(err.Error(), "remove version 1.0.0") || versionsOf(t, l) != "[2.0.0 1.0.0] 1.0.0 2.0.0" {
					t.Errorf("%v: %v; %s", cause, err, versionsOf(t, l))
				}
				continue
			}
			if err != nil {
				t.Fatal(err)
			}
			if got := versionsOf(t, l); got != hidden {
				t.Errorf("%v: %s", cause, got)
			}
			if bad.Removing(v) != (cause != nil) {
				t.Errorf("%v: removing: %v", cause, bad.Removing(v))
			}
			if crash {
				free = bad.FinishRemovals
			}
			if err := free(); err != nil || versionsOf(t, l) != "[2.0.0] 2.0.0" {
				t.Errorf("%v, crash %v: %v; %s", cause, crash, err, versionsOf(t, l))
			}
		}
	}
}

// A leftover of the same version is no obstacle, and a removal that fails does not stop
// the others.
func TestFinishRemovals(t *testing.T) {
	t.Parallel()
	l := rootWith(t, "1.0.0", "2.0.0", "3.0.0", ".partial-removed-1.0.0", ".partial-4.0.0")
	for _, name := range []string{".removed-2.0.0", ".removed-3.0.0", ".removed-9.9.9", ".removed-no version"} {
		if err := os.WriteFile(filepath.Join(l.Versions(), name), nil, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	free, err := l.Retire(release.MustVersion("1.0.0"))
	if err != nil {
		t.Fatal(err)
	}
	if err := free(); err != nil {
		t.Error(err)
	}
	bad := l.On(fsutil.Disk{Seam: seam(func(op fsutil.Op, make func() error) error {
		if op.Kind == fsutil.OpRemoveAll && filepath.Base(op.Path) == "2.0.0" {
			return syscall.EPERM
		}
		return make()
	})})
	if err := bad.FinishRemovals(); !errors.Is(err, syscall.EPERM) {
		t.Errorf("got %v", err)
	}
	if got := versionsOf(t, l); got != "[] .partial-4.0.0 .removed-2.0.0 .removed-no version 2.0.0" {
		t.Errorf("left: %s", got)
	}
}
