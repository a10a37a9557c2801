package stage

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/bilbycast/edge-agent/fsutil"
	"github.com/bilbycast/edge-agent/internal/state"
	"github.com/bilbycast/edge-agent/release"
	"golang.org/x/sys/unix"
)

// worker starts a process of a second service that executes a program of v, until the
// test ends.
func worker(t *testing.T, l state.Layout, v string) *exec.Cmd {
	t.Helper()
	app := filepath.Join(l.Versions(), v, "worker")
	if out, err := exec.Command("cp", "/bin/sleep", app).CombinedOutput(); err != nil {
		t.Fatalf("%s: %v", out, err)
	}
	cmd := exec.Command(app, "600")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
	return cmd
}

// A version that a process uses stays, counts as one of those that are kept, and is named
// with its process. When the process has ended, the version goes.
func TestPruneKeepsVersionsInUse(t *testing.T) {
	t.Parallel()
	l := newLayout(t)
	install(t, l, "1.0.0", "0.6.0", "0.7.0", "0.8.0", "0.9.0")
	cmd := worker(t, l, "0.7.0")
	for range 2 { // nothing is removed half
		err := Prune(t.Context(), l, 2, release.Version{})
		if err == nil || strings.Count(err.Error(), "version 0.7.0 is kept: process ") != 1 || !strings.Contains(err.Error(), "(worker) executes "+filepath.Join(l.Versions(), "0.7.0", "worker")) {
			t.Errorf("got %v", err)
		}
		if got := installed(t, l); got != "[1.0.0 0.9.0 0.7.0]" {
			t.Errorf("left: %s", got)
		}
	}
	cmd.Process.Kill()
	cmd.Wait()
	if err := Prune(t.Context(), l, 2, release.Version{}); err != nil {
		t.Error(err)
	}
	if got := installed(t, l); got != "[1.0.0 0.9.0]" {
		t.Errorf("left: %s", got)
	}
}

// Too little space removes no version that a process uses.
func TestMakeRoomKeepsVersionsInUse(t *testing.T) {
	t.Parallel()
	s := setup(t, nil)
	s.KeepVersions = 2
	install(t, s.Layout, "1.0.0", "0.6.0", "0.7.0", "0.8.0")
	worker(t, s.Layout, "0.7.0")
	err := s.makeRoom(t.Context(), tarballSize{size: 1 << 50, unpacked: 1 << 50})
	if !isCode(err, release.DiskFull) || !strings.Contains(err.Error(), "version 0.7.0 is kept: process ") {
		t.Errorf("got %v", err)
	}
	if got := installed(t, s.Layout); got != "[1.0.0 0.8.0 0.7.0]" {
		t.Errorf("left: %s", got)
	}
}

// A version that is replaced by other files keeps the old ones while a process uses
// them, in every attempt that follows and at the next start of the agent.
func TestReplacedFilesStayWhileTheyAreUsed(t *testing.T) {
	t.Parallel()
	s := setup(t, nil)
	l := s.Layout
	install(t, l, "0.9.0", newVersion)
	cmd := worker(t, l, newVersion)
	rel, a := fetch(t, s, newVersion)
	v := rel.Manifest().Version
	stage := func() error {
		_, err := s.Stage(t.Context(), s.Host(v), rel, a, func() {})
		return err
	}
	if err := stage(); err != nil {
		t.Fatal(err)
	}
	old := filepath.Join(l.Partial(v), "worker")
	exists := func(path string) bool { _, err := os.Lstat(path); return err == nil }
	if m, err := readMarker(l, v); err != nil || m.SHA256 != a.SHA256 || !exists(old) {
		t.Errorf("staged: %+v, %v; the old files are there: %v", m, err, exists(old))
	}
	if err := s.Tidy(t.Context()); err != nil || !exists(old) {
		t.Errorf("Tidy: %v; the old files are there: %v", err, exists(old))
	}
	if err := os.Remove(filepath.Join(l.Version(v), Marker)); err != nil { // so that it is made once more
		t.Fatal(err)
	}
	if err := stage(); err == nil || !strings.Contains(err.Error(), "(worker) executes "+old) || !exists(old) {
		t.Errorf("again: %v; the old files are there: %v", err, exists(old))
	}
	cmd.Process.Kill()
	cmd.Wait()
	if err := s.Tidy(t.Context()); err != nil || exists(l.Partial(v)) {
		t.Errorf("Tidy: %v; the old files are there: %v", err, exists(old))
	}
}

// Where directories cannot be exchanged, a version that a process uses is not replaced.
func TestVersionsInUseAreNotRemovedToBeReplaced(t *testing.T) {
	t.Parallel()
	s := setup(t, nil)
	install(t, s.Layout, "0.9.0", newVersion)
	worker(t, s.Layout, newVersion)
	s.Layout = s.Layout.On(fsutil.Disk{Seam: seam(func(op fsutil.Op, make func() error) error {
		if op.Kind == fsutil.OpExchange {
			return unix.EINVAL
		}
		return make()
	})})
	rel, a := fetch(t, s, newVersion)
	_, err := s.Stage(t.Context(), s.Host(rel.Manifest().Version), rel, a, func() {})
	if err == nil || !strings.Contains(err.Error(), "is kept: process ") {
		t.Errorf("got %v", err)
	}
	if _, err := os.Stat(filepath.Join(s.Layout.Versions(), newVersion, "worker")); err != nil {
		t.Error(err)
	}
}

// The root's lock is free while processes are looked for.
func TestProcessesAreLookedForWithoutTheLock(t *testing.T) {
	t.Parallel()
	l := newLayout(t)
	install(t, l, "1.0.0", "0.7.0", "0.9.0")
	worker(t, l, "0.7.0")
	if err := l.Locked(t.Context(), func() error {
		err := Prune(t.Context(), l, 1, release.Version{})
		if errors.Is(err, fsutil.ErrLocked) || err == nil || !strings.Contains(err.Error(), "version 0.7.0 is kept: process ") {
			t.Errorf("got %v", err)
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
}
