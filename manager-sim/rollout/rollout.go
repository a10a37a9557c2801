// Package rollout decides how a release goes to a group of nodes: in waves, with a
// settle window between two waves, and no further once failures reach a threshold.
//
// The package is pure. Step gets a rollout and an event, and returns the next rollout
// and the actions to carry out. It reads no clock and keeps nothing. A caller that
// stores the rollout and its actions together can be killed at any moment. A node gets
// at most one command per attempt, because the id of the command derives from the
// rollout, the node and the attempt.
//
// The statuses of a rollout, and what leads from one to another:
//
//	from      event                                            to
//	running   every online node of the wave has an outcome     settling; after the last wave waiting or completed
//	running   failures reach the threshold                     paused
//	running   an unproven node reaches the time limit          paused, whatever the threshold
//	running   no upgrade is running, and a node rolled back    paused, whatever the threshold
//	          for what is probably a dependency
//	any       a node that kept the version rolls back,         paused, if failures reach the threshold
//	          vanishes, reports degraded, or runs another
//	          version again; or a node fails late, or runs
//	          another version when it was unproven at the limit
//	settling  the settle window has passed                     running, with the next wave
//	settling  an offline node of the waves so far reconnects   running
//	waiting   an offline node reconnects                       running
//	any       Pause                                            paused
//	any       Break, or a state that is not valid (Check)      paused
//	paused    Resume                                           running; the failures and unproven nodes so far no longer count
//	any       Retry, unless the lifetime is over               running; failed nodes get another attempt
//	any       Skip                                             unchanged; the node no longer counts
//	any       the lifetime is over                             completed, once no upgrade is running; paused stays paused
//	any       Abort                                            aborted
//
// completed and aborted are final. "Any" means running, settling, waiting and paused.
// While a rollout is paused no node gets a command, but outcomes are still recorded. After
// its end, too, outcomes of commands are recorded; nothing else changes.
//
// A command loses its reason by Pause, Abort, Skip, Retry, the time limit and the end of the
// lifetime. What a node has begun goes on, except at Retry. A pause holds a command that was
// never sent, and withdraws one that was sent where the node obeys that (see Hold and
// Recall); everything else withdraws it.
//
// No limit, settle window or lifetime runs while no manager ran, and none depends on the wall
// clock: see Uptime.
//
// The states of a node:
//
//	waiting     its wave has not begun, or it is offline or offers no upgrades, or its command was held or withdrawn before the node began
//	commanded   it has a command, and no outcome yet
//	unproven    its own check has held, and its link is not proven. The wave waits for it until the limit (code "time_limit"),
//	            and then pauses: it is neither updated nor failed. After a Resume the next wave goes on without it; a later
//	            outcome still counts
//	updated     it runs the version, and has proved healthy; or it ran it already when its turn came, and got no command
//	failed      it refused the command, or had no outcome within the limit (code "time_limit"; a later outcome still counts),
//	            or it kept the version and then fell: "node_vanished", "node_degraded", "node_other_version" or "node_other_manifest". It counts as
//	            updated again when that is over. An unproven node past the limit falls if it runs another version
//	rolled_back it rolled back to the previous version
//	dependency  it rolled back, and probably a dependency of the node is down: the check of the previous version failed as well.
//	            It is neither updated nor failed. Once no upgrade runs in the wave, the rollout pauses. After a Resume the
//	            next wave goes on without it; Retry tries it again
//	skipped     an operator left it out, it left the group ("moved", "removed"), another command took the place of the rollout's
//	            ("replaced"), an operator withdrew that ("withdrawn"), or a newer version took the place of the unproven one
//	missed      it was offline until the lifetime was over
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

// Status is the status of a rollout.
type Status string

// The statuses; see the package's table.
const (
	Running   Status = "running"
	Settling  Status = "settling"
	Waiting   Status = "waiting" // for offline nodes; all others have an outcome
	Paused    Status = "paused"
	Completed Status = "completed"
	Aborted   Status = "aborted"
)

// Final reports whether nothing can change any more.
func (s Status) Final() bool { return s == Completed || s == Aborted }

// NodeState is the state of a node in a rollout.
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
	NodeUnproven   NodeState = "unproven"
	NodeDependency NodeState = "dependency"
)

// TimeLimit is the code of a node that had no outcome within the limit.
const TimeLimit = "time_limit"

// Dependency is the code of a NodeDependency.
const Dependency = "dependency"

// Strategies.
const (
	Staged    = "staged"    // 10 %, 50 %, 100 %
	Immediate = "immediate" // all at once
)

// percent is how much of the group each wave of a staged rollout reaches.
var percent = []int{10, 50, 100}

// Defaults of Plan.
const (
	DefaultSettle    = 5 * time.Minute
	DefaultLimit     = time.Hour
	DefaultLife      = 7 * 24 * time.Hour
	DefaultThreshold = 1
)

// Plan is what an operator requests. Zero values mean the defaults.
type Plan struct {
	ID       string `json:"id"`
	GroupID  string `json:"group_id"`
	Version  string `json:"version"`
	Channel  string `json:"channel"`
	Strategy string `json:"strategy"`
	// From is the version that most of the group ran before, to which an operator can
	// roll back. It decides nothing.
	From string `json:"from,omitempty"`
	// By is the operator who scheduled it. It decides nothing.
	By string `json:"created_by,omitempty"`
	// Settle is the time between two waves. Limit is the time from a node's command to
	// its outcome. Life is the lifetime of the rollout.
	Settle time.Duration `json:"settle_ns"`
	Limit  time.Duration `json:"limit_ns"`
	Life   time.Duration `json:"life_ns"`
	// Threshold is how many failures pause the rollout.
	Threshold int `json:"threshold"`
	// Repair is whether the version is the repair of nodes whose own check fails. It
	// decides nothing.
	Repair bool `json:"repair,omitempty"`
	// Manifests are the SHA-256 of the version's manifests, by device type: what the nodes
	// must install. One that was not known at the start comes with Pin.
	Manifests map[string]string `json:"manifests,omitempty"`
}

// Node is one node of a rollout.
type Node struct {
	ID    string    `json:"id"`
	State NodeState `json:"state"`
	// Online is whether the node can be upgraded now. It is not stored. The caller sets it before
	// each Step, or reports it as Presence. So a manager that starts, and sees no node at first, stores nothing.
	Online  bool      `json:"-"`
	Attempt int       `json:"attempt"`        // number of the last command, from 1; 0: none yet
	Since   time.Time `json:"since,omitzero"` // of the last command
	// SinceUp is the uptime at Since; 0: not known.
	SinceUp time.Duration `json:"since_up_ns,omitempty"`
	Code    string        `json:"code,omitempty"`  // of a failure
	Known   bool          `json:"known,omitempty"` // an operator resumed after the failure
	// Degraded is whether its health was degraded already when it got the command. The
	// caller sets it with the command.
	Degraded bool `json:"degraded,omitempty"`
	// Hold is what became of the last command of a waiting node: Held, Recalled, or "" if it
	// is to get a new one.
	Hold string `json:"hold,omitempty"`
	// Group is the name of the group to which the node was moved, with the code Moved.
	Group string `json:"group,omitempty"`
	Facts `json:"-"`
}

// failed reports whether the node has failed or rolled back.
func (n Node) failed() bool { return n.State == NodeFailed || n.State == NodeRolledBack }

// fell reports whether the node is one that an operator decides about at a resume.
func (n Node) fell() bool { return n.failed() || n.overdue() || n.State == NodeDependency }

// running reports whether the wave waits for the node's outcome.
func (n Node) running() bool {
	return n.State == NodeCommanded || n.State == NodeUnproven && n.Code == ""
}

// overdue reports whether the node is unproven, and has reached the time limit.
func (n Node) overdue() bool { return n.State == NodeUnproven && n.Code == TimeLimit }

// Rollout is a rollout and its state. It is a value: Step returns another one.
type Rollout struct {
	Plan
	Status Status `json:"status"`
	// Acting is who started the rollout, or resumed it last: its commands are given with that
	// person's rights. It decides nothing here.
	Acting Person `json:"acting,omitzero"`
	// Reason is why an operator paused it. PauseReason adds the failures.
	Reason string `json:"reason,omitempty"`
	// Broken is why the rollout cannot continue; "": it can. See Break.
	Broken string `json:"broken,omitempty"`
	// Nodes are in the order of the waves. Waves are how many of them are in the first
	// wave, in the first two, and so on.
	Nodes       []Node    `json:"nodes"`
	Waves       []int     `json:"waves"`
	Wave        int       `json:"wave"` // index of the present one
	SettleUntil time.Time `json:"settle_until,omitzero"`
	CreatedAt   time.Time `json:"created_at"`
	EndedAt     time.Time `json:"ended_at,omitzero"`
	// SettleUp and CreatedUp are the uptimes at which the settle window and the rollout began;
	// 0: not known.
	SettleUp  time.Duration `json:"settle_up_ns,omitempty"`
	CreatedUp time.Duration `json:"created_up_ns,omitempty"`
	// Uptime is the present one. The caller sets it, as Outages.
	Uptime Uptime `json:"-"`
	// Outages are those of the manager since CreatedAt. They are not stored here; the caller
	// sets them, as Online. Settle, Limit and Life do not run in them.
	Outages Outages `json:"-"`
}

// CommandID returns the id of a node's command. It is the same for the same attempt.
func (r Rollout) CommandID(n Node) string {
	h := sha256.Sum256(fmt.Appendf(nil, "%q %q %d", r.ID, n.ID, n.Attempt))
	return hex.EncodeToString(h[:16])
}

// Count returns how many nodes are in a state.
func (r Rollout) Count(state NodeState) int {
	k := 0
	for _, n := range r.Nodes {
		if n.State == state {
			k++
		}
	}
	return k
}

// Waves returns how many of n nodes are upgraded by the end of each wave. Empty waves
// are left out, so that a small group has fewer waves.
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

// onlineFirst orders the nodes so that the first wave has as many online ones as possible,
// and that in each wave the online ones come first. The order is otherwise the same.
func (r *Rollout) onlineFirst() {
	offline := func(n Node) int {
		if n.Online {
			return 0
		}
		return 1
	}
	order := func(nodes []Node) {
		slices.SortStableFunc(nodes, func(a, b Node) int { return offline(a) - offline(b) })
	}
	var first, rest []Node
	for _, n := range r.Nodes {
		if n.Online && len(first) < r.Waves[0] {
			first = append(first, n)
		} else {
			rest = append(rest, n)
		}
	}
	r.Nodes = append(first, rest...)
	for i, end := range r.Waves {
		begin := 0
		if i > 0 {
			begin = r.Waves[i-1]
		}
		order(r.Nodes[begin:end])
	}
}

// New begins a rollout to the nodes, and returns the actions of its first wave. A hash
// fixes the order of the nodes: it does not depend on names, and differs between
// rollouts. But as many nodes of the first wave as possible are online, and in each wave
// the online ones come first.
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
		return Rollout{}, nil, errors.New("settle, limit, life and threshold must not be negative")
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
	r.onlineFirst()
	for i := 1; i < len(r.Nodes); i++ {
		if r.Nodes[i].ID == r.Nodes[i-1].ID {
			return Rollout{}, nil, fmt.Errorf("node %q is listed twice", r.Nodes[i].ID)
		}
	}
	var acts []Action
	r.advance(now, &acts)
	return r, acts, nil
}
