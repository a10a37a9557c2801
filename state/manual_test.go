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
		t.Errorf("%s, owed %s", s.Status, got)
	}
	if r, rt, note := Reconcile(s, tree, now); note != "" || r.Status != StagedManual || rt.Current != v1 {
		t.Errorf("a version that waits is not at rest: %s", note)
	}
	s.Owed = nil
	s, tree, err := Apply(s, tree, now)
	if err != nil || s.Status != PendingHealth || tree.Current != v2 || tree.Previous != v1 || s.MaxBootAttempts != 2 {
		t.Fatalf("%+v, %+v, %v", s, tree, err)
	}
	s, tree = Keep(s, tree, "", now)
	if s.Floor != v1 || tree.LastGood != v2 {
		t.Errorf("kept as %+v", s)
	}
}

func TestGoBack(t *testing.T) {
	t.Parallel()
	s := State{Schema: 1, Status: Stable, Good: v2}
	tree := Tree{Current: v2, LastGood: v2, Previous: v1, Versions: []release.Version{v2, v1}}
	trial, tt, err := GoBack(s, tree, now)
	if err != nil || trial.Status != PendingHealth || trial.Target != v1 || tt.Current != v1 || tt.Previous != v2 {
		t.Fatalf("%+v, %+v, %v", trial, tt, err)
	}
	if back, bt, err := GoBack(trial, tt, now); err != nil || back.Status != RolledBack || bt.Current != v2 {
		t.Errorf("in the trial: %+v, %v", back, err)
	}
	s.Floor = v2
	if _, _, err := GoBack(s, tree, now); err == nil || !strings.Contains(err.Error(), "floor") {
		t.Errorf("below the floor: %v", err)
	}
	tree.Previous = release.Version{}
	if _, _, err := GoBack(s, tree, now); err == nil {
		t.Error("goes back to nothing")
	}
}
