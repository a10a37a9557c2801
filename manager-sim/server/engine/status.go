package engine

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"time"

	"github.com/bilbycast/edge-agent/manager-sim/api"
	"github.com/bilbycast/edge-agent/manager-sim/rollout"
	"github.com/bilbycast/edge-agent/manager-sim/store"
	"github.com/bilbycast/edge-agent/release"
)

// StateOf derives the state of command c from the codes of its events, oldest first, and
// from the version at which its node last authenticated and what that reported about its
// trial. The acknowledgement, events and the authentication may each be missing; the others
// decide then. Until the version has sent a health beat, it may be on trial. A command that has not ended within the time limit has failed
// (rollout.TimeLimit), until a later event reports its outcome; an unproven version has no
// limit. The limit of the command begins when it is sent, and again whenever the progress that
// the node reports changes. age returns how long a manager has run since a time.
func StateOf(c store.Command, codes []string, n store.Node, age func(since time.Time) time.Duration) (state api.UpgradeState, errorCode string) {
	state, errorCode = stateOf(c, codes, n)
	switch state {
	case api.Queued:
		if c.RolloutID == "" && age(c.CreatedAt) >= store.CommandLife { // a rollout has limits of its own
			return api.Failed, rollout.TimeLimit
		}
	case api.Sent, api.Staging, api.Staged, api.Proving:
		since := c.SentAt
		if n.ProgressAt.After(since) { // the node reported progress since
			since = n.ProgressAt
		}
		if !proceeds(c, n) && age(since) >= cmp.Or(c.Limit, rollout.DefaultLimit) {
			return api.Failed, rollout.TimeLimit
		}
	}
	return state, errorCode
}

// proceeds reports whether the node serves with the version of c, and waits for nothing that
// could fail within a time: it is under guard or unproven. A newer version may take its
// place.
func proceeds(c store.Command, n store.Node) bool {
	return n.Version == c.Version && (n.Trial == api.TrialGuard || n.Trial == api.TrialUnproven)
}

// stateOf is StateOf without limits. A command that was withdrawn is Withdrawn, unless its
// node has begun it all the same.
func stateOf(c store.Command, codes []string, n store.Node) (api.UpgradeState, string) {
	state, code := reportedState(c, codes, n)
	if c.State != store.CommandWithdrawn {
		return state, code
	}
	if over := c.Reason == store.ReasonLimit || c.Reason == store.ReasonLifetime; over && c.RolloutID == "" && !lateOutcome(c, codes, state) {
		return api.Failed, rollout.TimeLimit
	}
	obeyed := c.ErrorCode == string(release.Withdrawn) || slices.Contains(codes, string(release.Withdrawn))
	switch state {
	case api.Failed, api.Staging, api.Staged, api.Proving:
		if obeyed {
			return api.Withdrawn, string(release.Withdrawn)
		}
	case api.Queued, api.Sent:
		return api.Withdrawn, string(release.Withdrawn)
	case api.Updated: // the node runs the version, but perhaps not for this command
		if c.AckedAt.IsZero() && len(codes) == 0 {
			return api.Withdrawn, string(release.Withdrawn)
		}
	}
	return state, code
}

// lateOutcome reports whether a command that was withdrawn at its time limit has an outcome all
// the same. What the node obeys is none: the limit ended it.
func lateOutcome(c store.Command, codes []string, state api.UpgradeState) bool {
	withdrawn := c.ErrorCode == string(release.Withdrawn) || slices.Contains(codes, string(release.Withdrawn))
	reported := !c.AckedAt.IsZero() || len(codes) > 0 // otherwise the node runs the version, but perhaps not for this command
	return state.Ended() && reported && !(state == api.Failed && withdrawn)
}

func reportedState(c store.Command, codes []string, n store.Node) (api.UpgradeState, string) {
	has := func(code release.Code) bool { return slices.Contains(codes, string(code)) }
	switch {
	case has(release.RolledBack):
		return api.RolledBack, string(release.RolledBack)
	case has(release.Completed):
		return api.Updated, ""
	case has(release.Superseded):
		return api.Superseded, ""
	case !c.AckedAt.IsZero() && !c.Success:
		return api.Failed, c.ErrorCode
	}
	for _, code := range slices.Backward(codes) {
		if release.Code(code).Severity() != release.Info {
			return api.Failed, code
		}
	}
	staged := has(release.Staged) || has(release.StagedManual) || (!c.AckedAt.IsZero() && c.Success)
	runs := n.Version == c.Version
	reported := runs && !n.HealthAt.IsZero()
	onTrial := runs && (n.Trial == api.TrialOpen || n.Trial == api.TrialUnproven)
	switch {
	case staged && reported && !has(release.Staged) && !onTrial:
		return api.Updated, "" // it ran that version already, or the events arrive later
	case staged && runs, !c.SentAt.IsZero() && onTrial:
		return api.Proving, ""
	case staged:
		return api.Staged, ""
	case has(release.Started):
		return api.Staging, ""
	case !c.SentAt.IsZero() && reported:
		return api.Updated, "" // events were lost, but it runs the requested version
	case !c.SentAt.IsZero():
		return api.Sent, ""
	}
	return api.Queued, ""
}

// Status is how far a node's upgrade is.
type Status struct {
	Command store.Command // zero: the node never had one
	State   api.UpgradeState
	Code    string    // of a failure
	Message string    // the node's, for Code
	Ended   time.Time // of the last acknowledgement or event for the command; zero: none
	// Completed is when the node reported that it kept the version, or acknowledged it.
	Completed time.Time
	// Dependency is whether the version was rolled back, and probably a dependency is down.
	Dependency bool
	// Trial is what the node reports about the trial of the command's version; "" if it runs
	// another one.
	Trial string
	// Unreadable is why the node's open command cannot be read; "": it can. Of Command only
	// what store.Store.UnreadableOpen returns is known then.
	Unreadable string
	// Away is how long no manager ran since the command was sent, if it has not ended.
	Away time.Duration
}

// Busy reports whether the upgrade is in progress, so that the node gets no other one: it
// is waiting, staging, or on trial without a result.
func (s Status) Busy() bool {
	result := s.Trial == api.TrialGuard || s.Trial == api.TrialUnproven
	return !s.State.Ended() && !(s.State == api.Proving && result)
}

// otherTrial reports whether the node has a version on trial without a result that is not
// of this upgrade: the device itself began it, or the upgrade has ended for the manager.
func (s Status) otherTrial(n store.Node) bool {
	kept := s.State == api.Updated && s.Command.Version == n.Version // the node reported its trial before that
	return n.Trial == api.TrialOpen && !kept && !s.Busy()
}

// Unproven reports whether the version of the command runs, and is unproven.
func (s Status) Unproven() bool { return !s.State.Ended() && s.Trial == api.TrialUnproven }

const (
	// maxMessage bounds a node's message, in bytes.
	maxMessage = 1000
	// maxCommands is how many commands are read to find the one that decides.
	maxCommands = 10
)

// Statuses derives the status of upgrades from the store.
type Statuses struct {
	store *store.Store
	clock *Clock
}

// OfNode returns the status of a node's last upgrade. A command that the node refused
// because another one was in progress does not decide it: the other command does.
func (s Statuses) OfNode(ctx context.Context, n store.Node) (Status, error) {
	ctx, unreadable := store.CountUnreadable(ctx)
	cs, err := s.store.Commands(ctx, n.ID, maxCommands)
	if err == nil && *unreadable > 0 {
		if st, open, err := s.unreadableOpen(ctx, n); open || err != nil {
			return st, err
		}
	}
	if err != nil || len(cs) == 0 {
		return Status{State: api.Idle}, err
	}
	var newest Status
	for i, c := range cs {
		st, err := s.OfCommand(ctx, c, n)
		if err != nil {
			return st, err
		}
		if i == 0 {
			newest = st
		}
		switch {
		case st.State == api.Failed && st.Code == string(release.InProgress): // an older command was in progress
		case i > 0 && st.State.Ended() && !st.Ended.After(newest.Command.CreatedAt):
			return newest, nil // the refusal was about something else
		default:
			return st, nil
		}
	}
	return newest, nil
}

// unreadableOpen returns the status of a node of which an open command cannot be read, and
// whether there is one: the node may carry it out, so it gets no other one.
func (s Statuses) unreadableOpen(ctx context.Context, n store.Node) (Status, bool, error) {
	c, why, err := s.store.UnreadableOpen(ctx, n.ID)
	if errors.Is(err, store.ErrNotFound) {
		return Status{}, false, nil
	}
	if err != nil {
		return Status{}, false, err
	}
	st := Status{Command: c, State: api.Queued, Unreadable: why.Error()}
	if !c.SentAt.IsZero() {
		st.State = api.Sent
	}
	return st, true, nil
}

// OfCommand returns the status of one command of a node.
func (s Statuses) OfCommand(ctx context.Context, c store.Command, n store.Node) (Status, error) {
	st := Status{Command: c, Ended: c.AckedAt}
	outcomes, err := s.store.Outcomes(ctx, n.ID, c.ID)
	if err != nil {
		return st, err
	}
	codes := make([]string, len(outcomes))
	st.Completed = c.AckedAt
	for i, o := range outcomes {
		codes[i] = o.Code
		if o.ReceivedAt.After(st.Ended) {
			st.Ended = o.ReceivedAt
		}
		if o.Code == string(release.Completed) {
			st.Completed = o.ReceivedAt
		}
	}
	st.State, st.Code = StateOf(c, codes, n, s.clock.Age)
	if n.Version == c.Version {
		st.Trial = n.Trial
	}
	if !st.State.Ended() && !c.SentAt.IsZero() {
		st.Away = max(0, time.Since(c.SentAt)-s.clock.Age(c.SentAt))
	}
	if st.State == api.Updated && n.Version != c.Version && s.clock.After(n.LastSeen, st.Completed) {
		return s.changed(ctx, st, n)
	}
	if st.Code == "" {
		return st, nil
	}
	if st.Code == c.ErrorCode {
		st.Message = release.Foreign(c.Error, maxMessage)
	}
	for _, o := range outcomes {
		if o.Code == st.Code && o.Message != "" {
			st.Message = o.Message
		}
		if o.Code == string(release.RolledBack) {
			st.Dependency = o.Dependency
		}
	}
	return st, nil
}

// changed returns the status of a node that was updated and has run another version
// since, with the message of the rollback if there was one.
func (s Statuses) changed(ctx context.Context, st Status, n store.Node) (Status, error) {
	st.State = api.Changed
	rollbacks, err := s.store.Outcomes(ctx, n.ID, "")
	if err != nil {
		return st, err
	}
	for _, o := range rollbacks {
		if !o.ReceivedAt.Before(st.Completed) {
			st.Message = o.Message
		}
	}
	return st, nil
}
