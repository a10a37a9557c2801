package upgrade

import (
	"context"
	"time"

	"github.com/bilbycast/edge-agent/internal/state"
	"github.com/bilbycast/edge-agent/release"
	"github.com/bilbycast/edge-agent/stage"
)

// Apply puts the version that Shelve left for an operator on trial at the next
// start. The rollback floors apply: one may have risen since it was staged.
// It refuses where the install root cannot do what a trial needs (state.Layout.Try), and
// if a program or a library of the version, or of the one to return to, was changed; if
// the version would not run with the present config.toml (stage.CheckConfig); or if the
// running version's own check fails.
func Apply(ctx context.Context, l state.Layout, running Running) (state.Result, error) {
	if cannot := tryRoot(ctx, l, ""); cannot != nil { // staging executed the program
		return state.Result{}, cannot
	}
	apply := state.Apply
	if running.Repair {
		apply = state.ApplyRepair
	}
	return manual(ctx, l, false, running, func(s state.State, t state.Tree, now time.Time) (state.State, state.Tree, error) {
		s, t, err := apply(s, t, now)
		if err == nil {
			err = release.Policy{Floor: s.Floor}.CheckFloor(s.Target)
		}
		return s, t, err
	})
}

// RollBack ends a trial, or puts the installed version to on trial; the zero Version
// means the previous one. See state.RollBack. It compares the files as Apply does, but
// leaves a damaged version for one that is known to be intact; and it ends a trial
// whatever was changed, since the version on trial is what the operator does not want.
// The notes of the Result name what differs. No check is asked.
func RollBack(ctx context.Context, l state.Layout, to release.Version) (state.Result, error) {
	return manual(ctx, l, true, Running{}, func(s state.State, t state.Tree, now time.Time) (state.State, state.Tree, error) {
		return state.RollBack(s, t, to, now)
	})
}

// manual makes an operator's change. It refuses to begin a trial of an earlier
// publication of the rollback floor's version, as far as the marker of the installed
// version has its sequence, with changed files (compareForTrial), or while the check of the
// running version fails. The files are compared and the check is asked before
// the root is locked, because that takes long.
func manual(ctx context.Context, l state.Layout, rollback bool, running Running, change state.Change) (state.Result, error) {
	compared, tree, err := foresee(l, change)
	var warnings []string
	switch {
	case err != nil: // l.Do returns it, with the state
	case compared.Status == state.PendingHealth:
		if warnings, err = compareForTrial(ctx, l, compared.Target, compared.Previous, rollback); err != nil {
			return state.Result{}, err
		}
		more, err := checkConfigForTrial(ctx, l, compared.Target, rollback)
		if err != nil {
			return state.Result{}, err
		}
		warnings = append(warnings, more...)
		if err := running.ask(ctx); err != nil {
			return state.Result{}, err
		}
	default: // a trial ends
		if warnings, err = compare(ctx, l, tree.Current, "is the version to roll back to"); err != nil && ctx.Err() == nil {
			warnings = []string{err.Error()}
		}
	}
	attached, known := isAttached(l)
	var before baseline
	switch {
	case !known || compared.Status != state.PendingHealth:
	case attached:
		before = attachedBaseline(l)
	default:
		before = probeBefore(ctx, l)
	}
	res, err := l.Do(ctx, func(s state.State, t state.Tree, now time.Time) (state.State, state.Tree, error) {
		next, tree, err := change(s, t, now)
		if err != nil || next.Status != state.PendingHealth {
			return next, tree, err
		}
		if next.Target != compared.Target || next.Previous != compared.Previous {
			return s, t, release.Errorf(release.InProgress, "the install root was changed meanwhile (%s is %s now); see edge-agent status, and try again", t.Current, s.Status)
		}
		if sequence := stage.SequenceOf(l, next.Target); sequence > 0 && sequence < s.FloorSequence {
			return s, t, release.Errorf(release.SequenceTooOld, "%s has sequence %d, below %d, the floor that an installed release set", next.Target, sequence, s.FloorSequence)
		}
		if known && running.Accept {
			if err := l.RecordAccept(state.AcceptRecord{TrialID: next.TrialID, At: now}); err != nil {
				return s, t, err
			}
		}
		if known {
			if note := recordTrial(l, next.TrialID, before); note != "" {
				warnings = append(warnings, note)
			}
		}
		return next, tree, nil
	})
	res.Notes = append(res.Notes, warnings...)
	return res, err
}
