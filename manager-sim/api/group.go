package api

import (
	"fmt"
	"strings"
	"time"

	"github.com/bilbycast/edge-agent/manager-sim/rollout"
)

// Group is a set of nodes that are upgraded together.
type Group struct {
	ID        string    `json:"id"`
	Name      string    `json:"name"`
	CreatedAt time.Time `json:"created_at"`
}

// GroupList is the list of groups, by name.
type GroupList struct {
	Groups []Group `json:"groups"`
}

// NewGroup is the body that adds a group.
type NewGroup struct {
	Name string `json:"name"`
}

// GroupDetail is a group with its nodes and its active rollout, if it has one.
type GroupDetail struct {
	Group
	Nodes    []Node         `json:"nodes"`
	Versions map[string]int `json:"versions"` // number of nodes by version
	Active   string         `json:"active_rollout,omitempty"`
}

// Membership is a node's group: body and answer of the call that changes it.
type Membership struct {
	GroupID string `json:"group_id"` // "": none
}

// RolloutRequest is the body of a group's upgrade.
type RolloutRequest struct {
	Version    string `json:"version"`
	Channel    string `json:"channel,omitempty"`     // default stable
	Strategy   string `json:"strategy,omitempty"`    // staged (the default) or immediate
	SettleSecs *int   `json:"settle_secs,omitempty"` // between two waves: 0 to 86400; default 300
	LimitSecs  int    `json:"limit_secs,omitempty"`  // from a command to its outcome: 60 to 86400; default 3600
	LifeSecs   int    `json:"life_secs,omitempty"`   // of the rollout, for offline nodes: 60 to 2592000; default 604800
	Threshold  int    `json:"threshold,omitempty"`   // failures that pause it: 1 to 100000; default 1
	DryRun     bool   `json:"dry_run,omitempty"`     // only report what it would do
	// AllowUnlisted requests a version even if the manager does not find it published.
	AllowUnlisted bool `json:"allow_unlisted,omitempty"`
	// Repair declares the version the repair of nodes whose own check fails; see NodeUpgrade.
	Repair bool   `json:"repair,omitempty"`
	Reason string `json:"reason,omitempty"` // kept in the audit trail
}

// RolloutPlan is what a rollout does, or would do. Percentages are of the eligible
// nodes.
type RolloutPlan struct {
	RolloutID string        `json:"rollout_id,omitempty"` // absent in a dry run
	Version   string        `json:"version"`
	Channel   string        `json:"channel"`
	Strategy  string        `json:"strategy"`
	NodeCount int           `json:"node_count"`
	Offline   int           `json:"offline"` // of them; upgraded when they reconnect
	Waves     [][]string    `json:"waves"`   // node ids
	LeftOut   []NodeLeftOut `json:"left_out"`
	// EstimatedSecs is the least time it takes: the settle windows between waves.
	EstimatedSecs int64 `json:"estimated_secs"`
}

// NodeLeftOut is a node of the group that a rollout does not upgrade.
type NodeLeftOut struct {
	NodeID string `json:"node_id"`
	Reason string `json:"reason"` // a sentence
}

// Rollout is a rollout of a release to a group.
type Rollout struct {
	ID       string `json:"id"`
	GroupID  string `json:"group_id"`
	Version  string `json:"version"`
	Channel  string `json:"channel"`
	Strategy string `json:"strategy"` // rollout.Staged or rollout.Immediate
	// From is the version that most of the group ran before.
	From      string        `json:"from,omitempty"`
	CreatedBy string        `json:"created_by,omitempty"`
	Acting    string        `json:"acting,omitempty"` // who started it, or resumed or retried it last
	Settle    time.Duration `json:"settle_ns"`        // between a wave and the next
	Limit     time.Duration `json:"limit_ns"`         // from a command to its outcome
	Life      time.Duration `json:"life_ns"`          // of the whole rollout
	Threshold int           `json:"threshold"`        // failures that pause it
	Repair    bool          `json:"repair,omitempty"` // see RolloutRequest
	// Manifests are the SHA-256 of the manifests that the rollout installs, by device type: of
	// the published ones at its start, or else of the first node that was updated.
	Manifests map[string]string `json:"manifests,omitempty"`

	Status rollout.Status `json:"status"`
	// Result describes how it ended: "completed", "aborted", or "ended: 9 nodes never came".
	Result string `json:"result,omitempty"`
	Reason string `json:"reason,omitempty"` // why it is paused
	// Broken is why it cannot continue; "": it can. It can always be aborted.
	Broken string `json:"broken,omitempty"`
	// Nodes are in the order of the waves. Waves are how many of them are in the
	// first wave, in the first two, and so on.
	Waves       []int         `json:"waves"`
	Wave        int           `json:"wave"` // index of the present one
	SettleUntil time.Time     `json:"settle_until,omitzero"`
	CreatedAt   time.Time     `json:"created_at"`
	EndedAt     time.Time     `json:"ended_at,omitzero"`
	Nodes       []RolloutNode `json:"nodes"`

	// WaitingFor are the nodes for which the present wave waits: they are offline, or cannot be
	// upgraded now.
	WaitingFor []WaitingFor `json:"waiting_for,omitempty"`

	GroupName string                    `json:"group_name"`
	Counts    map[rollout.NodeState]int `json:"counts"` // number of nodes by state
	Revision  int64                     `json:"revision"`
	// Decision is the revision of what a person decides on: the wave, the failures, the rules
	// and whether it is paused, and not the progress. Resume, retry and skip name it. It is
	// also the ETag of the rollout.
	Decision string `json:"decision,omitempty"`
}

// WaitingFor is a node for which a wave waits.
type WaitingFor struct {
	NodeID string `json:"node_id"`
	// Name is what else identifies it: "edge at 192.0.2.7", its device type and its last
	// address. A node reports no name.
	Name  string    `json:"name,omitempty"`
	Since time.Time `json:"since"` // when it was seen last
	// Reason is why the node gets no command although it is online; "": it is offline.
	Reason string `json:"reason,omitempty"`
}

// Text is the id of the node and, if it is known, the name.
func (w WaitingFor) Text() string {
	if w.Name == "" {
		return w.NodeID
	}
	return w.NodeID + " (" + w.Name + ")"
}

// WaitingText describes the nodes for which the present wave waits: "waiting for 1 offline
// node: a1b2 (edge at 192.0.2.7)"; "" if it waits for none. Nodes that are online follow, with
// their reasons.
func (r Rollout) WaitingText() string {
	var offline, online []string
	for _, w := range r.WaitingFor {
		if w.Reason == "" {
			offline = append(offline, w.Text())
		} else {
			online = append(online, w.Text()+": "+strings.TrimSuffix(w.Reason, "."))
		}
	}
	var parts []string
	for _, text := range []string{countNames("offline node", ", ", offline), countNames("online node", "; ", online)} {
		if text != "" {
			parts = append(parts, text)
		}
	}
	if len(parts) == 0 {
		return ""
	}
	return "waiting for " + strings.Join(parts, "; and for ")
}

// countNames lists the first names with their number: "2 offline nodes: a, b".
func countNames(what, separator string, names []string) string {
	const most = 5
	switch k := len(names); {
	case k == 0:
		return ""
	case k == 1:
		return "1 " + what + ": " + names[0]
	case k > most:
		return fmt.Sprintf("%d %ss: %s and %d more", k, what, strings.Join(names[:most], separator), k-most)
	default:
		return fmt.Sprintf("%d %ss: %s", k, what, strings.Join(names, separator))
	}
}

// RolloutNode is one node of a rollout.
type RolloutNode struct {
	ID      string            `json:"id"`
	State   rollout.NodeState `json:"state"`
	Attempt int               `json:"attempt"`           // number of the last command; 0: none yet
	Since   time.Time         `json:"since,omitzero"`    // of the last command
	Code    string            `json:"code,omitempty"`    // of a failure
	Known   bool              `json:"known,omitempty"`   // an operator resumed after this failure
	Message string            `json:"message,omitempty"` // the node's own, for Code
	Hold    *Hold             `json:"hold,omitempty"`    // what an unproven node waits for
	// Held is what became of the last command of a waiting node: held until the rollout resumes,
	// or withdrawn.
	Held string `json:"held,omitempty"`
}

// RolloutList is a page of rollouts.
type RolloutList struct {
	Rollouts []Rollout `json:"rollouts"`
	Next     string    `json:"next,omitempty"`
	// Unreadable is how many entries were left out because the manager cannot read them.
	Unreadable int `json:"unreadable,omitempty"`
}

// Acts of an operator on a rollout.
const (
	ActPause  = "pause"
	ActResume = "resume"
	ActRetry  = "retry"
	ActSkip   = "skip"
	ActAbort  = "abort"
)

// RolloutAct is the optional body of an act on a rollout.
type RolloutAct struct {
	NodeID string `json:"node_id,omitempty"` // of ActSkip
	Reason string `json:"reason,omitempty"`  // kept in the audit trail
	// Revision is the Decision of the rollout that the requester saw. ActResume, ActRetry and
	// ActSkip need it, here or in If-Match; ActPause and ActAbort ignore it.
	Revision string `json:"revision,omitempty"`
}
