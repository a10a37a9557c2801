package state

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"
	"time"

	"github.com/bilbycast/edge-agent/release"
)

// Tree lists the links and versions of an install root. A link that is missing, or
// that points to no version in versions/, is the zero Version.
type Tree struct {
	Current, Previous, LastGood release.Version
	Versions                    []release.Version // complete ones that can be started, newest first
	// Damaged are the versions that cannot be started, with the reason.
	Damaged map[release.Version]string
	// DamagedCurrent is the one of them that the link current points to.
	DamagedCurrent release.Version

	Running release.Version // version of this process; see Layout.RunningAs
	AtStart bool            // no version is running; see Layout.AtStart
}

// mayAdopt reports whether v, which never proved healthy, may become last-good where
// no version did. It may not while another version is running.
func (t Tree) mayAdopt(v release.Version) bool {
	return t.AtStart || v == t.Running || t.Running.IsZero() && v == t.Current
}

// Has reports whether v is complete on disk.
func (t Tree) Has(v release.Version) bool {
	for _, w := range t.Versions {
		if w == v {
			return true
		}
	}
	return false
}

// firstOf returns the first of vs that is on disk, or the zero Version.
func (t Tree) firstOf(vs ...release.Version) release.Version {
	for _, v := range vs {
		if !v.IsZero() && t.Has(v) {
			return v
		}
	}
	return release.Version{}
}

// fallback returns the best version to run where current cannot stay: want, else one
// that proved healthy, else any installed version other than not, else not.
func (t Tree) fallback(want, not release.Version) release.Version {
	if v := t.firstOf(want, t.LastGood, t.Previous); !v.IsZero() && v != not {
		return v
	}
	for _, v := range t.Versions {
		if v != not {
			return v
		}
	}
	return t.firstOf(not)
}

// previousFor returns what the link previous should point to while current runs and
// failed was rolled back: the newest version below current, else the newest other
// version, else failed, else current.
func (t Tree) previousFor(current, failed release.Version) release.Version {
	for _, v := range t.Versions {
		if v != failed && v.Compare(current) < 0 {
			return v
		}
	}
	for _, v := range t.Versions {
		if v != failed && v != current {
			return v
		}
	}
	if v := t.firstOf(failed); v != current && !v.IsZero() {
		return v
	}
	return current
}

// atRest returns the state without a trial: status, with good as the running
// version, and with the floor, the commands and the pending reports of s.
func atRest(s State, status Status, good release.Version, now time.Time) State {
	return State{
		Status: status, Good: good, MaxBootAttempts: s.MaxBootAttempts, Since: now,
		Floor: s.Floor, FloorSequence: s.FloorSequence,
		Commands: s.Commands, PendingReports: s.PendingReports,
	}
}

// Trial describes a staged release to Begin and Shelve.
type Trial struct {
	ID          string // unique; the events of a trial without a command derive their ids from it
	Target      release.Version
	MaxAttempts int // 0: the default
	CommandID   string
	Channel     string
	// RollbackFloor is the lowest version that may be installed once Target has proved
	// healthy. FloorSequence is the sequence of its manifest; 0: not known.
	RollbackFloor release.Version
	FloorSequence uint64
	// Repair is whether an operator declared Target the repair; Begin reports it.
	Repair bool
}

// asRepair completes the message of an event about a version that an operator declared the
// repair.
func asRepair(repair bool) string {
	if !repair {
		return ""
	}
	return "; an operator declared it the repair, so the running version's own check is not looked at"
}

// Begin puts a staged version on trial, and reports that it is staged. The state
// must be durable before a link changes: from then on a restart runs the trial.
func Begin(s State, tr Trial, now time.Time) State {
	n := beginTrial(s, tr, now)
	return n.report(now, Event{
		Code: release.Staged, From: s.Good, To: tr.Target, CommandID: tr.CommandID,
		Message: fmt.Sprintf("%s is staged; restarting into it", tr.Target) + asRepair(tr.Repair),
	})
}

// beginTrial is Begin without the report.
func beginTrial(s State, tr Trial, now time.Time) State {
	if tr.MaxAttempts < 1 || tr.MaxAttempts > MaxAttempts {
		tr.MaxAttempts = DefaultMaxAttempts
	}
	n := atRest(s, PendingHealth, s.Good, now)
	n.Target, n.Previous = tr.Target, s.Good
	if s.Status == PendingHealth {
		n.Replaces = s.Target
	}
	n.MaxBootAttempts, n.TrialID = tr.MaxAttempts, tr.ID
	n.CommandID, n.Channel = tr.CommandID, tr.Channel
	n.PendingFloor, n.PendingFloorSequence = tr.RollbackFloor, tr.FloorSequence
	return n
}

// CountStart counts one service start of the version on trial. If all its starts are
// used up, it rolls back instead. ended describes how the previous start ended; "":
// unknown. Without a trial it returns its arguments.
func CountStart(s State, t Tree, ended string, now time.Time) (State, Tree) {
	return NextStart(s, t, EachCounts(s, ended), now)
}

// EachCounts returns what the earlier starts amount to if each of them counts.
func EachCounts(s State, ended string) Past {
	return Past{Faults: s.BootAttempts, Over: s.BootAttempts >= s.MaxBootAttempts, Cause: ended}
}

// Past is what the earlier starts of the version on trial amount to.
type Past struct {
	Faults  int    // starts that count against it
	Over    bool   // the trial has failed
	Cause   string // how the last start ended; "": unknown, or it does not count
	Cleared bool   // the last start ran well for so long that the ones before it do not count
}

// NextStart begins a start of the version on trial, or rolls back if the trial is over.
// Without a trial it returns its arguments.
func NextStart(s State, t Tree, p Past, now time.Time) (State, Tree) {
	if s.Status != PendingHealth || t.Current != s.Target {
		return s, t
	}
	if p.Cleared {
		noted := s.failure()
		s.BootAttempts, s.FailedStarts = 1, nil
		s = NoteFailure(s, noted)
	}
	s = NoteFailure(s, p.Cause)
	if p.Over {
		return Revert(s, t, fmt.Sprintf("%s did not come up healthy in %s%s", s.Target, starts(p.Faults), s.lastCause()), now)
	}
	// What was noted about a start that does not count stays with no other start.
	s.FailedStarts = s.FailedStarts[:min(len(s.FailedStarts), p.Faults)]
	s.BootAttempts = p.Faults + 1
	return s, t
}

// Noted reports whether a cause was recorded for a failure of the present start.
func (s State) Noted() bool { return s.failure() != "" }

// failure returns the cause that was recorded for the present start, or "".
func (s State) failure() string {
	if n := s.BootAttempts; n >= 1 && n <= len(s.FailedStarts) {
		return s.FailedStarts[n-1]
	}
	return ""
}

// TakeBack takes back that the present start of the version on trial was counted: systemd
// did not make it, and not for a fault of the version.
func TakeBack(s State) State {
	if s.Status == PendingHealth && s.BootAttempts > 0 {
		s.BootAttempts--
		s.FailedStarts = s.FailedStarts[:min(len(s.FailedStarts), s.BootAttempts)]
	}
	return s
}

// NoteFailure records why the present start of the version on trial failed. It keeps
// an earlier cause of the same start: the version itself reports before systemd does.
func NoteFailure(s State, cause string) State {
	n := s.BootAttempts
	if s.Status != PendingHealth || n < 1 || n > MaxAttempts || cause == "" || s.Noted() {
		return s
	}
	s.FailedStarts = slices.Clone(s.FailedStarts)
	for len(s.FailedStarts) < n {
		s.FailedStarts = append(s.FailedStarts, "")
	}
	s.FailedStarts[n-1] = release.Foreign(cause, maxCause)
	return s
}

// lastCause returns why the last failed start failed, in parentheses, or "".
func (s State) lastCause() string {
	for i := len(s.FailedStarts) - 1; i >= 0; i-- {
		if s.FailedStarts[i] != "" {
			return fmt.Sprintf(" (start %d: %s)", i+1, s.FailedStarts[i])
		}
	}
	return ""
}

// Revert ends the trial: the previous version becomes current, and the rollback is
// reported with reason. A trial has one revert; what happens to the previous version
// afterwards is not undone. Without a trial it returns its arguments.
func Revert(s State, t Tree, reason string, now time.Time) (State, Tree) {
	return revert(s, t, release.RolledBack, reason, now)
}

// TakeBackSwap is Revert for a version that nothing started since the swap, which is not
// its fault. Once it was started, it returns its arguments.
func TakeBackSwap(s State, t Tree, reason string, now time.Time) (State, Tree) {
	if s.BootAttempts > 0 || t.Current != s.Target {
		return s, t
	}
	return revert(s, t, release.NotStarted, reason, now)
}

func revert(s State, t Tree, code release.Code, reason string, now time.Time) (State, Tree) {
	if s.Status != PendingHealth {
		return s, t
	}
	to := t.fallback(s.Previous, s.Target)
	n := atRest(s, RolledBack, to, now)
	n.Target, n.Previous, n.Reason = s.Target, to, reason
	n.BootAttempts, n.MaxBootAttempts = s.BootAttempts, s.MaxBootAttempts
	n.TrialID, n.CommandID, n.Channel = s.TrialID, s.CommandID, s.Channel
	n.FailedStarts, n.Replaces = s.FailedStarts, s.Replaces
	t.Current, t.Previous = to, t.previousFor(to, s.Target)
	return n.report(now, Event{
		Code: code, From: s.Target, To: to, CommandID: s.CommandID,
		Message: fmt.Sprintf("rolled back from %s to %s: %s", s.Target, to, reason),
		Reason:  reason, BootAttempts: s.BootAttempts, FailedStarts: s.FailedStarts,
	}), t
}

// Keep ends the trial of healthy, a version that proved healthy: it becomes last-good,
// its floor applies, and the upgrade is reported as completed. note, unless empty, is
// appended to the report's message. Without a trial of that version, as after an
// operator pointed current to another one, it returns its arguments.
func Keep(s State, t Tree, healthy release.Version, note string, now time.Time) (State, Tree) {
	return KeepCompleted(Complete(s, t, healthy, note, now), t, healthy, now)
}

// Complete reports the upgrade to healthy as completed. Its trial goes on, until
// KeepCompleted or a rollback ends it.
func Complete(s State, t Tree, healthy release.Version, note string, now time.Time) State {
	// An operator's rollback was reported when it began.
	if s.Status != PendingHealth || t.Current != s.Target || healthy != s.Target || s.byOperator() {
		return s
	}
	message := fmt.Sprintf("%s is healthy after %s", s.Target, starts(max(s.BootAttempts, 1)))
	if note != "" {
		message += "; " + note
	}
	return s.report(now, Event{
		Code: release.Completed, From: s.Previous, To: s.Target, CommandID: s.CommandID,
		Message:      message,
		BootAttempts: s.BootAttempts,
	})
}

// KeepCompleted is Keep after Complete, without a report.
func KeepCompleted(s State, t Tree, healthy release.Version, now time.Time) (State, Tree) {
	if s.Status != PendingHealth || t.Current != s.Target || healthy != s.Target {
		return s, t
	}
	t.LastGood = s.Target
	return atRest(s, Stable, s.Target, now).raiseFloor(s.PendingFloor, s.PendingFloorSequence), t
}

// Supersede reports that a newer version takes the place of the one on trial, which was not
// completed. It does not end the trial: Begin does.
func Supersede(s State, newer release.Version, now time.Time) State {
	if s.Status != PendingHealth || s.byOperator() {
		return s
	}
	return s.report(now, Event{
		Code: release.Superseded, From: s.Previous, To: s.Target, CommandID: s.CommandID,
		Message: fmt.Sprintf("%s takes the place of %s, whose link to the manager was not proven; rolling back returns to %s", newer, s.Target, s.Good),
	})
}

// notBegun is the reason of abandon for a trial that no start has begun.
const notBegun = "interrupted before the swap; nothing was changed"

// abandon ends a trial without a verdict, for the reason why: its links were never
// swapped, or an operator chose a third version. The release is not at fault.
// It drops the pending report that the version is staged. A version that an operator
// applied is staged_manual again.
func abandon(s State, why string, now time.Time) State {
	staged, ack := entryID(cmp.Or(s.CommandID, s.TrialID), string(release.Staged)), entryID(s.CommandID, "ack")
	if c, ok := s.Command(s.CommandID); ok && c.Status == stagedManual {
		n := atRest(s, StagedManual, s.Previous, now)
		n.Target, n.TrialID = s.Target, s.TrialID
		n.PendingReports = slices.DeleteFunc(slices.Clone(s.PendingReports), func(e Entry) bool { return e.ID == staged })
		n.CommandID, n.Channel = s.CommandID, s.Channel
		n.PendingFloor, n.PendingFloorSequence = s.PendingFloor, s.PendingFloorSequence
		return n
	}
	n := atRest(s, Stable, s.Previous, now)
	n.PendingReports = slices.DeleteFunc(slices.Clone(s.PendingReports), func(e Entry) bool { return e.ID == staged || e.ID == ack })
	n.TrialID = s.TrialID
	if s.CommandID != "" {
		n = n.fail(s.CommandID, release.Internal, why, now)
	} else {
		n = n.report(now, Event{Code: release.Internal, From: s.Previous, To: s.Target, Message: why, Reason: why})
	}
	n.TrialID = ""
	return n
}

// report adds an event of a command, or of a trial that no command began, to the
// pending reports.
func (s State) report(now time.Time, e Event) State { return s.reportAs(string(e.Code), now, e) }

// reportAs is report for an event that is not the only one of its code in its trial:
// what takes the place of the code in its id.
func (s State) reportAs(what string, now time.Time, e Event) State {
	id := e.CommandID
	if id == "" {
		id = s.TrialID
	}
	s.PendingReports = append(s.PendingReports[:len(s.PendingReports):len(s.PendingReports)], Entry{ID: entryID(id, what), Time: now, Event: &e})
	return s
}

// entryID returns the id of a report about a trial or a command. A repeated report
// has the same id. Ids of commands are foreign bytes, hence the hash.
func entryID(of, what string) string {
	sum := sha256.Sum256([]byte(of))
	return hex.EncodeToString(sum[:12]) + "." + what
}

// starts returns "1 start" or "K starts".
func starts(k int) string {
	if k == 1 {
		return "1 start"
	}
	return fmt.Sprintf("%d starts", k)
}
