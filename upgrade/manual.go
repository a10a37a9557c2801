package upgrade

import (
	"context"
	"time"

	"github.com/bilbycast/edge-agent/release"
	"github.com/bilbycast/edge-agent/stage"
	"github.com/bilbycast/edge-agent/state"
)

// Apply puts the version that Shelve left for an operator on trial at the next
// start. The rollback floors apply: one may have risen since it was staged.
// It refuses where the install root cannot do what a trial needs (state.Layout.Try).
func Apply(ctx context.Context, l state.Layout) (state.Result, error) {
	if cannot := tryRoot(ctx, l, ""); cannot != nil { // staging executed the program
		return state.Result{}, cannot
	}
	return manual(ctx, l, func(s state.State, t state.Tree, now time.Time) (state.State, state.Tree, error) {
		s, t, err := state.Apply(s, t, now)
		if err == nil {
			err = release.Policy{Floor: s.Floor}.CheckFloor(s.Target)
		}
		return s, t, err
	})
}

// RollBack ends a trial, or puts the installed version to on trial; the zero Version
// means the previous one. See state.RollBack.
func RollBack(ctx context.Context, l state.Layout, to release.Version) (state.Result, error) {
	return manual(ctx, l, func(s state.State, t state.Tree, now time.Time) (state.State, state.Tree, error) {
		return state.RollBack(s, t, to, now)
	})
}

// manual makes an operator's change. It refuses to begin a trial of an earlier
// publication of the rollback floor's version, as far as the marker of the installed
// version has its sequence.
func manual(ctx context.Context, l state.Layout, change state.Change) (state.Result, error) {
	return l.Do(ctx, func(s state.State, t state.Tree, now time.Time) (state.State, state.Tree, error) {
		next, tree, err := change(s, t, now)
		if err != nil || next.Status != state.PendingHealth {
			return next, tree, err
		}
		if sequence := stage.SequenceOf(l, next.Target); sequence > 0 && sequence < s.FloorSequence {
			return s, t, release.Errorf(release.SequenceTooOld, "%s has sequence %d, below %d, the floor that an installed release set", next.Target, sequence, s.FloorSequence)
		}
		return next, tree, nil
	})
}
