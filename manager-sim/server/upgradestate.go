package server

import (
	"slices"
	"time"

	"github.com/bilbycast/edge-agent/manager-sim/rollout"
	"github.com/bilbycast/edge-agent/manager-sim/store"
	"github.com/bilbycast/edge-agent/release"
)

// UpgradeState is where a node's last upgrade stands, in an operator's words.
type UpgradeState string

// The states, in the order in which an upgrade that goes well meets them.
const (
	Idle       UpgradeState = "idle"
	Queued     UpgradeState = "queued"  // not sent: the node is offline
	Sent       UpgradeState = "sent"    // and not a word yet
	Staging    UpgradeState = "staging" // the node took the command
	Staged     UpgradeState = "staged"  // it is about to restart, or has not come back
	Proving    UpgradeState = "proving" // the new version has authenticated
	Updated    UpgradeState = "updated" // and has proved healthy
	Failed     UpgradeState = "failed"  // the release was refused
	RolledBack UpgradeState = "rolled_back"
)

// StateOf derives the state of command c at now from the codes of its events,
// oldest first, and the version at which its node last authenticated. Any one of
// ack, events and authentication may be missing: each settles what it can. What
// has not ended within the time limit has failed (rollout.TimeLimit), until a
// later word says how it ended after all.
func StateOf(c store.Command, codes []string, version string, now time.Time) (state UpgradeState, errorCode string) {
	state, errorCode = stateOf(c, codes, version)
	switch state {
	case Queued:
		if now.Sub(c.CreatedAt) >= resendWithin {
			return Failed, rollout.TimeLimit
		}
	case Sent, Staging, Staged, Proving:
		if now.Sub(c.SentAt) >= rollout.DefaultLimit {
			return Failed, rollout.TimeLimit
		}
	}
	return state, errorCode
}

func stateOf(c store.Command, codes []string, version string) (UpgradeState, string) {
	has := func(code release.Code) bool { return slices.Contains(codes, string(code)) }
	switch {
	case has(release.RolledBack):
		return RolledBack, string(release.RolledBack)
	case has(release.Completed):
		return Updated, ""
	case !c.AckedAt.IsZero() && !c.Success:
		return Failed, c.ErrorCode
	}
	for _, code := range slices.Backward(codes) {
		if release.Code(code).Severity() != release.Info {
			return Failed, code
		}
	}
	staged := has(release.Staged) || has(release.StagedManual) || (!c.AckedAt.IsZero() && c.Success)
	switch {
	case staged && version == c.Version && !has(release.Staged):
		return Updated, "" // it ran that version already, or the events are still to come
	case staged && version == c.Version:
		return Proving, ""
	case staged:
		return Staged, ""
	case has(release.Started):
		return Staging, ""
	case !c.SentAt.IsZero() && version == c.Version:
		return Updated, "" // whatever was lost: it runs what was asked for
	case !c.SentAt.IsZero():
		return Sent, ""
	}
	return Queued, ""
}
