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

// Tree is what the install root holds. A link that is missing, or does not
// lead to a directory of versions/, is the zero Version.
type Tree struct {
	Current, Previous, LastGood release.Version
	Versions                    []release.Version // complete ones, newest first

	Running release.Version // of this process; see Layout.RunningAs
	AtStart bool            // nothing runs; see Layout.AtStart
}

// mayCallGood reports whether v, which never proved healthy, may become
// last-good for want of one that did: not while another version runs.
func (t Tree) mayCallGood(v release.Version) bool {
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

// first returns the first version that is on disk.
func (t Tree) first(vs ...release.Version) release.Version {
	for _, v := range vs {
		if !v.IsZero() && t.Has(v) {
			return v
		}
	}
	return release.Version{}
}

// fallback is the best version to run when current is dangling or must be
// left: want, or else what proved healthy, or else anything there is but not.
func (t Tree) fallback(want, not release.Version) release.Version {
	if v := t.first(want, t.LastGood, t.Previous); !v.IsZero() && v != not {
		return v
	}
	for _, v := range t.Versions {
		if v != not {
			return v
		}
	}
	return t.first(not)
}

// beside is what previous points to while current runs and failed was rolled
// back: the newest version below current, or else the newest other one; failed
// only if there is no other, and current if there is none at all.
func (t Tree) beside(current, failed release.Version) release.Version {
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
	if v := t.first(failed); v != current && !v.IsZero() {
		return v
	}
	return current
}

// settle returns s at rest in status with good as the version that runs.
func settle(s State, status Status, good release.Version, now time.Time) State {
	return State{
		Status: status, Good: good, MaxBootAttempts: s.MaxBootAttempts, Since: now,
		Floor: s.Floor, FloorSequence: s.FloorSequence,
		Commands: s.Commands, Owed: s.Owed,
	}
}

// Trial is what Begin needs to know of a staged release.
type Trial struct {
	ID          string // unique; names the events of a trial without a command
	Target      release.Version
	MaxAttempts int // 0: the default
	CommandID   string
	Channel     string
	// RollbackFloor is the lowest version to go back to once Target is healthy,
	// and FloorSequence the sequence of that version's manifest; 0: not known.
	RollbackFloor release.Version
	FloorSequence uint64
}

// Begin puts a staged version on trial. The caller makes it durable before it
// touches a link: from then on a restart runs the trial.
func Begin(s State, tr Trial, now time.Time) State {
	n := beginTrial(s, tr, now)
	return n.owe(now, Event{
		Code: release.Staged, From: s.Good, To: tr.Target, CommandID: tr.CommandID,
		Message: fmt.Sprintf("%s is staged; restarting into it", tr.Target),
	})
}

// beginTrial is Begin without an event.
func beginTrial(s State, tr Trial, now time.Time) State {
	if tr.MaxAttempts < 1 || tr.MaxAttempts > MaxAttempts {
		tr.MaxAttempts = DefaultMaxAttempts
	}
	n := settle(s, PendingHealth, s.Good, now)
	n.Target, n.Previous = tr.Target, s.Good
	n.MaxBootAttempts, n.TrialID = tr.MaxAttempts, tr.ID
	n.CommandID, n.Channel = tr.CommandID, tr.Channel
	n.PendingFloor, n.PendingFloorSequence = tr.RollbackFloor, tr.FloorSequence
	return n
}

// CountStart counts one service start of the version on trial, or, when the
// configured starts are used up, rolls back in this same start. ended says how
// the start before this one ended, if the caller knows.
func CountStart(s State, t Tree, ended string, now time.Time) (State, Tree) {
	if s.Status != PendingHealth || t.Current != s.Target {
		return s, t
	}
	s = NoteFailure(s, ended)
	if s.BootAttempts >= s.MaxBootAttempts {
		return Revert(s, t, fmt.Sprintf("%s did not come up healthy in %d starts%s", s.Target, s.BootAttempts, s.lastCause()), now)
	}
	s.BootAttempts++
	return s, t
}

// NoteFailure records why the present start of the version on trial failed. The
// first cause of a start stays: the version itself reports before systemd does.
func NoteFailure(s State, cause string) State {
	n := s.BootAttempts
	if s.Status != PendingHealth || n < 1 || n > MaxAttempts || cause == "" || len(s.FailedStarts) >= n && s.FailedStarts[n-1] != "" {
		return s
	}
	s.FailedStarts = slices.Clone(s.FailedStarts)
	for len(s.FailedStarts) < n {
		s.FailedStarts = append(s.FailedStarts, "")
	}
	s.FailedStarts[n-1] = release.Foreign(cause, maxCause)
	return s
}

// lastCause ends a sentence with why the last start failed, if that is known.
func (s State) lastCause() string {
	for i := len(s.FailedStarts) - 1; i >= 0; i-- {
		if s.FailedStarts[i] != "" {
			return fmt.Sprintf(" (start %d: %s)", i+1, s.FailedStarts[i])
		}
	}
	return ""
}

// Revert ends a trial by going back. There is one revert in a trial: what
// happens to the old version afterwards is not this package's to undo.
func Revert(s State, t Tree, reason string, now time.Time) (State, Tree) {
	if s.Status != PendingHealth {
		return s, t
	}
	to := t.fallback(s.Previous, s.Target)
	n := settle(s, RolledBack, to, now)
	n.Target, n.Previous, n.Reason = s.Target, to, reason
	n.BootAttempts, n.MaxBootAttempts = s.BootAttempts, s.MaxBootAttempts
	n.TrialID, n.CommandID, n.Channel = s.TrialID, s.CommandID, s.Channel
	n.FailedStarts = s.FailedStarts
	t.Current, t.Previous = to, t.beside(to, s.Target)
	return n.owe(now, Event{
		Code: release.RolledBack, From: s.Target, To: to, CommandID: s.CommandID,
		Message: fmt.Sprintf("rolled back from %s to %s: %s", s.Target, to, reason),
		Reason:  reason, BootAttempts: s.BootAttempts, FailedStarts: s.FailedStarts,
	}), t
}

// Keep ends a trial whose version proved healthy.
// note, if any, is added to what is told.
func Keep(s State, t Tree, note string, now time.Time) (State, Tree) {
	if s.Status != PendingHealth || t.Current != s.Target {
		return s, t
	}
	n := settle(s, Stable, s.Target, now)
	n = n.raiseFloor(s.PendingFloor, s.PendingFloorSequence)
	n.TrialID = s.TrialID
	message := fmt.Sprintf("%s is healthy after %s", s.Target, starts(max(s.BootAttempts, 1)))
	if note != "" {
		message += "; " + note
	}
	if !s.byOperator() { // a rollback was reported as one, and completes nothing
		n = n.owe(now, Event{
			Code: release.Completed, From: s.Previous, To: s.Target, CommandID: s.CommandID,
			Message:      message,
			BootAttempts: s.BootAttempts,
		})
	}
	n.TrialID = ""
	t.LastGood = s.Target
	return n, t
}

// abandon ends a trial that never began: the links were not swapped. It is not
// the release's fault, and the pending report "staged" is dropped.
//
// One that an operator applied waits for the operator again.
func abandon(s State, now time.Time) State {
	staged, ack := entryID(cmp.Or(s.CommandID, s.TrialID), string(release.Staged)), entryID(s.CommandID, "ack")
	if c, ok := s.Command(s.CommandID); ok && c.Status == stagedManual {
		n := settle(s, StagedManual, s.Previous, now)
		n.Target, n.TrialID = s.Target, s.TrialID
		n.Owed = slices.DeleteFunc(slices.Clone(s.Owed), func(e Entry) bool { return e.ID == staged })
		n.CommandID, n.Channel = s.CommandID, s.Channel
		n.PendingFloor, n.PendingFloorSequence = s.PendingFloor, s.PendingFloorSequence
		return n
	}
	n := settle(s, Stable, s.Previous, now)
	n.Owed = slices.DeleteFunc(slices.Clone(s.Owed), func(e Entry) bool { return e.ID == staged || e.ID == ack })
	n.TrialID = s.TrialID
	const why = "interrupted before the swap; nothing was changed"
	if s.CommandID != "" {
		n = n.fail(s.CommandID, release.Internal, why, now)
	} else {
		n = n.owe(now, Event{Code: release.Internal, From: s.Previous, To: s.Target, Message: why, Reason: why})
	}
	n.TrialID = ""
	return n
}

// owe adds an event, of a command or of a trial that no command began, to what
// must be told.
func (s State) owe(now time.Time, e Event) State { return s.oweAs(string(e.Code), now, e) }

// oweAs is owe for an event that is not the only one of its code in its trial.
func (s State) oweAs(what string, now time.Time, e Event) State {
	id := e.CommandID
	if id == "" {
		id = s.TrialID
	}
	s.Owed = append(s.Owed[:len(s.Owed):len(s.Owed)], Entry{ID: entryID(id, what), Time: now, Event: &e})
	return s
}

// entryID names what is told of a trial or command: the same thing told again
// has the same id. Ids of commands are foreign bytes, hence the hash.
func entryID(of, what string) string {
	sum := sha256.Sum256([]byte(of))
	return hex.EncodeToString(sum[:12]) + "." + what
}

// starts counts starts in words.
func starts(k int) string {
	if k == 1 {
		return "1 start"
	}
	return fmt.Sprintf("%d starts", k)
}
