package state

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/bilbycast/edge-agent/fsutil"
	"github.com/bilbycast/edge-agent/release"
	"github.com/google/go-cmp/cmp"
)

// A trial that never began drops the report that the release was staged, and the answer
// to its command; every other report stays. One that an operator applied keeps the
// answer: the version is still staged.
func TestWhatAbandonDrops(t *testing.T) {
	t.Parallel()
	now := time.Now()
	v0, v1 := release.MustVersion("1.0.0"), release.MustVersion("1.1.0")
	for _, applied := range []bool{false, true} {
		s := Start(atRest(State{}, Stable, v0, now), Command{ID: "c", Version: v1, From: v0}, now)
		s = s.report(now, Event{Code: release.RolledBack, CommandID: "before", Message: "an earlier one"})
		if applied {
			s = Succeed(Shelve(s, Trial{ID: "c", CommandID: "c", Target: v1}, now), "c", stagedManual, now)
			s, _, _ = Apply(s, Tree{Current: v0}, now)
		} else {
			s = Succeed(Begin(s, Trial{ID: "c", CommandID: "c", Target: v1}, now), "c", "staged", now)
		}
		before := reportIDs(s)
		after := reportIDs(abandon(s, notBegun, now))
		staged, ack := entryID("c", string(release.Staged)), entryID("c", "ack")
		if !slices.Contains(before, staged) || !slices.Contains(before, ack) {
			t.Fatalf("applied %t: reports %q", applied, before)
		}
		want := slices.DeleteFunc(slices.Clone(before), func(id string) bool { return id == staged || id == ack && !applied })
		if !applied { // the command fails instead
			want = append(want, entryID("c", string(release.Internal)), ack)
		}
		slices.Sort(want)
		slices.Sort(after)
		if diff := cmp.Diff(want, after); diff != "" {
			t.Errorf("applied %t: (-want +got)\n%s", applied, diff)
		}
	}
}

func reportIDs(s State) []string {
	var ids []string
	for _, e := range s.PendingReports {
		ids = append(ids, e.ID)
	}
	return ids
}

// A trial without a version to run, or without one to return to, is no state.
func TestAPendingStateNamesBothVersions(t *testing.T) {
	t.Parallel()
	const whole = `{"schema":1,"status":"pending_health","good":"1.0.0","target":"1.1.0","previous":"1.0.0","max_boot_attempts":3,"trial_id":"c","since":"2026-11-26T00:00:00Z"}`
	if _, err := Decode([]byte(whole)); err != nil {
		t.Fatal(err)
	}
	for _, without := range []string{`"target":"1.1.0",`, `"previous":"1.0.0",`, `"max_boot_attempts":3,`, `"trial_id":"c",`} {
		if !strings.Contains(whole, without) {
			t.Fatal(without)
		}
		if s, err := Decode([]byte(strings.Replace(whole, without, "", 1))); err == nil {
			t.Errorf("without %s: %+v", without, s)
		}
	}
	if _, err := Decode([]byte(strings.Replace(whole, `"target":"1.1.0"`, `"target":"1.0.0"`, 1))); err == nil {
		t.Error("a target that is the previous version")
	}
}

// An operator's rollback needs another installed version that is not below the floor.
func TestWhatAnOperatorMayRollBackTo(t *testing.T) {
	t.Parallel()
	now := time.Now()
	v := release.MustVersion
	s := State{Status: Stable, Good: v("1.2.0"), Floor: v("1.1.0")}
	tree := Tree{Current: v("1.2.0"), Previous: v("1.1.0"), LastGood: v("1.2.0"), Versions: []release.Version{v("1.2.0"), v("1.1.0"), v("1.0.0")}}
	for _, tt := range []struct {
		to, want, refused string
	}{
		{"", "1.1.0", ""},
		{"1.1.0", "1.1.0", ""},
		{"1.2.0", "", "is the current version already"},
		{"1.3.0", "", "is not installed"},
		{"1.0.0", "", "rollback floor"},
	} {
		var to release.Version
		if tt.to != "" {
			to = v(tt.to)
		}
		s2, t2, err := RollBack(s, tree, to, now)
		if tt.refused != "" {
			if err == nil || !strings.Contains(err.Error(), tt.refused) || !strings.Contains(err.Error(), "installed: ") {
				t.Errorf("to %q: %v", tt.to, err)
			}
			continue
		}
		if err != nil || s2.Status != PendingHealth || t2.Current != v(tt.want) || t2.Previous != v("1.2.0") || s2.Previous != v("1.2.0") {
			t.Errorf("to %q: %+v, %+v, %v", tt.to, s2, t2, err)
		}
	}
	for name, bad := range map[string]Tree{
		"no previous":         {Current: v("1.2.0"), Versions: tree.Versions},
		"previous is current": {Current: v("1.2.0"), Previous: v("1.2.0"), Versions: tree.Versions},
	} {
		if _, _, err := RollBack(s, bad, release.Version{}, now); err == nil || !strings.Contains(err.Error(), "no previous version") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// failAt fails the nth change.
type failAt struct{ n *int }

var errFails = errors.New("this change fails")

func (f failAt) Change(_ fsutil.Op, change func() error) error {
	if *f.n--; *f.n == -1 {
		return errFails
	}
	return change()
}

// Whichever change fails, KeepTrust and Amend return the error, and leave all of the old
// or all of the new.
func TestKeepTrustAndAmendReportEveryError(t *testing.T) {
	t.Parallel()
	oldFiles, newFiles := map[string][]byte{"a": []byte("old")}, map[string][]byte{"a": []byte("new"), "b": []byte("new")}
	trust := func(t *testing.T, l Layout) string {
		entries, _ := os.ReadDir(l.TrustDir())
		var got []string
		for _, e := range entries {
			b, err := os.ReadFile(filepath.Join(l.TrustDir(), e.Name()))
			if err != nil {
				t.Fatal(err)
			}
			got = append(got, fmt.Sprintf("%s=%s", e.Name(), b))
		}
		return strings.Join(got, " ")
	}
	amend := func(e *Entry) { e.Event.Message = "new" }
	for n, trustEnds, amendEnds := 0, false, false; !trustEnds || !amendEnds; n++ {
		l, err := At(t.TempDir())
		if err != nil {
			t.Fatal(err)
		}
		entry := Entry{ID: "a.b", Time: time.Now(), Event: &Event{Code: release.RolledBack, Message: "old"}}
		if err := errors.Join(l.Make(), l.KeepTrust(oldFiles), l.Outbox().Put(entry)); err != nil {
			t.Fatal(err)
		}
		left := n
		err = l.On(fsutil.Disk{Seam: failAt{&left}}).KeepTrust(newFiles)
		trustEnds = left >= 0 // no change failed
		if got := trust(t, l); (err == nil) != trustEnds || err != nil && !errors.Is(err, errFails) || got != "a=old" && got != "a=new b=new" || err == nil && got != "a=new b=new" {
			t.Errorf("trust, change %d: %q, %v", n, got, err)
		}
		left = n
		err = l.On(fsutil.Disk{Seam: failAt{&left}}).Outbox().Amend("a.b", amend)
		amendEnds = left >= 0
		entries, _, listErr := l.Outbox().List()
		if listErr != nil || len(entries) != 1 || (err == nil) != amendEnds || err != nil && !errors.Is(err, errFails) || err == nil && entries[0].Event.Message != "new" {
			t.Errorf("amend, change %d: %+v, %v, %v", n, entries, err, listErr)
		}
	}
}
