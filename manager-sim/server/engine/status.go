package engine

import (
	"context"
	"slices"
	"time"

	"github.com/bilbycast/edge-agent/manager-sim/api"
	"github.com/bilbycast/edge-agent/manager-sim/rollout"
	"github.com/bilbycast/edge-agent/manager-sim/store"
	"github.com/bilbycast/edge-agent/release"
)

// StateOf derives the state of command c at now from the codes of its events, oldest
// first, and the version at which its node last authenticated. The acknowledgement,
// events and the authentication may each be missing; the others decide then. A command
// that has not ended within the time limit has failed (rollout.TimeLimit), until a
// later event reports its outcome.
func StateOf(c store.Command, codes []string, version string, now time.Time) (state api.UpgradeState, errorCode string) {
	state, errorCode = stateOf(c, codes, version)
	switch state {
	case api.Queued:
		if now.Sub(c.CreatedAt) >= store.CommandLife {
			return api.Failed, rollout.TimeLimit
		}
	case api.Sent, api.Staging, api.Staged, api.Proving:
		if now.Sub(c.SentAt) >= rollout.DefaultLimit {
			return api.Failed, rollout.TimeLimit
		}
	}
	return state, errorCode
}

func stateOf(c store.Command, codes []string, version string) (api.UpgradeState, string) {
	has := func(code release.Code) bool { return slices.Contains(codes, string(code)) }
	switch {
	case has(release.RolledBack):
		return api.RolledBack, string(release.RolledBack)
	case has(release.Completed):
		return api.Updated, ""
	case !c.AckedAt.IsZero() && !c.Success:
		return api.Failed, c.ErrorCode
	}
	for _, code := range slices.Backward(codes) {
		if release.Code(code).Severity() != release.Info {
			return api.Failed, code
		}
	}
	staged := has(release.Staged) || has(release.StagedManual) || (!c.AckedAt.IsZero() && c.Success)
	switch {
	case staged && version == c.Version && !has(release.Staged):
		return api.Updated, "" // it ran that version already, or the events arrive later
	case staged && version == c.Version:
		return api.Proving, ""
	case staged:
		return api.Staged, ""
	case has(release.Started):
		return api.Staging, ""
	case !c.SentAt.IsZero() && version == c.Version:
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
}

const (
	// maxMessage bounds a node's message, in bytes.
	maxMessage = 1000
	// maxCommands is how many commands are read to find the one that decides.
	maxCommands = 10
)

// Statuses derives the status of upgrades from the store.
type Statuses struct{ store *store.Store }

// OfNode returns the status of a node's last upgrade. A command that the node refused
// because another one was in progress does not decide it: the other command does.
func (s Statuses) OfNode(ctx context.Context, n store.Node) (Status, error) {
	cs, err := s.store.Commands(ctx, n.ID, maxCommands)
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

// OfCommand returns the status of one command of a node.
func (s Statuses) OfCommand(ctx context.Context, c store.Command, n store.Node) (Status, error) {
	st := Status{Command: c, Ended: c.AckedAt}
	outcomes, err := s.store.Outcomes(ctx, n.ID, c.ID)
	if err != nil {
		return st, err
	}
	codes := make([]string, len(outcomes))
	completed := c.AckedAt
	for i, o := range outcomes {
		codes[i] = o.Code
		if o.ReceivedAt.After(st.Ended) {
			st.Ended = o.ReceivedAt
		}
		if o.Code == string(release.Completed) {
			completed = o.ReceivedAt
		}
	}
	st.State, st.Code = StateOf(c, codes, n.Version, time.Now())
	if st.State == api.Updated && n.Version != c.Version && n.LastSeen.After(completed) {
		return s.changed(ctx, st, n, completed)
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
	}
	return st, nil
}

// changed returns the status of a node that was updated and has run another version
// since, with the message of the rollback if there was one.
func (s Statuses) changed(ctx context.Context, st Status, n store.Node, completed time.Time) (Status, error) {
	st.State = api.Changed
	rollbacks, err := s.store.Outcomes(ctx, n.ID, "")
	if err != nil {
		return st, err
	}
	for _, o := range rollbacks {
		if !o.ReceivedAt.Before(completed) {
			st.Message = o.Message
		}
	}
	return st, nil
}
