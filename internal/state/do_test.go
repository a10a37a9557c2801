package state

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/bilbycast/edge-agent/fsutil"
	"github.com/bilbycast/edge-agent/release"
	"github.com/google/go-cmp/cmp"
)

// root creates an install root with v1 and v2, current and last-good -> v1.
func root(t testing.TB) Layout {
	t.Helper()
	l, err := At(t.TempDir())
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
	if err := l.relink(Tree{}, Tree{Current: v1, LastGood: v1}, Stable); err != nil {
		t.Fatal(err)
	}
	return l
}

func do(t testing.TB, l Layout, change Change) Result {
	t.Helper()
	res, err := l.Do(t.Context(), change)
	if err != nil {
		t.Fatal(err)
	}
	return res
}

func begin(s State, t Tree, now time.Time) (State, Tree, error) {
	s = Begin(s, Trial{ID: "c", CommandID: "c", Target: v2}, now)
	t.Previous, t.Current = s.Previous, v2
	return s, t, nil
}

func TestDoAdoptsAFreshRootAndThenWritesNothing(t *testing.T) {
	t.Parallel()
	l := root(t)
	if res := do(t, l, nil); res.State.Status != Stable || res.State.Good != v1 || len(res.Notes) != 0 {
		t.Fatalf("got %+v", res)
	}
	before, _ := os.Stat(l.StateFile())
	do(t, l, nil)
	if after, _ := os.Stat(l.StateFile()); !os.SameFile(before, after) {
		t.Error("a Do that changes nothing writes state.json")
	}
}

func TestDoCommitsLinksAndOutbox(t *testing.T) {
	t.Parallel()
	l := root(t)
	res := do(t, l, begin)
	if res.State.Status != PendingHealth || len(res.State.PendingReports) != 0 {
		t.Errorf("got %+v", res.State)
	}
	for name, want := range map[string]string{"current": "versions/1.1.0", "previous": "versions/1.0.0", "last-good": "versions/1.0.0"} {
		if got, _ := os.Readlink(filepath.Join(l.Root(), name)); got != want {
			t.Errorf("%s -> %s, want %s", name, got, want)
		}
	}
	entries, bad, err := l.Outbox().List()
	if err != nil || bad != nil || len(entries) != 1 || entries[0].Event.Code != release.Staged {
		t.Errorf("outbox: %+v, %v, %v", entries, bad, err)
	}
}

// After a crash between any two steps of Do, the next Do continues.
func TestDoContinuesAfterTheCommit(t *testing.T) {
	t.Parallel()
	l := root(t)
	res := do(t, l, begin)
	s, _ := Revert(res.State, res.Tree, "three starts", now)
	if err := l.save(s); err != nil { // committed; neither links nor outbox
		t.Fatal(err)
	}
	res = do(t, l, nil)
	if res.Tree.Current != v1 || res.State.Status != RolledBack {
		t.Errorf("got %s, current %s", res.State.Status, res.Tree.Current)
	}
	entries, _, _ := l.Outbox().List()
	if n := len(entries); n != 2 || entries[1].Event.Code != release.RolledBack {
		t.Errorf("outbox: %+v", entries)
	}
	if err := l.save(s); err != nil { // reported, but still pending in state.json
		t.Fatal(err)
	}
	do(t, l, nil)
	if entries, _, _ := l.Outbox().List(); len(entries) != 2 {
		t.Errorf("reported twice: %+v", entries)
	}
}

func TestDoReconcilesIfTheChangeIsRefused(t *testing.T) {
	t.Parallel()
	l := root(t)
	do(t, l, begin)
	if err := l.PointCurrent(v1); err != nil {
		t.Fatal(err)
	}
	why := errors.New("no")
	res, err := l.Do(t.Context(), func(s State, t Tree, _ time.Time) (State, Tree, error) { return State{}, Tree{}, why })
	if !errors.Is(err, why) || res.State.Status != RolledBack {
		t.Errorf("got %v, %s", err, res.State.Status)
	}
}

func TestACorruptStateIsSetAsideAndLastGoodRuns(t *testing.T) {
	t.Parallel()
	for name, bytes := range map[string][]byte{
		"torn": []byte(`{"schema":1,"status":"pend`), "empty": {}, "zeros": make([]byte, 4096),
		"newer": []byte(`{"schema":99,"status":"stable"}`), "large": make([]byte, MaxState+1),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l := root(t)
			do(t, l, begin)
			if err := os.WriteFile(l.StateFile(), bytes, 0o644); err != nil {
				t.Fatal(err)
			}
			looked, err := l.Read()
			if err != nil || len(looked.Notes) == 0 || looked.Tree.Current != v1 {
				t.Errorf("Read: %+v, %v", looked, err)
			}
			res := do(t, l, nil)
			if res.State.Status != Stable || res.Tree.Current != v1 || len(res.Notes) != 2 {
				t.Errorf("got %s, current %s, notes %q", res.State.Status, res.Tree.Current, res.Notes)
			}
			if kept, _ := os.ReadFile(l.StateFile() + ".corrupt"); string(kept) != string(bytes) {
				t.Error("the corrupt state.json is not kept")
			}
		})
	}
}

func TestHostileLinksCountAsAbsent(t *testing.T) {
	t.Parallel()
	l := root(t)
	outside := t.TempDir()
	for _, target := range []string{outside, "../..", "versions/../..", "versions/9.9.9", "versions", "state.json", "versions/.partial-1.0.0"} {
		if err := (fsutil.Disk{}).Symlink(target, l.Current()); err != nil {
			t.Fatal(err)
		}
		if tr, err := l.Tree(); err != nil || !tr.Current.IsZero() {
			t.Errorf("current -> %s reads as %q, %v", target, tr.Current, err)
		}
	}
	if err := (fsutil.Disk{}).Symlink(filepath.Join(l.Root(), "versions/1.1.0"), l.Current()); err != nil {
		t.Fatal(err)
	}
	if tr, _ := l.Tree(); tr.Current != v2 {
		t.Errorf("an absolute link into versions/ reads as %q", tr.Current)
	}
}

func TestDoWaitsForTheLock(t *testing.T) {
	t.Parallel()
	l := root(t)
	lock, err := fsutil.LockFile(t.Context(), l.lockFile(), 0)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error)
	go func() {
		_, err := l.Do(t.Context(), nil)
		done <- err
	}()
	select {
	case <-done:
		t.Fatal("Do does not wait for the lock")
	default:
	}
	lock.Unlock()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func TestOutboxKeepsOrderAndItsBound(t *testing.T) {
	t.Parallel()
	l := root(t)
	box := l.Outbox()
	// Files of the test fill the outbox: a thousand fsyncs would take too long.
	for i := range MaxEntries {
		b, _ := json.Marshal(Entry{ID: fmt.Sprint("e", i), Event: &Event{Code: release.Started}})
		if err := os.WriteFile(filepath.Join(l.OutboxDir(), fmt.Sprintf("%016d-e%d.json", i, i)), b, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := box.Put(Entry{ID: "new", Event: &Event{Code: release.RolledBack}}); err != nil {
		t.Fatal(err)
	}
	entries, bad, err := box.List()
	if err != nil || bad != nil || len(entries) != MaxEntries {
		t.Fatalf("%d entries, %v, %v", len(entries), bad, err)
	}
	if entries[0].ID != "e1" || entries[MaxEntries-1].ID != "new" {
		t.Errorf("first %s, last %s", entries[0].ID, entries[MaxEntries-1].ID)
	}
	for range 2 {
		if err := box.Remove("new"); err != nil {
			t.Fatal(err)
		}
	}
}

func TestOutboxSetsHostileFilesAside(t *testing.T) {
	t.Parallel()
	l := root(t)
	good := Entry{ID: "good", Event: &Event{Code: release.Started}}
	if err := l.Outbox().Put(good); err != nil {
		t.Fatal(err)
	}
	for name, data := range map[string]string{
		"0000000000000002-torn.json":  `{"id":"to`,
		"0000000000000003-other.json": `{"id":"good","event":{"code":"x"}}`,
		"0000000000000004-big.json":   strings.Repeat(" ", MaxEntry+1),
		"0000000000000005-none.json":  `{"id":"none"}`,
		"notes.txt":                   "not ours",
	} {
		if err := os.WriteFile(filepath.Join(l.OutboxDir(), name), []byte(data), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	entries, bad, err := l.Outbox().List()
	if err != nil || len(bad) != 4 {
		t.Errorf("bad: %v, %v", bad, err)
	}
	if d := cmp.Diff([]Entry{good}, entries, cmp.AllowUnexported(release.Version{})); d != "" {
		t.Error(d)
	}
	if _, again, _ := l.Outbox().List(); len(again) != 4 {
		t.Errorf("List, which only reads, has moved something: %v", again)
	}
	for _, b := range bad {
		if err := l.Outbox().SetAside(t.Context(), b); err != nil {
			t.Error(err)
		}
	}
	if _, bad, _ := l.Outbox().List(); bad != nil {
		t.Errorf("reported again: %v", bad)
	}
}

// Decode loads every form of state.json that was ever shipped.
func TestEverySchemaLoads(t *testing.T) {
	t.Parallel()
	for v := 1; v <= Schema; v++ {
		b, err := os.ReadFile(fmt.Sprintf("../../testdata/state/v%d.json", v))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := Decode(b); err != nil {
			t.Errorf("v%d: %v", v, err)
		}
	}
	b, _ := os.ReadFile(fmt.Sprintf("../../testdata/state/v%d.json", Schema))
	s, _ := Decode(b)
	again, err := s.encode()
	if err != nil || !bytes.Equal(b, again) {
		t.Errorf("the newest schema is not written as it was read: %v\n%s", err, cmp.Diff(string(b), string(again)))
	}
}

func FuzzDecode(f *testing.F) {
	b, err := os.ReadFile("../../testdata/state/v1.json")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Add([]byte(`{"schema":1,"status":"stable"}`))
	f.Add([]byte(`{"schema":1,"status":"rolled_back","target":"1.0.0","good":"0.9.0"}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		s, err := Decode(b)
		if err != nil {
			return
		}
		// A state that loads can be changed, and the result loads again.
		for _, cur := range []release.Version{no, v1, v2, s.Target, s.Good} {
			s2, tr, _ := Reconcile(s, tree(cur, v1), now)
			s2, tr = CountStart(s2, tr, "", now)
			if !tr.Has(tr.Current) && tr.Current != cur {
				t.Errorf("current becomes %q, which is not on disk", tr.Current)
			}
			out, err := s2.encode()
			if err != nil {
				t.Fatal(err)
			}
			if _, err := Decode(out); err != nil && len(out) <= MaxState {
				t.Errorf("what was written does not load: %v\n%s", err, out)
			}
		}
	})
}

// Do never writes a state that Decode would refuse, since the file would be set aside
// with everything in it.
func TestDoWritesNothingThatCannotBeRead(t *testing.T) {
	t.Parallel()
	l := root(t)
	do(t, l, nil)
	before, _ := os.ReadFile(l.StateFile())
	if _, err := l.Do(t.Context(), func(s State, tr Tree, _ time.Time) (State, Tree, error) {
		return Begin(s, Trial{ID: "t", Target: tr.Current}, now), tr, nil // back to itself
	}); err == nil || !strings.Contains(err.Error(), "target equal to previous") {
		t.Errorf("got %v", err)
	}
	if after, _ := os.ReadFile(l.StateFile()); !bytes.Equal(before, after) {
		t.Errorf("state.json is now %s", after)
	}
}

// A file in the place of a link or a directory is kept under another name.
func TestFilesInTheWayAreSetAside(t *testing.T) {
	t.Parallel()
	l := root(t)
	do(t, l, nil)
	for _, path := range []string{l.OutboxDir(), l.Current()} {
		if err := os.RemoveAll(path); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(os.WriteFile(l.OutboxDir(), []byte("kept"), 0o644), os.Mkdir(l.Current(), 0o755),
		os.WriteFile(filepath.Join(l.Current(), "kept"), nil, 0o644)); err != nil {
		t.Fatal(err)
	}
	if res := do(t, l, nil); res.Tree.Current != v1 {
		t.Errorf("got %+v", res.Tree)
	}
	do(t, l, begin) // has events to write
	if entries, bad, err := l.Outbox().List(); len(entries) == 0 || bad != nil || err != nil {
		t.Errorf("outbox: %v %v %v", entries, bad, err)
	}
	for _, want := range []string{"outbox.corrupt-*", "current.corrupt-*/kept"} {
		if got, _ := filepath.Glob(filepath.Join(l.Root(), want)); len(got) != 1 {
			t.Errorf("%s: %q", want, got)
		}
	}
}
