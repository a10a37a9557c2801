package state

import (
	"fmt"
	"time"

	"github.com/bilbycast/edge-agent/release"
)

// Reconcile repairs the state after a crash or a manual change of the links. It is
// idempotent. If nothing is wrong it returns its arguments, and an empty note;
// otherwise the note describes what it found and repaired.
//
// It never moves last-good to a version that did not prove healthy, except in a root
// without any last-good, as after a first install.
func Reconcile(s State, t Tree, now time.Time) (State, Tree, string) {
	s, t, note := reconcile(s, t, now)
	if s.Status != PendingHealth && (t.Previous.IsZero() || t.Previous == t.Current) {
		// Without a trial previous always points to a version. So a missing link means
		// something in a trial: see Layout.PointCurrent.
		t.Previous = t.previousFor(t.Current, s.Target)
	}
	return s, t, note
}

func reconcile(s State, t Tree, now time.Time) (State, Tree, string) {
	if len(t.Versions) == 0 {
		// Nothing can be decided: perhaps versions/ is not mounted yet. The state is kept
		// until it is.
		return s, t, "no version is installed"
	}
	switch s.Status {
	case Stable:
		switch t.Current {
		case release.Version{}:
			return repairCurrent(s, t, now)
		case s.Good:
			if t.LastGood != t.Current {
				t.LastGood = t.Current // a crash followed Keep
				return s, t, "finished keeping " + t.Current.String()
			}
			return s, t, ""
		default:
			return adoptManualSwitch(s, t, now)
		}

	case StagedManual:
		switch t.Current {
		case release.Version{}:
			return repairCurrent(s, t, now)
		case s.Good:
			if !t.Has(s.Target) {
				note := fmt.Sprintf("%s was staged, but its directory is gone", s.Target)
				return atRest(s, Stable, t.Current, now), withLastGood(t), note
			}
			return s, withLastGood(t), ""
		default: // Target or another version: an operator changed the link
			return adoptManualSwitch(s, t, now)
		}

	case PendingHealth:
		switch t.Current {
		case s.Target:
			return s, t, "" // the trial runs
		case s.Previous:
			if t.Previous.IsZero() { // the watchdog rolled back by PointCurrent
				s, t = Revert(s, t, "its starts could not be recorded", now)
				return s, t, fmt.Sprintf("rolled back from %s: %s", s.Target, s.Reason)
			}
			if s.BootAttempts > 0 { // the trial had begun, and an operator changed the link
				s, t = Revert(s, t, fmt.Sprintf("an operator pointed current back to %s during the trial", t.Current), now)
				return s, t, s.Reason
			}
			target := s.Target
			s = abandon(s, notBegun, now)
			if s.Status == StagedManual {
				return s, t, fmt.Sprintf("applying %s was interrupted before the swap; apply it again", target)
			}
			return s, t, fmt.Sprintf("the upgrade to %s was interrupted before the swap; nothing was changed", target)
		case release.Version{}: // the swap is atomic, so the link or the directory was removed
			if t.Has(s.Target) {
				t.Current = s.Target
				return s, t, fmt.Sprintf("current was missing or dangling; it points to %s, which is on trial, again", s.Target)
			}
			s, t = Revert(s, t, t.whyAbsent(s.Target), now)
			return s, t, s.Reason
		case s.Replaces:
			if s.BootAttempts > 0 || !t.Has(s.Target) {
				return leftTrial(s, t, now)
			}
			// What current points to is on trial no more, so the swap is finished, not undone.
			t.Current, t.Previous = s.Target, s.Previous
			return s, t, fmt.Sprintf("finished the swap from %s to %s", s.Replaces, s.Target)
		default:
			return leftTrial(s, t, now)
		}

	case RolledBack:
		switch t.Current {
		case s.Target: // a crash interrupted Revert
			t.Current = t.fallback(s.Previous, s.Target)
			return s, t, fmt.Sprintf("finished the rollback from %s to %s", s.Target, t.Current)
		case release.Version{}:
			return repairCurrent(s, t, now)
		case s.Good:
			return s, withLastGood(t), ""
		default:
			return adoptManualSwitch(s, t, now)
		}
	}
	return adoptRoot(s, t, now)
}

// leftTrial ends a trial because current points to a third version.
func leftTrial(s State, t Tree, now time.Time) (State, Tree, string) {
	why := notBegun
	if s.BootAttempts > 0 {
		why = fmt.Sprintf("an operator pointed current to %s during the trial", t.Current)
	}
	return adoptManualSwitch(abandon(s, why, now), t, now)
}

// whyAbsent returns why v cannot be started, though it was installed.
func (t Tree) whyAbsent(v release.Version) string {
	if why, ok := t.Damaged[v]; ok {
		return fmt.Sprintf("%s cannot be started: %s", v, why)
	}
	return fmt.Sprintf("the directory of %s is missing", v)
}

// withLastGood repairs a missing or dangling last-good while the good version runs:
// systemd starts the watchdog through that link.
func withLastGood(t Tree) Tree {
	if t.LastGood.IsZero() && t.mayAdopt(t.Current) {
		t.LastGood = t.Current
	}
	return t
}

// adoptRoot returns a state for a root whose state.json was never written, or could not be
// read.
func adoptRoot(s State, t Tree, now time.Time) (State, Tree, string) {
	run := t.fallback(t.LastGood, release.Version{})
	if t.LastGood.IsZero() {
		run = t.fallback(t.Current, release.Version{})
	}
	if run.IsZero() {
		return s, t, "no version is installed"
	}
	if t.LastGood.IsZero() && !t.mayAdopt(run) {
		return s, t, fmt.Sprintf("state.json and last-good are unusable, and %s is not known to be healthy; the next start runs it if there is no other version", run)
	}
	note := ""
	if !t.Current.IsZero() && t.Current != run {
		note = fmt.Sprintf("state.json is unusable, and %s never proved healthy: rolling back to %s", t.Current, run)
	}
	t.Current = run
	if t.LastGood.IsZero() {
		t.LastGood = run
	}
	s.MaxBootAttempts = 0
	return atRest(s, Stable, run, now), t, note
}

// repairCurrent points a missing or dangling current to the best installed version.
func repairCurrent(s State, t Tree, now time.Time) (State, Tree, string) {
	run := t.fallback(s.Good, release.Version{})
	if run.IsZero() {
		return s, t, "no version is installed"
	}
	if run != s.Good && t.LastGood.IsZero() && !t.mayAdopt(run) {
		return s, t, fmt.Sprintf("current is missing or dangling, and %s is not known to be healthy; the next start runs it if there is no other version", run)
	}
	t.Current = run
	note := fmt.Sprintf("current was missing or dangling; it now points to %s", run)
	if from := t.DamagedCurrent; !from.IsZero() {
		note = fmt.Sprintf("rolled back from %s to %s: %s", from, run, t.whyAbsent(from))
		// The same version may be damaged again later, which is another event.
		id := entryID(fmt.Sprintf("damaged %s %d", from, now.Unix()), string(release.RolledBack))
		s.PendingReports = append(s.PendingReports[:len(s.PendingReports):len(s.PendingReports)], Entry{ID: id, Time: now,
			Event: &Event{Code: release.RolledBack, From: from, To: run, Message: note, Reason: t.whyAbsent(from)}})
	}
	if run == s.Good {
		if t.LastGood != run {
			t.LastGood = run
		}
		return s, t, note
	}
	if t.LastGood.IsZero() || t.LastGood == run {
		t.LastGood = run
		return atRest(s, Stable, run, now), t, note
	}
	s, t, _ = adoptManualSwitch(s, t, now)
	return s, t, note
}

// adoptManualSwitch puts the version to which an operator pointed current on trial,
// with the last good version as the previous one.
func adoptManualSwitch(s State, t Tree, now time.Time) (State, Tree, string) {
	back := t.firstOf(t.LastGood, s.Good)
	if (back.IsZero() || back == t.Current) && t.Current != t.LastGood && !t.mayAdopt(t.Current) {
		return s, t, fmt.Sprintf("current points to %s, which is not known to be healthy, and there is no other version to roll back to", t.Current)
	}
	if back.IsZero() || back == t.Current {
		t.LastGood = t.Current
		return atRest(s, Stable, t.Current, now), t, fmt.Sprintf("an operator pointed current to %s", t.Current)
	}
	note := fmt.Sprintf("an operator pointed current to %s; it is on trial, and %s is the version to roll back to", t.Current, back)
	trial := Trial{
		ID:          fmt.Sprintf("%s%s-%d", manualSwitch, t.Current, now.Unix()),
		Target:      t.Current,
		MaxAttempts: s.MaxBootAttempts,
	}
	from := s.Good
	s.Good = back
	s = beginTrial(s, trial, now) // no command requested it, so it is not reported as staged
	if s.byOperator() {
		s = s.reportRollback(from, now)
	}
	t.Previous = back
	return s, t, note
}
