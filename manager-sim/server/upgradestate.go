package server

import (
	"context"
	"slices"
	"time"

	"github.com/bilbycast/edge-agent/manager-sim/api"
	"github.com/bilbycast/edge-agent/manager-sim/rollout"
	"github.com/bilbycast/edge-agent/manager-sim/store"
	"github.com/bilbycast/edge-agent/release"
)

// StateOf derives the state of command c at now from the codes of its events,
// oldest first, and the version at which its node last authenticated. Any one of
// ack, events and authentication may be missing: each settles what it can. What
// has not ended within the time limit has failed (rollout.TimeLimit), until a
// later word says how it ended after all.
func StateOf(c store.Command, codes []string, version string, now time.Time) (state api.UpgradeState, errorCode string) {
	state, errorCode = stateOf(c, codes, version)
	switch state {
	case api.Queued:
		if now.Sub(c.CreatedAt) >= resendWithin {
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
		return api.Updated, "" // it ran that version already, or the events are still to come
	case staged && version == c.Version:
		return api.Proving, ""
	case staged:
		return api.Staged, ""
	case has(release.Started):
		return api.Staging, ""
	case !c.SentAt.IsZero() && version == c.Version:
		return api.Updated, "" // whatever was lost: it runs what was asked for
	case !c.SentAt.IsZero():
		return api.Sent, ""
	}
	return api.Queued, ""
}

// standing is where a node stands, by the command that decides.
type standing struct {
	command store.Command // zero: it never had one
	state   api.UpgradeState
	code    string    // of a failure
	message string    // of the node, to that code
	ended   time.Time // its last word on the command; zero: none
}

// maxShown bounds a node's message in a list, in bytes.
const maxShown = 1000

// maxDeciding bounds how many commands are looked at for the one that decides.
const maxDeciding = 10

// standing returns where a node stands. A command that the node refused because
// another one was in progress decides nothing: the other one does.
func (s *Server) standing(ctx context.Context, n store.Node) (standing, error) {
	cs, err := s.Store.Commands(ctx, n.ID, maxDeciding)
	if err != nil || len(cs) == 0 {
		return standing{state: api.Idle}, err
	}
	var newest standing
	for i, c := range cs {
		st, err := s.standingOf(ctx, c, n)
		if err != nil {
			return st, err
		}
		if i == 0 {
			newest = st
		}
		switch {
		case st.state == api.Failed && st.code == string(release.InProgress): // see what was in progress
		case i > 0 && st.state.Settled() && !st.ended.After(newest.command.CreatedAt):
			return newest, nil // the refusal was about something else
		default:
			return st, nil
		}
	}
	return newest, nil
}

// standingOf returns where a node stands with a command.
func (s *Server) standingOf(ctx context.Context, c store.Command, n store.Node) (standing, error) {
	st := standing{command: c, ended: c.AckedAt}
	outcomes, err := s.Store.Outcomes(ctx, n.ID, c.ID)
	if err != nil {
		return st, err
	}
	codes := make([]string, len(outcomes))
	completed := c.AckedAt
	for i, o := range outcomes {
		codes[i] = o.Code
		if o.ReceivedAt.After(st.ended) {
			st.ended = o.ReceivedAt
		}
		if o.Code == string(release.Completed) {
			completed = o.ReceivedAt
		}
	}
	st.state, st.code = StateOf(c, codes, n.Version, time.Now())
	if st.state == api.Updated && n.Version != c.Version && n.LastSeen.After(completed) {
		// It was updated, and somebody set the device to another version since.
		st.state = api.Changed
		changes, err := s.Store.Outcomes(ctx, n.ID, "")
		if err != nil {
			return st, err
		}
		for _, o := range changes {
			if !o.ReceivedAt.Before(completed) {
				st.message = o.Message
			}
		}
		return st, nil
	}
	if st.code == "" {
		return st, nil
	}
	if st.code == c.ErrorCode {
		st.message = release.Foreign(c.Error, maxShown)
	}
	for _, o := range outcomes {
		if o.Code == st.code && o.Message != "" {
			st.message = o.Message
		}
	}
	return st, nil
}
