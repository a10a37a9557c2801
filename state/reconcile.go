package state

import (
	"fmt"
	"time"

	"github.com/bilbycast/edge-agent/release"
)

// Reconcile repairs the state after a crash or a manual change of the links. It
// is idempotent, and returns its arguments if nothing is wrong. The note says in
// words what it found; it is empty when nothing was wrong.
//
// It never moves last-good to a version that did not prove healthy, except in
// a root that has no last-good at all: a first install.
func Reconcile(s State, t Tree, now time.Time) (State, Tree, string) {
	s, t, note := reconcile(s, t, now)
	if s.Status != PendingHealth && (t.Previous.IsZero() || t.Previous == t.Current) {
		// At rest previous always points to a version, so that a missing one has a
		// meaning in a trial: see Layout.PointCurrent.
		t.Previous = t.beside(t.Current, s.Target)
	}
	return s, t, note
}

func reconcile(s State, t Tree, now time.Time) (State, Tree, string) {
	if len(t.Versions) == 0 {
		// Nothing can be decided: versions/ may only not be mounted. What is known of
		// a trial is kept for when it is there again.
		return s, t, "no version is installed"
	}
	switch s.Status {
	case Stable:
		switch t.Current {
		case release.Version{}:
			return lostCurrent(s, t, now)
		case s.Good:
			if t.LastGood != t.Current {
				t.LastGood = t.Current // crashed after the trial was kept
				return s, t, "finished keeping " + t.Current.String()
			}
			return s, t, ""
		default:
			return handMoved(s, t, now)
		}

	case StagedManual:
		switch t.Current {
		case release.Version{}:
			return lostCurrent(s, t, now)
		case s.Good:
			if !t.Has(s.Target) {
				note := fmt.Sprintf("%s was staged, but its directory is gone", s.Target)
				return settle(s, Stable, t.Current, now), withLastGood(t), note
			}
			return s, withLastGood(t), ""
		default: // Target or any other: somebody moved the link
			return handMoved(s, t, now)
		}

	case PendingHealth:
		switch t.Current {
		case s.Target:
			return s, t, "" // the trial runs
		case s.Previous:
			if t.Previous.IsZero() { // the watchdog rolled back by the link alone
				s, t = Revert(s, t, "its starts could not be recorded", now)
				return s, t, fmt.Sprintf("rolled back from %s: %s", s.Target, s.Reason)
			}
			if s.BootAttempts > 0 { // it did start, and an operator changed the link
				s, t = Revert(s, t, fmt.Sprintf("current was set back to %s during the trial", t.Current), now)
				return s, t, s.Reason
			}
			target := s.Target
			s = abandon(s, now)
			if s.Status == StagedManual {
				return s, t, fmt.Sprintf("applying %s was interrupted before the swap; apply it again", target)
			}
			return s, t, fmt.Sprintf("the upgrade to %s was interrupted before the swap; nothing was changed", target)
		case release.Version{}: // the swap is atomic, so the target's directory was taken away
			s, t = Revert(s, t, fmt.Sprintf("the directory of %s is missing", s.Target), now)
			return s, t, s.Reason
		default:
			return handMoved(abandon(s, now), t, now)
		}

	case RolledBack:
		switch t.Current {
		case s.Target: // crashed in the revert
			t.Current = t.fallback(s.Previous, s.Target)
			return s, t, fmt.Sprintf("finished going back from %s to %s", s.Target, t.Current)
		case release.Version{}:
			return lostCurrent(s, t, now)
		case s.Good:
			return s, withLastGood(t), ""
		default:
			return handMoved(s, t, now)
		}
	}
	return adopt(s, t, now)
}

// withLastGood repairs a missing or dangling last-good while the good version
// runs: the watchdog is started through that link.
func withLastGood(t Tree) Tree {
	if t.LastGood.IsZero() && t.mayCallGood(t.Current) {
		t.LastGood = t.Current
	}
	return t
}

// adopt makes a state for a root that has none: state.json was never written,
// or could not be read.
func adopt(s State, t Tree, now time.Time) (State, Tree, string) {
	run := t.fallback(t.LastGood, release.Version{})
	if t.LastGood.IsZero() {
		run = t.fallback(t.Current, release.Version{})
	}
	if run.IsZero() {
		return s, t, "no version is installed"
	}
	if t.LastGood.IsZero() && !t.mayCallGood(run) {
		return s, t, fmt.Sprintf("there is no usable state.json and no last-good, and %s is not known to be healthy; it is chosen at the next start, if it is all there is", run)
	}
	note := ""
	if !t.Current.IsZero() && t.Current != run {
		note = fmt.Sprintf("no usable state.json, and %s never proved healthy: going back to %s", t.Current, run)
	}
	t.Current = run
	if t.LastGood.IsZero() {
		t.LastGood = run
	}
	s.MaxBootAttempts = 0
	return settle(s, Stable, run, now), t, note
}

// lostCurrent points a missing or dangling current to the best version there is.
func lostCurrent(s State, t Tree, now time.Time) (State, Tree, string) {
	run := t.fallback(s.Good, release.Version{})
	if run.IsZero() {
		return s, t, "no version is installed"
	}
	if run != s.Good && t.LastGood.IsZero() && !t.mayCallGood(run) {
		return s, t, fmt.Sprintf("current is missing or dangling, and %s is not known to be healthy; it is chosen at the next start, if it is all there is", run)
	}
	t.Current = run
	note := fmt.Sprintf("current was missing or dangling; it points to %s now", run)
	if run == s.Good {
		if t.LastGood != run {
			t.LastGood = run
		}
		return s, t, note
	}
	if t.LastGood.IsZero() || t.LastGood == run {
		t.LastGood = run
		return settle(s, Stable, run, now), t, note
	}
	s, t, _ = handMoved(s, t, now)
	return s, t, note
}

// handMoved protects a current that somebody pointed elsewhere by hand: the
// version is put on trial, with the last good one to go back to.
func handMoved(s State, t Tree, now time.Time) (State, Tree, string) {
	back := t.first(t.LastGood, s.Good)
	if (back.IsZero() || back == t.Current) && t.Current != t.LastGood && !t.mayCallGood(t.Current) {
		return s, t, fmt.Sprintf("current points to %s, which is not known to be healthy, and there is no other version to roll back to", t.Current)
	}
	if back.IsZero() || back == t.Current {
		t.LastGood = t.Current
		return settle(s, Stable, t.Current, now), t, fmt.Sprintf("current was set to %s by hand", t.Current)
	}
	note := fmt.Sprintf("current was set to %s by hand; it is on trial, with %s to go back to", t.Current, back)
	trial := Trial{
		ID:          fmt.Sprintf("%s%s-%d", manualSwitch, t.Current, now.Unix()),
		Target:      t.Current,
		MaxAttempts: s.MaxBootAttempts,
	}
	from := s.Good
	s.Good = back
	s = beginTrial(s, trial, now) // no command asked for it, so nothing is "staged"
	if s.byOperator() {
		s = s.oweRollback(from, now)
	}
	t.Previous = back
	return s, t, note
}
