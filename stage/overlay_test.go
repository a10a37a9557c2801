package stage

import (
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/bilbycast/edge-agent/fsutil"
	"github.com/bilbycast/edge-agent/internal/state"
	"github.com/bilbycast/edge-agent/release"
	"golang.org/x/sys/unix"
)

// imageVersion is the version that came with the image, in these tests.
const imageVersion = bigVersion

// onImage moves the Stager's root to an overlay, whose lower layer has
// versions, the first of them running.
func onImage(t *testing.T, s *Stager, versions ...string) {
	t.Helper()
	needMounts(t)
	disk := t.TempDir() // an overlay's upper layer cannot be on an overlay
	mount(t, disk, "tmpfs", "tmpfs", 0, "size=64M")
	dir := func(name string) string { return filepath.Join(disk, name) }
	for _, name := range []string{"lower", "upper", "work"} {
		if err := os.Mkdir(dir(name), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	lower, err := state.At(dir("lower"))
	if err != nil {
		t.Fatal(err)
	}
	install(t, lower, versions[0], versions[1:]...)
	for _, v := range versions {
		if err := os.WriteFile(filepath.Join(lower.Versions(), v, "edge-agent"), []byte("of the image"), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	mount(t, s.Layout.Root(), "overlay", "overlay", 0, fmt.Sprintf("lowerdir=%s,upperdir=%s,workdir=%s", dir("lower"), dir("upper"), dir("work")))
	// Otherwise the test shows nothing.
	l := s.Layout
	probe := filepath.Join(l.Versions(), "probe")
	if err := os.Rename(filepath.Join(l.Versions(), versions[0]), probe); !errors.Is(err, unix.EXDEV) || !fsutil.Overlay(l.Versions()) {
		t.Fatalf("this overlay renames directories of its lower layer: %v", err)
	}
}

func TestPruneOnAnOverlay(t *testing.T) {
	t.Parallel()
	s := setup(t, nil)
	onImage(t, s, "1.9.0", "0.7.0", "0.8.0", "0.9.0")
	if err := Prune(t.Context(), s.Layout, 2, release.Version{}); err != nil {
		t.Fatal(err)
	}
	if got := installed(t, s.Layout); got != "[1.9.0 0.9.0]" {
		t.Errorf("left: %s", got)
	}
	if err := os.Mkdir(s.Layout.Version(release.MustVersion("0.8.0")), 0o755); err != nil { // it is free again
		t.Error(err)
	}
}

// The version of the image, to which previous points, is installed again from
// a release: that was not possible, as its directory cannot be exchanged.
func TestTheImagesVersionIsInstalledAgain(t *testing.T) {
	t.Parallel()
	s := setup(t, nil)
	l := s.Layout
	onImage(t, s, "1.9.0", imageVersion, "0.9.0")
	set(t, l, func(_ *state.State, tr *state.Tree) { tr.Previous = release.MustVersion(imageVersion) })
	rel, a := fetch(t, s, imageVersion)
	staged, err := s.Stage(t.Context(), s.Host(rel.Manifest().Version), rel, a, func() {})
	if err != nil {
		t.Fatal(err)
	}
	if got := installed(t, l); got != "[1.9.0 1.0.0 0.9.0]" {
		t.Errorf("installed: %s", got)
	}
	if m, err := readMarker(l, release.MustVersion(imageVersion)); err != nil || m.SHA256 != a.SHA256 {
		t.Errorf("the new files: %v", err)
	}
	tree, _ := l.Tree()
	if tree.Previous.String() != "0.9.0" || tree.Current.String() != "1.9.0" {
		t.Errorf("current is %s, previous %s", tree.Current, tree.Previous)
	}
	res, err := Swap(t.Context(), l, staged, state.Trial{ID: "t", MaxAttempts: 2})
	if err != nil || res.Tree.Current.String() != imageVersion || res.Tree.Previous.String() != "1.9.0" {
		t.Errorf("swapped: %+v, %v", res.Tree, err)
	}
}

// A version in use that could not be replaced at one instant is refused before
// anything is downloaded or touched.
func TestAVersionInUseOnAnOverlayIsRefused(t *testing.T) {
	t.Parallel()
	for _, use := range []string{"current", "last-good", "on trial", "running"} {
		s := setup(t, tarballs(func(http.ResponseWriter, *http.Request, http.Handler) { t.Errorf("%s: the tarball is asked for", use) }))
		l := s.Layout
		image, other := release.MustVersion(imageVersion), release.MustVersion("1.9.0")
		onImage(t, s, imageVersion, "1.9.0", "0.9.0")
		trial := func(target, previous release.Version) {
			set(t, l, func(st *state.State, tr *state.Tree) {
				st.Status, st.Target, st.Previous, st.MaxBootAttempts, st.TrialID = state.PendingHealth, target, previous, 2, "t"
				tr.Current, tr.Previous = target, previous
			})
		}
		switch use {
		case "last-good":
			trial(other, image)
		case "on trial":
			set(t, l, func(st *state.State, tr *state.Tree) {
				st.Good, tr.Current, tr.LastGood = other, other, other
			})
			trial(image, other)
		case "running":
			set(t, l, func(st *state.State, tr *state.Tree) {
				st.Good, tr.Current, tr.LastGood = other, other, other
			})
			s.Running = image
		}
		before := left(t, s)
		rel, a := fetch(t, s, imageVersion)
		if _, err := s.Stage(t.Context(), s.Host(rel.Manifest().Version), rel, a, func() {}); code(err) != release.Internal || !strings.Contains(err.Error(), "cannot be replaced at one instant here") {
			t.Errorf("%s: %v", use, err)
		}
		if after := left(t, s); after != before {
			t.Errorf("%s: before %s\nafter %s", use, before, after)
		}
		if b, err := os.ReadFile(filepath.Join(l.Version(image), "edge-agent")); string(b) != "of the image" {
			t.Errorf("%s: %q, %v", use, b, err)
		}
	}
}

// Elsewhere only the exchange itself fails. Then the release is refused, and nothing changes.
func TestAVersionInUseThatCannotBeExchanged(t *testing.T) {
	t.Parallel()
	for _, cause := range []error{unix.EXDEV, unix.EINVAL, unix.ENOSYS, unix.EBUSY, unix.EPERM} {
		for _, used := range []bool{true, false} {
			s := setup(t, nil)
			install(t, s.Layout, "1.9.0", imageVersion)
			if used {
				set(t, s.Layout, func(st *state.State, tr *state.Tree) {
					v := release.MustVersion(imageVersion)
					st.Good, tr.Current, tr.LastGood, tr.Previous = v, v, v, release.MustVersion("1.9.0")
				})
			}
			before := left(t, s)
			plain := s.Layout
			s.Layout = plain.On(fsutil.Disk{Seam: seam(func(op fsutil.Op, make func() error) error {
				if op.Kind == fsutil.OpExchange {
					return cause
				}
				return make()
			})})
			rel, a := fetch(t, s, imageVersion)
			_, err := s.Stage(t.Context(), s.Host(rel.Manifest().Version), rel, a, func() {})
			if ok := !used && state.Immovable(cause); ok != (err == nil) || err != nil && (code(err) != release.Internal || !strings.Contains(err.Error(), imageVersion)) {
				t.Errorf("%v, used %v: %v", cause, used, err)
			}
			if after := left(t, s); err != nil && after != before {
				t.Errorf("%v, used %v: before %s\nafter %s", cause, used, before, after)
			}
		}
	}
}

// The old files of a version that was replaced may stay: the new ones count.
func TestOldFilesThatCannotBeRemoved(t *testing.T) {
	t.Parallel()
	for _, exchange := range []bool{true, false} {
		s := setup(t, nil)
		l := s.Layout
		install(t, l, "1.9.0", imageVersion)
		v := release.MustVersion(imageVersion)
		if err := os.WriteFile(filepath.Join(l.Version(v), "immutable"), nil, 0o644); err != nil {
			t.Fatal(err)
		}
		s.Layout = l.On(fsutil.Disk{Seam: seam(func(op fsutil.Op, make func() error) error {
			if _, err := os.Lstat(filepath.Join(op.Path, "immutable")); err == nil && op.Kind == fsutil.OpRemoveAll {
				return unix.EPERM
			}
			if op.Kind == fsutil.OpExchange && !exchange {
				return unix.EINVAL
			}
			return make()
		})})
		rel, a := fetch(t, s, imageVersion)
		if _, err := s.Stage(t.Context(), s.Host(rel.Manifest().Version), rel, a, func() {}); err != nil {
			t.Errorf("exchange %v: %v", exchange, err)
		}
		if m, err := readMarker(l, v); err != nil || m.SHA256 != a.SHA256 {
			t.Errorf("exchange %v: %v", exchange, err)
		}
	}
}

// A tombstone whose directory cannot be removed keeps the version absent; a
// release of that version is refused until it can.
func TestARemovalThatCannotBeFinished(t *testing.T) {
	t.Parallel()
	s := setup(t, nil)
	l := s.Layout
	install(t, l, "1.9.0", imageVersion)
	if err := os.WriteFile(filepath.Join(l.Versions(), ".removed-"+imageVersion), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	stuck := true
	s.Layout = l.On(fsutil.Disk{Seam: seam(func(op fsutil.Op, make func() error) error {
		if stuck && op.Kind == fsutil.OpRemoveAll && op.Path == l.Version(release.MustVersion(imageVersion)) {
			return unix.EPERM
		}
		return make()
	})})
	rel, a := fetch(t, s, imageVersion)
	if _, err := s.Stage(t.Context(), s.Host(rel.Manifest().Version), rel, a, func() {}); code(err) != release.Internal || !strings.Contains(err.Error(), "could not be removed; remove "+l.Version(release.MustVersion(imageVersion))) {
		t.Errorf("got %v", err)
	}
	if got := installed(t, l); got != "[1.9.0] .removed-1.0.0 1.0.0" {
		t.Errorf("installed: %s", got)
	}
	stuck = false
	if err := s.Tidy(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := installed(t, l); got != "[1.9.0]" {
		t.Errorf("installed: %s", got)
	}
	if _, err := s.Stage(t.Context(), s.Host(rel.Manifest().Version), rel, a, func() {}); err != nil {
		t.Fatal(err)
	}
}
