// Package rollout decides how a release goes to a group of nodes: in waves, each
// watched for a while before the next, and no further after a failure.
//
// It is pure. Step takes what is and what happened, and returns what is then
// and what is to be done; it reads no clock, and keeps nothing. Whoever runs it
// stores the state and the actions together, and so can be killed at any
// moment. A node is told at most once for each attempt: the id of its command
// derives from rollout, node and attempt.
//
// The statuses of a rollout, and what leads from one to another:
//
//	from      event                                         to
//	running   all of the wave that are online have ended    settling; waiting or completed after the last wave
//	running   failures reach the threshold                  paused
//	settling  the settle window is over                     running, with the next wave
//	settling  a node rolls back, or fails late              paused, if that reaches the threshold
//	settling  an offline node of the waves so far is back   running
//	waiting   an offline node is back                       running
//	any       Pause                                         paused
//	paused    Resume                                        running: the failures so far count no more
//	any       Retry, unless its life is over                running: failed nodes get another attempt
//	any       Skip                                          the same: the node counts no more
//	any       the rollout's life is over                    completed, once no node is at work; paused stays paused
//	any       Abort                                         aborted
//
// completed and aborted are final. "Any" is running, settling, waiting and
// paused. In paused no node is told anything; what nodes do is still taken down.
//
// The states of a node:
//
//	waiting     not its turn yet, or offline
//	commanded   told, and no outcome yet
//	updated     runs the version, and has kept it
//	failed      refused it, or gave no outcome within the limit (code "time_limit": an outcome that comes later still counts)
//	rolled_back rolled back to the previous version
//	skipped     by an operator
//	missed      offline until the rollout's life was over
package rollout

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"time"
)

// Status is where a rollout stands.
type Status string

// The statuses; see the package's table.
const (
	Running   Status = "running"
	Settling  Status = "settling"
	Waiting   Status = "waiting" // for nodes that are offline; all others have ended
	Paused    Status = "paused"
	Completed Status = "completed"
	Aborted   Status = "aborted"
)

// Final reports whether nothing can change any more.
func (s Status) Final() bool { return s == Completed || s == Aborted }

// NodeState is where a node stands in a rollout.
type NodeState string

// The states of a node; see the package's table.
const (
	NodeWaiting    NodeState = "waiting"
	NodeCommanded  NodeState = "commanded"
	NodeUpdated    NodeState = "updated"
	NodeFailed     NodeState = "failed"
	NodeRolledBack NodeState = "rolled_back"
	NodeSkipped    NodeState = "skipped"
	NodeMissed     NodeState = "missed"
)

// TimeLimit is the code of a node that gave no outcome within the limit.
const TimeLimit = "time_limit"

// Strategies.
const (
	Staged    = "staged"    // 10 %, 50 %, 100 %
	Immediate = "immediate" // all at once
)

// percent are the cumulative waves of a staged rollout.
var percent = []int{10, 50, 100}

// Defaults of Plan.
const (
	DefaultSettle    = 5 * time.Minute
	DefaultLimit     = time.Hour
	DefaultLife      = 7 * 24 * time.Hour
	DefaultThreshold = 1
)

// Plan is what an operator asks for. Zero values mean the defaults.
type Plan struct {
	ID       string `json:"id"`
	GroupID  string `json:"group_id"`
	Version  string `json:"version"`
	Channel  string `json:"channel"`
	Strategy string `json:"strategy"`
	// From is the version that most of the group ran before: where "roll back"
	// leads. It decides nothing.
	From string `json:"from,omitempty"`
	// By is the operator who scheduled it. It decides nothing.
	By string `json:"created_by,omitempty"`
	// Settle is between a wave and the next; Limit is what a node may take from
	// its command to an outcome; Life is what the whole may take.
	Settle time.Duration `json:"settle_ns"`
	Limit  time.Duration `json:"limit_ns"`
	Life   time.Duration `json:"life_ns"`
	// Threshold is how many failures pause it.
	Threshold int `json:"threshold"`
}

// Node is one node of a rollout.
type Node struct {
	ID    string    `json:"id"`
	State NodeState `json:"state"`
	// Online is not stored: whoever runs the rollout reports it again (Presence), with
	// each step. So a manager that starts again, and sees nobody at first, has
	// nothing to store.
	Online  bool      `json:"-"`
	Attempt int       `json:"attempt"`         // of the last command, from 1; 0: none yet
	Since   time.Time `json:"since,omitzero"`  // it was commanded
	Code    string    `json:"code,omitempty"`  // of a failure
	Known   bool      `json:"known,omitempty"` // the failure was seen by an operator who resumed
}

// failed reports whether n counts as a failure.
func (n Node) failed() bool { return n.State == NodeFailed || n.State == NodeRolledBack }

// Rollout is the state of one. It is a value: Step returns another.
type Rollout struct {
	Plan
	Status Status `json:"status"`
	// Reason is why it is paused, if an operator did that; PauseReason has the other cause.
	Reason string `json:"reason,omitempty"`
	// Nodes are in the order in which they are taken, and Waves are how many of
	// them are in the first wave, in the first two, and so on.
	Nodes       []Node    `json:"nodes"`
	Waves       []int     `json:"waves"`
	Wave        int       `json:"wave"` // index of the present one
	SettleUntil time.Time `json:"settle_until,omitzero"`
	CreatedAt   time.Time `json:"created_at"`
	EndedAt     time.Time `json:"ended_at,omitzero"`
}

// CommandID is the id of a node's command: the same for the same attempt,
// however often it is asked for.
func (r Rollout) CommandID(n Node) string {
	h := sha256.Sum256(fmt.Appendf(nil, "%q %q %d", r.ID, n.ID, n.Attempt))
	return hex.EncodeToString(h[:16])
}

// Count returns how many nodes are in the state.
func (r Rollout) Count(state NodeState) int {
	k := 0
	for _, n := range r.Nodes {
		if n.State == state {
			k++
		}
	}
	return k
}

// Waves splits n nodes: how many are taken by the end of each wave. A wave that
// would be empty is left out, so that a small group has fewer of them.
func Waves(n int, strategy string) []int {
	if strategy == Immediate {
		return []int{n}
	}
	var waves []int
	for _, p := range percent {
		if k := (n*p + 99) / 100; k > 0 && (len(waves) == 0 || k > waves[len(waves)-1]) {
			waves = append(waves, k)
		}
	}
	return waves
}

// New begins a rollout to these nodes, of which those in online are online.
// The order is frozen by a hash, so that it does not depend on names and is
// another one in each rollout.
func New(p Plan, nodes []string, online map[string]bool, now time.Time) (Rollout, []Action, error) {
	p.Settle, p.Limit = cmp.Or(p.Settle, DefaultSettle), cmp.Or(p.Limit, DefaultLimit)
	p.Life, p.Threshold = cmp.Or(p.Life, DefaultLife), cmp.Or(p.Threshold, DefaultThreshold)
	p.Strategy = cmp.Or(p.Strategy, Staged)
	switch {
	case p.ID == "" || p.Version == "":
		return Rollout{}, nil, errors.New("a rollout needs an id and a version")
	case p.Strategy != Staged && p.Strategy != Immediate:
		return Rollout{}, nil, fmt.Errorf("strategy %q is neither %q nor %q", p.Strategy, Staged, Immediate)
	case p.Settle < 0 || p.Limit < 0 || p.Life < 0 || p.Threshold < 0:
		return Rollout{}, nil, errors.New("settle, limit, life and threshold are not below zero")
	case len(nodes) == 0:
		return Rollout{}, nil, errors.New("no node is eligible")
	}
	r := Rollout{Plan: p, Status: Running, CreatedAt: now, Waves: Waves(len(nodes), p.Strategy)}
	for _, id := range nodes {
		r.Nodes = append(r.Nodes, Node{ID: id, State: NodeWaiting, Online: online[id]})
	}
	place := func(n Node) string {
		h := sha256.Sum256(fmt.Appendf(nil, "%q %q", p.ID, n.ID))
		return string(h[:])
	}
	slices.SortFunc(r.Nodes, func(a, b Node) int { return cmp.Compare(place(a), place(b)) })
	for i := 1; i < len(r.Nodes); i++ {
		if r.Nodes[i].ID == r.Nodes[i-1].ID {
			return Rollout{}, nil, fmt.Errorf("node %q is named twice", r.Nodes[i].ID)
		}
	}
	var acts []Action
	r.advance(now, &acts)
	return r, acts, nil
}
