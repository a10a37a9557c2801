package state

import (
	"fmt"
	"strings"
	"time"

	"github.com/bilbycast/edge-agent/release"
)

// Shelve records a staged version that an operator has to apply, and reports it. The
// running version stays.
func Shelve(s State, tr Trial, now time.Time) State {
	n := atRest(s, StagedManual, s.Good, now)
	n.Target, n.TrialID, n.MaxBootAttempts = tr.Target, tr.ID, tr.MaxAttempts
	n.CommandID, n.Channel = tr.CommandID, tr.Channel
	n.PendingFloor, n.PendingFloorSequence = tr.RollbackFloor, tr.FloorSequence
	return n.report(now, Event{
		Code: release.StagedManual, From: s.Good, To: tr.Target, CommandID: tr.CommandID,
		Message: fmt.Sprintf("%s is staged; an operator applies it on the node: edge-agent apply", tr.Target),
	})
}

// Apply puts the version that Shelve recorded on trial. The error says that there is
// none.
func Apply(s State, t Tree, now time.Time) (State, Tree, error) { return apply(s, t, false, now) }

// ApplyRepair is Apply for a version that an operator declared the repair.
func ApplyRepair(s State, t Tree, now time.Time) (State, Tree, error) { return apply(s, t, true, now) }

func apply(s State, t Tree, repair bool, now time.Time) (State, Tree, error) {
	if s.Status != StagedManual {
		return s, t, fmt.Errorf("no version waits to be applied (status %s)", s.Status)
	}
	s = Begin(s, Trial{
		ID: s.TrialID, Target: s.Target, MaxAttempts: s.MaxBootAttempts,
		CommandID: s.CommandID, Channel: s.Channel, RollbackFloor: s.PendingFloor, FloorSequence: s.PendingFloorSequence, Repair: repair,
	}, now)
	t.Previous, t.Current = s.Previous, s.Target
	return s, t, nil
}

// RollBack is a rollback that an operator requests. It ends a trial at once, unless no
// other version can be started. Without
// a trial it puts the installed version to on trial, with the running one as the
// previous; the zero Version stands for the link previous. The error lists the
// installed versions.
//
// The rollback is reported at once. Its trial then reports no completion.
func RollBack(s State, t Tree, to release.Version, now time.Time) (State, Tree, error) {
	if s.Status == PendingHealth {
		if !to.IsZero() && to != s.Previous {
			return s, t, fmt.Errorf("%s is on trial, and rolling back returns to %s; run rollback without a version first", s.Target, s.Previous)
		}
		if t.fallback(s.Previous, s.Target) == s.Target {
			return s, t, fmt.Errorf("%s is on trial, and no other version can be started (%s); restore its files from the release, and try again", s.Target, t.whyAbsent(s.Previous))
		}
		s, t = Revert(s, t, "an operator rolled back", now)
		return s, t, nil
	}
	refuse := func(format string, args ...any) (State, Tree, error) {
		return s, t, fmt.Errorf(format+"; installed: %s", append(args, t.installed(s))...)
	}
	switch {
	case to.IsZero() && s.Status == RolledBack && t.Previous == s.Target:
		return refuse("%s, the previous version, was rolled back: %s; to try it again, name it: rollback %s", s.Target, s.Reason, s.Target)
	case to.IsZero() && (t.Previous.IsZero() || t.Previous == t.Current):
		return refuse("there is no previous version to roll back to")
	case to.IsZero():
		to = t.Previous
	case to == t.Current:
		return refuse("%s is the current version already", to)
	case !t.Has(to):
		return refuse("%s is not installed", to)
	}
	if err := (release.Policy{Floor: s.Floor}).CheckFloor(to); err != nil {
		return refuse("%w", err)
	}
	from := s.Good
	s = beginTrial(s, Trial{
		ID: fmt.Sprintf("%s%s-%s-%d", operatorRollback, t.Current, to, now.UnixMilli()), Target: to, MaxAttempts: s.MaxBootAttempts,
	}, now)
	t.Previous, t.Current = s.Previous, to
	return s.reportRollback(from, now), t, nil
}

// reportRollback reports an operator's rollback, whose trial begins.
func (s State) reportRollback(from release.Version, now time.Time) State {
	const why = "an operator rolled back"
	return s.reportAs("operator_rollback", now, Event{
		Code: release.RolledBack, From: from, To: s.Target, Reason: why,
		Message: fmt.Sprintf("rolling back from %s to %s: %s", from, s.Target, why),
	})
}

// Prefixes of the ids of trials that no command began: operatorRollback of those that
// RollBack began, manualSwitch of those that began because an operator changed the
// link.
const (
	operatorRollback = "rollback-"
	manualSwitch     = "hand-"
)

// byOperator reports whether the trial is a rollback by an operator, with RollBack or
// by changing the link.
func (s State) byOperator() bool {
	return s.CommandID == "" && (strings.HasPrefix(s.TrialID, operatorRollback) ||
		strings.HasPrefix(s.TrialID, manualSwitch) && s.Target.Compare(s.Previous) < 0)
}

// installed lists the versions on disk, for an error message.
func (t Tree) installed(s State) string {
	var names []string
	for _, v := range t.Versions {
		name := v.String()
		switch {
		case v == t.Current:
			name += " (current)"
		case v == t.Previous:
			name += " (previous)"
		case s.Status == RolledBack && v == s.Target:
			name += " (rolled back)"
		}
		names = append(names, name)
	}
	if names == nil {
		return "none"
	}
	return strings.Join(names, ", ")
}
