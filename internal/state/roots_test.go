package state

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/bilbycast/edge-agent/fsutil"
	"github.com/bilbycast/edge-agent/release"
	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

// Each directory of the root, and the root itself, may be a link of an administrator, with
// a relative or an absolute target.
func TestDirectoriesMayBeLinks(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"versions", "downloads", "outbox", "trust", "versions/1.0.0", "."} {
		for _, absolute := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s absolute %t", name, absolute), func(t *testing.T) {
				t.Parallel()
				base := t.TempDir()
				root := filepath.Join(base, "opt", "edge")
				data := filepath.Join(base, "data")
				if err := errors.Join(os.MkdirAll(root, 0o755), os.Mkdir(data, 0o755)); err != nil {
					t.Fatal(err)
				}
				l, err := At(root)
				if err != nil {
					t.Fatal(err)
				}
				if err := l.Make(); err != nil {
					t.Fatal(err)
				}
				for _, v := range []release.Version{v1, v2} {
					if err := os.Mkdir(l.Version(v), 0o755); err != nil {
						t.Fatal(err)
					}
				}
				if err := errors.Join(l.point(l.Current(), v1), l.point(l.LastGood(), v1), l.KeepTrust(map[string][]byte{"a": []byte("1")})); err != nil {
					t.Fatal(err)
				}
				// Move it away, and put a link in its place.
				from, to := filepath.Join(root, name), filepath.Join(data, "moved")
				if err := os.Rename(from, to); err != nil {
					t.Fatal(err)
				}
				target := to
				if !absolute {
					if target, err = filepath.Rel(filepath.Dir(from), to); err != nil {
						t.Fatal(err)
					}
				}
				if err := os.Symlink(target, from); err != nil {
					t.Fatal(err)
				}

				runs := l.RunningAs(v1)
				if err := runs.Make(); err != nil {
					t.Error(err)
				}
				res, err := runs.Do(t.Context(), func(s State, tr Tree, _ time.Time) (State, Tree, error) {
					s = Begin(s, Trial{ID: "t", Target: v2}, time.Now())
					tr.Previous, tr.Current = v1, v2
					return s, tr, nil
				})
				if err != nil || res.Tree.Current != v2 || res.Tree.LastGood != v1 || len(res.Notes) > 0 {
					t.Fatalf("a swap: %+v, %v", res, err)
				}
				if res, err = l.RunningAs(v2).Do(t.Context(), func(s State, tr Tree, _ time.Time) (State, Tree, error) {
					s, tr = Keep(s, tr, s.Target, "", time.Now())
					return s, tr, nil
				}); err != nil || res.Tree.LastGood != v2 {
					t.Errorf("kept: %+v, %v", res, err)
				}
				if err := l.KeepTrust(map[string][]byte{"a": []byte("2")}); err != nil {
					t.Error(err)
				}
				if b, err := os.ReadFile(filepath.Join(l.TrustDir(), "a")); err != nil || string(b) != "2" {
					t.Errorf("trust: %s, %v", b, err)
				}
				if entries, _, err := l.Outbox().List(); err != nil || len(entries) != 2 {
					t.Errorf("outbox: %v, %v", entries, err)
				}
				// The administrator's link is still there, and nothing was set aside.
				if st, err := os.Lstat(from); err != nil || st.Mode()&fs.ModeSymlink == 0 {
					t.Errorf("the link: %v, %v", st, err)
				}
				filepath.WalkDir(base, func(path string, _ fs.DirEntry, _ error) error {
					if strings.Contains(path, "corrupt") || strings.Contains(path, ".tmp-") || strings.Contains(path, "-new") {
						t.Errorf("left: %s", path)
					}
					return nil
				})
			})
		}
	}
}

// Linked returns what a sandbox must let the agent write to, besides the root.
func TestLinkedDirectories(t *testing.T) {
	t.Parallel()
	l := root(t)
	if got := l.Linked(); len(got) > 0 || l.Writable() != nil {
		t.Errorf("a root without links: %v, %v", got, l.Writable())
	}
	data := t.TempDir()
	real, err := filepath.EvalSymlinks(data)
	if err != nil {
		t.Fatal(err)
	}
	for name, to := range map[string]string{"versions": "v", "outbox": "o", "trust": "sub/t"} {
		target := filepath.Join(data, to)
		if err := errors.Join(os.RemoveAll(filepath.Join(l.Root(), name)), os.MkdirAll(target, 0o755), os.Symlink(target, filepath.Join(l.Root(), name))); err != nil {
			t.Fatal(err)
		}
	}
	if got, want := fmt.Sprint(l.Linked()), fmt.Sprint([]string{real + "/v", real + "/o", real + "/sub"}); got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	if err := os.RemoveAll(filepath.Join(data, "v")); err != nil {
		t.Fatal(err)
	}
	if err := l.Writable(); err == nil || !strings.Contains(err.Error(), "versions is a link to") {
		t.Errorf("a dangling link: %v", err)
	}
}

// A dangling link, as to a disk that is not mounted yet, is refused with a remedy. It is
// not replaced by an empty directory.
func TestADanglingLinkIsNotReplaced(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"versions", "downloads", "outbox", "trust"} {
		l, err := At(t.TempDir())
		if err != nil {
			t.Fatal(err)
		}
		link := filepath.Join(l.Root(), name)
		if err := os.Symlink("/nonexistent/"+name, link); err != nil {
			t.Fatal(err)
		}
		if name == "trust" {
			err = l.KeepTrust(map[string][]byte{"a": nil})
		} else {
			err = l.Make()
		}
		if err == nil || !strings.Contains(err.Error(), "is a link to /nonexistent/"+name+", which does not exist; mount or create it") {
			t.Errorf("%s: %v", name, err)
		}
		if to, err := os.Readlink(link); err != nil || to != "/nonexistent/"+name {
			t.Errorf("%s: the link is %s, %v", name, to, err)
		}
	}
}

// KeepTrust refuses trust/ as a mount point, which cannot be replaced in one step, before
// anything in it changes.
func TestTrustOnAMountPoint(t *testing.T) {
	t.Parallel()
	l, err := At(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	if err := l.KeepTrust(map[string][]byte{"a": []byte("1")}); err != nil {
		t.Fatal(err)
	}
	busy := l.On(fsutil.Disk{Seam: exchangeFails{unix.EBUSY}})
	if err := busy.KeepTrust(map[string][]byte{"a": []byte("2")}); err == nil || !strings.Contains(err.Error(), "it must be an ordinary directory") {
		t.Errorf("got %v", err)
	}
	if b, err := os.ReadFile(filepath.Join(l.TrustDir(), "a")); err != nil || string(b) != "1" {
		t.Errorf("trust: %s, %v", b, err)
	}
	if entries, _ := os.ReadDir(l.Root()); len(entries) != 1 {
		t.Errorf("left: %v", entries)
	}
}

type exchangeFails struct{ err error }

func (e exchangeFails) Change(op fsutil.Op, make func() error) error {
	if op.Kind == fsutil.OpExchange {
		return e.err
	}
	return make()
}

// Nothing is decided while versions/ is not mounted, above all no trial. Once it is
// mounted, everything continues.
func TestVersionsThatAreNotMounted(t *testing.T) {
	t.Parallel()
	for _, status := range []Status{"", Stable, StagedManual, PendingHealth, RolledBack} {
		for _, atStart := range []bool{false, true} {
			s := at(status)
			got, tr, note := Reconcile(s, Tree{AtStart: atStart}, now)
			if d := cmp.Diff(s, got, cmp.AllowUnexported(release.Version{})); d != "" || note == "" || tr.Current != no {
				t.Errorf("%s: %s, %q", status, d, note)
			}
		}
	}
}

// While a version is running, no other version that never proved healthy becomes
// last-good, in every state of links and directories. At a start, when no version is
// running, the only installed version may, since a node without a version is worse.
func TestAnUnprovenVersionIsNotLastGood(t *testing.T) {
	t.Parallel()
	links := []release.Version{no, v1, v2, v3}
	for _, status := range []Status{"", Stable, StagedManual, RolledBack} {
		for mask := range 8 {
			var have []release.Version
			for i, v := range []release.Version{v3, v2, v1} {
				if mask&(1<<i) != 0 {
					have = append(have, v)
				}
			}
			disk := Tree{Versions: have}
			for _, cur := range links {
				for _, good := range links {
					s := at(status) // its good version is v1
					tr := disk
					tr.Current, tr.LastGood = disk.firstOf(cur), disk.firstOf(good)
					before := tr.LastGood
					tr.Running = v1
					s2, t2, _ := Reconcile(s, tr, now)
					for _, g := range []release.Version{t2.LastGood, s2.Good} {
						if g != no && g != v1 && g != before && g != s.Good {
							t.Errorf("%s, current %s, last-good %s, on disk %v: %s is called good while 1.0.0 runs", status, cur, good, have, g)
						}
					}
					tr.Running, tr.AtStart = no, true
					if _, t2, _ := Reconcile(s, tr, now); len(have) > 0 && !t2.Has(t2.Current) {
						t.Errorf("%s, current %s, last-good %s, on disk %v: a start has no version", status, cur, good, have)
					}
				}
			}
		}
	}
}

// Only the agent's user may access the files, also those that earlier versions made.
func TestModesAreNarrow(t *testing.T) {
	t.Parallel()
	l := root(t)
	for _, dir := range []string{l.Downloads(), l.OutboxDir()} {
		if err := os.Chmod(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := l.Make(); err != nil {
		t.Fatal(err)
	}
	do(t, l, func(s State, tr Tree, _ time.Time) (State, Tree, error) {
		return Start(s, Command{ID: "c", Version: v2}, now), tr, nil
	})
	if err := errors.Join(l.RecordStart(), l.KeepTrust(map[string][]byte{"a": nil})); err != nil {
		t.Fatal(err)
	}
	err := filepath.WalkDir(l.Root(), func(path string, d fs.DirEntry, err error) error {
		if err != nil || path == l.Root() || strings.HasPrefix(path, l.Versions()) || d.Type()&fs.ModeSymlink != 0 {
			return err
		}
		if st, err := d.Info(); err != nil || st.Mode().Perm()&0o077 != 0 {
			t.Errorf("%s has mode %v, %v", path, st.Mode(), err)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// A missing last-good link is repaired in every status without a trial, since systemd
// starts the watchdog through it.
func TestALostLastGoodIsRepaired(t *testing.T) {
	t.Parallel()
	for _, status := range []Status{Stable, StagedManual, RolledBack} {
		for _, tr := range []Tree{{AtStart: true}, {Running: v1}, {}} {
			tr.Current, tr.Previous, tr.Versions = v1, v1, []release.Version{v3, v2, v1}
			s := at(status)
			if got, tree, _ := Reconcile(s, tr, now); tree.LastGood != v1 || got.Status != status {
				t.Errorf("%s: last-good is %q, %s", status, tree.LastGood, got.Status)
			}
		}
	}
}

// Narrow removes the access of other users to a root, and nothing else.
func TestNarrow(t *testing.T) {
	t.Parallel()
	l := root(t)
	do(t, l, nil)
	if err := errors.Join(l.KeepTrust(map[string][]byte{"a": nil}), os.WriteFile(l.CredentialsFile(), nil, 0o600)); err != nil {
		t.Fatal(err)
	}
	want := map[string]fs.FileMode{".": 0o750, "downloads": 0o700, "outbox": 0o700, "trust": 0o700, "state.json": 0o600, "credentials.json": 0o600, "versions": 0o777}
	for name := range want {
		if err := os.Chmod(filepath.Join(l.Root(), name), 0o777); err != nil {
			t.Fatal(err)
		}
	}
	changed, err := l.Narrow(0o750)
	if err != nil || len(changed) != 6 {
		t.Errorf("changed %q, %v", changed, err)
	}
	for name, mode := range want {
		if st, err := os.Stat(filepath.Join(l.Root(), name)); err != nil || st.Mode().Perm() != mode {
			t.Errorf("%s: %v, %v, want %04o", name, st.Mode(), err, mode)
		}
	}
	if changed, err := l.Narrow(0o750); err != nil || len(changed) > 0 {
		t.Errorf("again: %q, %v", changed, err)
	}
	// A mode that stays is an error with the remedy: the disk is read-only, or the file is
	// another user's, or the file system ignores modes.
	if err := os.Chmod(l.CredentialsFile(), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, errno := range []error{nil, syscall.EROFS, syscall.EPERM} {
		changed, errs := l.On(fsutil.Disk{Seam: seam(func(fsutil.Op, func() error) error { return errno })}).Narrow(0o750)
		if want := l.CredentialsFile() + " has mode 0644"; len(changed) > 0 || len(errs) != 1 || !strings.HasPrefix(errs[0].Error(), want) || !strings.HasSuffix(errs[0].Error(), "chmod 600 "+l.CredentialsFile()) {
			t.Errorf("%v: changed %q, %v", errno, changed, errs)
		}
	}
}

// A state.json that grew to the largest size under an earlier version is read, cut to the
// limits, and written again.
func TestAStateThatHasGrownRecovers(t *testing.T) {
	t.Parallel()
	l := root(t)
	do(t, l, nil)
	s := at(PendingHealth)
	s.Schema = Schema
	for i := range MaxCommands {
		s.Commands = append(s.Commands, Command{ID: fmt.Sprint("c", i), Version: v2, Done: true, Code: release.Internal, Error: strings.Repeat("<", 4<<10)})
	}
	for i := range 20 {
		s.PendingReports = append(s.PendingReports, Entry{ID: fmt.Sprint("e", i), Event: &Event{Code: release.Internal, Message: strings.Repeat("x", 4<<10), Journal: []string{strings.Repeat("y", 500)}}})
	}
	b, err := encodeJSON(s, "")
	if err != nil {
		t.Fatal(err)
	}
	pad := MaxState - len(b) - len(`"reason":"",`)
	if pad < 0 {
		t.Fatalf("the state has %d bytes", len(b))
	}
	s.Reason = strings.Repeat("z", pad)
	if b, err = encodeJSON(s, ""); err != nil || len(b) != MaxState {
		t.Fatalf("%d bytes, %v", len(b), err)
	}
	if err := errors.Join(os.WriteFile(l.StateFile(), b, 0o600), l.point(l.Current(), v2), l.point(l.Previous(), v1)); err != nil {
		t.Fatal(err)
	}
	res, err := l.AtStart().Do(t.Context(), func(s State, tr Tree, _ time.Time) (State, Tree, error) {
		s, tr = CountStart(s, tr, "", now)
		return s, tr, nil
	})
	if err != nil || res.State.Status != PendingHealth || res.State.BootAttempts != 1 || len(res.Notes) > 0 {
		t.Fatalf("%s, starts %d, %v, %v", res.State.Status, res.State.BootAttempts, res.Notes, err)
	}
	if st, err := os.Stat(l.StateFile()); err != nil || st.Size() > 64<<10 {
		t.Errorf("state.json has %d bytes, %v", st.Size(), err)
	}
	if entries, bad, err := l.Outbox().List(); len(entries) != 20 || len(bad) > 0 || err != nil {
		t.Errorf("outbox: %d entries, %v, %v", len(entries), bad, err)
	}
}
