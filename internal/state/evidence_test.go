package state

import (
	"errors"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/bilbycast/edge-agent/release"
)

// trialOf110 is a root whose version 1.1.0 is on trial, with credentials, and 1.0.0 to
// return to.
func trialOf110(t *testing.T) (Layout, State) {
	t.Helper()
	l, err := At(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	for _, v := range []release.Version{v1, v2} {
		if err := os.MkdirAll(l.Version(v), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(os.WriteFile(l.CredentialsFile(), []byte("the node's"), 0o600), l.RecordSwap(SwapRecord{TrialID: "t", From: v1})); err != nil {
		t.Fatal(err)
	}
	res, err := l.Do(t.Context(), func(s State, tr Tree, now time.Time) (State, Tree, error) {
		s = Begin(Install(s, Trial{Target: v1}, now), Trial{ID: "t", Target: v2}, now)
		tr.LastGood, tr.Previous, tr.Current = v1, v1, v2
		return s, tr, nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return l, res.State
}

// A rollback brings the credentials from before the trial back, whatever became of them, and
// whoever rolls back. What ends well changes none.
func TestRollingBackRestoresTheCredentials(t *testing.T) {
	t.Parallel()
	destroy := map[string]func(l Layout) error{
		"removed":  func(l Layout) error { return os.Remove(l.CredentialsFile()) },
		"replaced": func(l Layout) error { return os.WriteFile(l.CredentialsFile(), []byte("others"), 0o600) },
		"emptied":  func(l Layout) error { return os.Truncate(l.CredentialsFile(), 0) },
		"kept":     func(Layout) error { return nil },
		"a directory": func(l Layout) error {
			return errors.Join(os.Remove(l.CredentialsFile()), os.Mkdir(l.CredentialsFile(), 0o700))
		},
	}
	for name, spoil := range destroy {
		l, _ := trialOf110(t)
		if st, err := os.Stat(l.TrialCredentials("t")); err != nil || st.Mode() != 0o600 {
			t.Fatalf("the copy: %v, %v", st, err)
		}
		if err := spoil(l); err != nil {
			t.Fatal(err)
		}
		res, err := l.Do(t.Context(), func(s State, tr Tree, now time.Time) (State, Tree, error) {
			s, tr = Revert(s, tr, "test", now)
			return s, tr, nil
		})
		if err != nil || res.State.Status != RolledBack {
			t.Errorf("%s: %+v, %v", name, res.State, err)
		}
		b, _ := os.ReadFile(l.CredentialsFile())
		if (string(b) == "the node's") == (name == "a directory") || (len(res.Notes) > 0) != (name != "kept") {
			t.Errorf("%s: %q, %q", name, b, res.Notes)
		}
	}
	l, _ := trialOf110(t)
	if err := destroy["replaced"](l); err != nil {
		t.Fatal(err)
	}
	if _, err := l.Do(t.Context(), func(s State, tr Tree, now time.Time) (State, Tree, error) {
		s, tr = Keep(s, tr, v2, "", now)
		return s, tr, nil
	}); err != nil {
		t.Fatal(err)
	}
	if b, err := os.ReadFile(l.CredentialsFile()); err != nil || string(b) != "others" {
		t.Errorf("a version that is kept: %q, %v", b, err)
	}
}

// What was in place of the credentials is kept aside; and what the manager accepted during the
// trial is what comes back.
func TestCredentialsOfTheTrial(t *testing.T) {
	t.Parallel()
	for _, accepted := range []bool{false, true} {
		l, s := trialOf110(t)
		if err := os.WriteFile(l.CredentialsFile(), []byte("registered again"), 0o600); err != nil {
			t.Fatal(err)
		}
		if accepted {
			if err := l.KeepCredentials(s); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := l.Do(t.Context(), func(s State, tr Tree, now time.Time) (State, Tree, error) {
			s, tr = Revert(s, tr, "test", now)
			return s, tr, nil
		}); err != nil {
			t.Fatal(err)
		}
		now, err := os.ReadFile(l.CredentialsFile())
		aside, _ := os.ReadFile(l.path(replacedName))
		if err != nil || (string(now) == "registered again") != accepted || (string(aside) == "registered again") == accepted {
			t.Errorf("accepted %t: %q, aside %q, %v", accepted, now, aside, err)
		}
		if st, err := os.Stat(l.path(replacedName)); !accepted && (err != nil || st.Mode() != 0o600) {
			t.Errorf("%v, %v", st, err)
		}
	}
}

// A newer version may take the place of one that is under guard or unproven in its present
// start, and of no other.
func TestMayReplace(t *testing.T) {
	t.Parallel()
	l, s := trialOf110(t)
	for name, tt := range map[string]struct {
		starts int
		judge  JudgeRecord
		want   bool
	}{
		"no start":              {0, JudgeRecord{}, false},
		"no result":             {1, JudgeRecord{TrialID: "t", Start: 1, Stage: OnTrial}, false},
		"guard":                 {1, JudgeRecord{TrialID: "t", Start: 1, Stage: UnderGuard}, true},
		"unproven":              {2, JudgeRecord{TrialID: "t", Start: 2, Stage: Unproven}, true},
		"of an earlier start":   {3, JudgeRecord{TrialID: "t", Start: 2, Stage: Unproven}, false},
		"of another trial":      {1, JudgeRecord{TrialID: "u", Start: 1, Stage: Unproven}, false},
		"of a later, unknown":   {1, JudgeRecord{TrialID: "t", Start: 1, Stage: "probation"}, false},
		"of an earlier version": {1, JudgeRecord{TrialID: "t", Start: 1, Ready: true}, false},
	} {
		if err := errors.Join(os.RemoveAll(l.trialDir("t")), l.makeTrial("t")); err != nil {
			t.Fatal(err)
		}
		if tt.starts > 0 {
			if err := errors.Join(l.RecordStarts(StartsRecord{TrialID: "t", Number: tt.starts}), l.writeTrial("t", judgeName, tt.judge)); err != nil {
				t.Fatal(err)
			}
		}
		if got := l.MayReplace(s); got != tt.want {
			t.Errorf("%s: %t", name, got)
		}
	}
}

// What a start found is of that start; what counts for the trial stays.
func TestInStart(t *testing.T) {
	t.Parallel()
	r := JudgeRecord{TrialID: "t", Start: 1, Ready: true, Calm: true, Passed: true, Rounds: 2, Stage: Unproven, Completed: true, Waits: "w", Since: time.Now(), Link: "l", Probe: "p"}
	if got := r.InStart(1); got != r {
		t.Errorf("%+v", got)
	}
	if got, want := r.InStart(2), (JudgeRecord{TrialID: "t", Start: 2, Passed: true, Rounds: 2, Completed: true, Link: "l", Probe: "p"}); got != want {
		t.Errorf("%+v", got)
	}
}

// Completing reports, and ends no trial; keeping it later reports nothing more.
func TestCompleteAndKeep(t *testing.T) {
	t.Parallel()
	_, s := trialOf110(t)
	tr := Tree{Current: v2, Previous: v1, LastGood: v1, Versions: []release.Version{v2, v1}}
	done := Complete(s, tr, v2, "a note", time.Now())
	if done.Status != PendingHealth || done.Good != v1 || codesOf(done)[len(codesOf(done))-1] != release.Completed {
		t.Errorf("%+v", done)
	}
	kept, t2 := KeepCompleted(done, tr, v2, time.Now())
	if kept.Status != Stable || kept.Good != v2 || t2.LastGood != v2 || !slices.Equal(codesOf(kept), codesOf(done)) {
		t.Errorf("%+v, %+v", kept, t2)
	}
	if other := Complete(s, Tree{Current: v1}, v2, "", time.Now()); len(other.PendingReports) != len(s.PendingReports) {
		t.Error("current points elsewhere, and it was reported")
	}
	back, t2 := Revert(done, tr, "it crashed under guard", time.Now())
	if back.Status != RolledBack || t2.Current != v1 || t2.LastGood != v1 {
		t.Errorf("%+v, %+v", back, t2)
	}
}

func codesOf(s State) (codes []release.Code) {
	for _, e := range s.PendingReports {
		if e.Event != nil {
			codes = append(codes, e.Event.Code)
		}
	}
	return codes
}

// A swap from an unproven version that a power cut interrupts is finished: nothing else would
// judge the version that current points to.
func TestAnInterruptedSwapFromAnUnprovenVersionIsFinished(t *testing.T) {
	t.Parallel()
	_, s := trialOf110(t)
	v3 := release.MustVersion("1.2.0")
	s = Begin(Supersede(s, v3, time.Now()), Trial{ID: "u", Target: v3}, time.Now())
	tr := Tree{Current: v2, Previous: v1, LastGood: v1, Versions: []release.Version{v3, v2, v1}}
	got, links, note := Reconcile(s, tr, time.Now())
	if got.Status != PendingHealth || got.Target != v3 || got.Previous != v1 || links.Current != v3 || links.Previous != v1 || note == "" {
		t.Errorf("%+v, %+v, %q", got, links, note)
	}
	// Later it is an operator who points current back to 1.1.0; and without 1.2.0 there is
	// nothing to finish. Both put 1.1.0 on trial.
	started, _ := CountStart(s, Tree{Current: v3}, "", time.Now())
	for _, tt := range []struct {
		s State
		v []release.Version
	}{{started, tr.Versions}, {s, []release.Version{v2, v1}}} {
		tr.Versions = tt.v
		got, links, _ := Reconcile(tt.s, tr, time.Now())
		if got.Status != PendingHealth || got.Target != v2 || got.Previous != v1 || links.Current != v2 || links.LastGood != v1 {
			t.Errorf("%+v, %+v", got, links)
		}
	}
}
