package state

import (
	"fmt"
	"time"

	"github.com/bilbycast/edge-agent/release"
)

// Shelve leaves a staged version for an operator to Apply. Nothing else
// changes: the version that runs goes on.
func Shelve(s State, tr Trial, now time.Time) State {
	n := settle(s, StagedManual, s.Good, now)
	n.Target, n.TrialID, n.MaxBootAttempts = tr.Target, tr.ID, tr.MaxAttempts
	n.CommandID, n.Channel = tr.CommandID, tr.Channel
	n.PendingFloor, n.PendingFloorSequence = tr.RollbackFloor, tr.FloorSequence
	return n.owe(now, Event{
		Code: release.StagedManual, From: s.Good, To: tr.Target, CommandID: tr.CommandID,
		Message: fmt.Sprintf("%s is staged; an operator applies it on the node: edge-agent apply", tr.Target),
	})
}

// Apply puts the version that waits for an operator on trial.
func Apply(s State, t Tree, now time.Time) (State, Tree, error) {
	if s.Status != StagedManual {
		return s, t, fmt.Errorf("no version waits to be applied (status %s)", s.Status)
	}
	s = Begin(s, Trial{
		ID: s.TrialID, Target: s.Target, MaxAttempts: s.MaxBootAttempts,
		CommandID: s.CommandID, Channel: s.Channel, RollbackFloor: s.PendingFloor, FloorSequence: s.PendingFloorSequence,
	}, now)
	t.Previous, t.Current = s.Previous, s.Target
	return s, t, nil
}

// GoBack is an operator's own rollback. It ends a trial at once; otherwise the
// version that ran before goes on trial, with the present one to come back to.
func GoBack(s State, t Tree, now time.Time) (State, Tree, error) {
	if s.Status == PendingHealth {
		s, t = Revert(s, t, "an operator went back", now)
		return s, t, nil
	}
	to := t.Previous
	switch {
	case to.IsZero() || to == t.Current:
		return s, t, fmt.Errorf("there is no version to go back to: previous leads nowhere else")
	case to.Compare(s.Floor) < 0:
		return s, t, fmt.Errorf("%s is below the rollback floor %s, which a signed release has set", to, s.Floor)
	}
	s = Begin(s, Trial{
		ID: fmt.Sprintf("rollback-%s-%s-%d", t.Current, to, now.UnixMilli()), Target: to, MaxAttempts: s.MaxBootAttempts,
	}, now)
	t.Previous, t.Current = s.Previous, to
	return s, t, nil
}
