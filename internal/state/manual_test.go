package state

import (
	"fmt"
	"strings"
	"testing"

	"github.com/bilbycast/edge-agent/release"
)

func TestShelveAndApply(t *testing.T) {
	t.Parallel()
	tree := Tree{Current: v1, LastGood: v1, Versions: []release.Version{v2, v1}}
	s := State{Schema: 1, Status: Stable, Good: v1}
	if _, _, err := Apply(s, tree, now); err == nil {
		t.Error("nothing is applied")
	}
	s = Shelve(s, Trial{ID: "c", CommandID: "c", Target: v2, MaxAttempts: 2, RollbackFloor: v1}, now)
	if got := fmt.Sprint(codes(s)); s.Status != StagedManual || got != "[upgrade_staged_manual]" {
		t.Errorf("%s, pending %s", s.Status, got)
	}
	if r, rt, note := Reconcile(s, tree, now); note != "" || r.Status != StagedManual || rt.Current != v1 {
		t.Errorf("a version that waits is not at rest: %s", note)
	}
	s.PendingReports = nil
	s, tree, err := Apply(s, tree, now)
	if err != nil || s.Status != PendingHealth || tree.Current != v2 || tree.Previous != v1 || s.MaxBootAttempts != 2 {
		t.Fatalf("%+v, %+v, %v", s, tree, err)
	}
	s, tree = Keep(s, tree, s.Target, "", now)
	if s.Floor != v1 || tree.LastGood != v2 {
		t.Errorf("kept as %+v", s)
	}
}

func TestRollBack(t *testing.T) {
	t.Parallel()
	v3 := release.MustVersion("3.0.0")
	s := State{Schema: 1, Status: Stable, Good: v2}
	tree := Tree{Current: v2, LastGood: v2, Previous: v1, Versions: []release.Version{v3, v2, v1}}
	none := release.Version{}
	for _, to := range []release.Version{none, v1, v3} {
		want := to
		if to == none {
			want = v1
		}
		trial, tt, err := RollBack(s, tree, to, now)
		if err != nil || trial.Status != PendingHealth || trial.Target != want || tt.Current != want || tt.Previous != v2 {
			t.Fatalf("to %s: %+v, %+v, %v", to, trial, tt, err)
		}
		if got := fmt.Sprint(codes(trial)); got != "[upgrade_rolled_back]" {
			t.Errorf("to %s: reported as %s", to, got)
		}
		if kept, _ := Keep(trial, tt, trial.Target, "", now); kept.Status != Stable || fmt.Sprint(codes(kept)) != "[upgrade_rolled_back]" {
			t.Errorf("to %s, kept: %s, reported %v", to, kept.Status, codes(kept))
		}
		back, bt, err := RollBack(trial, tt, none, now)
		if err != nil || back.Status != RolledBack || bt.Current != v2 {
			t.Errorf("in the trial: %+v, %v", back, err)
		}
		ids := map[string]bool{}
		for _, e := range back.PendingReports {
			ids[e.ID] = true
		}
		if len(ids) != 2 {
			t.Errorf("two reports have the ids %v", ids)
		}
	}
	trial, tt, _ := RollBack(s, tree, v1, now)
	for name, tt := range map[string]struct {
		s    State
		t    Tree
		to   release.Version
		want string
	}{
		"another version in a trial": {trial, tt, v3, "on trial"},
		"current":                    {s, tree, v2, "is the current version already; installed: 3.0.0, " + v2.String() + " (current), " + v1.String() + " (previous)"},
		"not installed":              {s, tree, release.MustVersion("9.0.0"), "9.0.0 is not installed; installed: 3.0.0"},
		"below the floor":            {State{Schema: 1, Status: Stable, Good: v2, Floor: v2}, tree, v1, "floor"},
		"no previous":                {s, Tree{Current: v2, Versions: []release.Version{v2}}, none, "no previous version"},
		"previous failed":            {State{Schema: 1, Status: RolledBack, Good: v2, Target: v3}, Tree{Current: v2, Previous: v3, Versions: tree.Versions}, none, "name it: rollback 3.0.0"},
	} {
		if _, _, err := RollBack(tt.s, tt.t, tt.to, now); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v, want %q", name, err, tt.want)
		}
	}
}

// An operator who points current to an older version rolls back. That is reported as a
// rollback, and its trial completes nothing. A newer version is a trial like any
// other. Pending reports are kept.
func TestAManualSwitch(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		from, to        release.Version
		switched, ended string
	}{
		{v2, v1, "[upgrade_downloaded upgrade_rolled_back]", "[upgrade_downloaded upgrade_rolled_back]"},
		{v1, v2, "[upgrade_downloaded]", "[upgrade_downloaded upgrade_completed]"},
	} {
		s := Downloaded(Accept(State{Schema: 1, Status: Stable, Good: tt.from}, Command{ID: "earlier"}), "earlier", now)
		s.Commands = nil
		s, tr, note := Reconcile(s, Tree{Current: tt.to, Previous: tt.from, LastGood: tt.from, Versions: []release.Version{v2, v1}}, now)
		if s.Status != PendingHealth || s.Target != tt.to || note == "" || fmt.Sprint(codes(s)) != tt.switched {
			t.Fatalf("%s to %s: %s %s, reports %v", tt.from, tt.to, s.Status, s.Target, codes(s))
		}
		if s, _ = Keep(s, tr, s.Target, "", now); fmt.Sprint(codes(s)) != tt.ended {
			t.Errorf("%s to %s, kept: reports %v, want %s", tt.from, tt.to, codes(s), tt.ended)
		}
	}
}
