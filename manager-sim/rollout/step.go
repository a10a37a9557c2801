package rollout

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// Event is something that happened: one of the types of this package with that method.
type Event interface{ event() }

// Tick reports that time has passed. NextTick returns when the next one matters.
type Tick struct{}

// Outcome is the outcome of a node's command. A repeated one, or one of an earlier
// attempt, changes nothing.
type Outcome struct {
	NodeID  string
	Attempt int
	State   NodeState // NodeUpdated, NodeFailed or NodeRolledBack
	Code    string    // of a failure
}

// Presence reports that a node connected or disconnected.
type Presence struct {
	NodeID string
	Online bool
}

// Acts of an operator. Each may come at any time, and repeatedly.
type (
	Pause  struct{ Reason string }
	Resume struct{}
	Retry  struct{}                // all nodes that failed
	Skip   struct{ NodeID string } // leave out a node
	Abort  struct{}
)

func (Tick) event()     {}
func (Outcome) event()  {}
func (Presence) event() {}
func (Pause) event()    {}
func (Resume) event()   {}
func (Retry) event()    {}
func (Skip) event()     {}
func (Abort) event()    {}

// Errors of an operator's act that the rollout does not allow now. Nothing changes.
var (
	ErrFinal      = errors.New("the rollout has ended")
	ErrNotPaused  = errors.New("the rollout is not paused")
	ErrNoFailure  = errors.New("no node has failed")
	ErrOver       = errors.New("the rollout's lifetime is over; resume or abort it, and begin another one")
	ErrNoSuchNode = errors.New("the node is not in the rollout, or has been updated")
)

// Action is to be carried out once the new state is stored: a Command or a Note.
type Action interface{ action() }

// Command is the command to a node to upgrade.
type Command struct{ NodeID, CommandID string }

// Note is an entry for the audit trail.
type Note struct {
	Action  string
	Wave    int // from 1
	Failed  int // nodes that failed or rolled back, so far
	Updated int
}

func (Command) action() {}
func (Note) action()    {}

// Actions of a Note.
const (
	NotePaused   = "group.upgrade.paused"
	NoteComplete = "group.upgrade.complete"
)

// Step returns the rollout after an event at now, and the actions. It does not change
// r. Only an act of an operator can return an error.
func Step(r Rollout, e Event, now time.Time) (Rollout, []Action, error) {
	operator := false
	switch e.(type) {
	case Pause, Resume, Retry, Skip, Abort:
		operator = true
	}
	if r.Status.Final() {
		if operator {
			return r, nil, ErrFinal
		}
		return r, nil, nil
	}
	before := r
	r.Nodes = slices.Clone(r.Nodes)
	var acts []Action
	if err := r.apply(e, now, &acts); err != nil {
		return before, nil, err
	}
	r.expireNodes(now)
	r.advance(now, &acts)
	return r, acts, nil
}

// apply applies an event to the state. advance decides what follows from it.
func (r *Rollout) apply(e Event, now time.Time, acts *[]Action) error {
	switch e := e.(type) {
	case Outcome:
		if i := r.index(e.NodeID); i >= 0 {
			r.Nodes[i].recordOutcome(e)
		}
	case Presence:
		if i := r.index(e.NodeID); i >= 0 {
			r.Nodes[i].Online = e.Online
		}
	case Pause:
		if r.Status != Paused {
			r.pause(e.Reason, acts)
		}
	case Resume:
		if r.Status != Paused {
			return ErrNotPaused
		}
		for i := range r.Nodes {
			r.Nodes[i].Known = r.Nodes[i].failed()
		}
		r.run()
	case Retry:
		if r.over(now) {
			return ErrOver // no node would get a command, and the failures would be forgotten
		}
		k := 0
		for i := range r.Nodes {
			if n := &r.Nodes[i]; n.failed() {
				n.State, n.Code, n.Known = NodeWaiting, "", false
				k++
			}
		}
		if k == 0 {
			return ErrNoFailure
		}
		r.run()
	case Skip:
		i := r.index(e.NodeID)
		if i < 0 || r.Nodes[i].State == NodeUpdated {
			return ErrNoSuchNode
		}
		r.Nodes[i].State, r.Nodes[i].Code = NodeSkipped, ""
	case Abort:
		r.Status, r.Reason, r.EndedAt, r.SettleUntil = Aborted, "", now, time.Time{}
	}
	return nil
}

// recordOutcome records the outcome of a node, unless it is of an earlier attempt.
func (n *Node) recordOutcome(e Outcome) {
	if e.Attempt != n.Attempt {
		return
	}
	late := n.State == NodeFailed && n.Code == TimeLimit
	switch e.State {
	case NodeUpdated:
		if n.State == NodeCommanded || late {
			n.State, n.Code, n.Known = NodeUpdated, "", false
		}
	case NodeFailed:
		if n.State == NodeCommanded || late && e.Code != TimeLimit {
			n.State, n.Code = NodeFailed, e.Code
		}
	case NodeRolledBack:
		if n.State == NodeCommanded || n.State == NodeUpdated || late {
			n.State, n.Code = NodeRolledBack, e.Code
		}
	}
}

func (r *Rollout) index(id string) int {
	return slices.IndexFunc(r.Nodes, func(n Node) bool { return n.ID == id })
}

func (r *Rollout) run() { r.Status, r.Reason, r.SettleUntil = Running, "", time.Time{} }

func (r *Rollout) pause(reason string, acts *[]Action) {
	r.Status, r.Reason, r.SettleUntil = Paused, reason, time.Time{}
	*acts = append(*acts, Note{NotePaused, r.Wave + 1, r.Count(NodeFailed) + r.Count(NodeRolledBack), r.Count(NodeUpdated)})
}

// expireNodes fails the nodes that have reached the time limit.
func (r *Rollout) expireNodes(now time.Time) {
	for i := range r.Nodes {
		if n := &r.Nodes[i]; n.State == NodeCommanded && now.Sub(n.Since) >= r.Limit {
			n.State, n.Code = NodeFailed, TimeLimit
		}
	}
}

// over reports whether the lifetime is over: no node gets a command any more.
func (r *Rollout) over(now time.Time) bool { return now.Sub(r.CreatedAt) >= r.Life }

// newFailures counts the failures after which no operator has resumed.
func (r Rollout) newFailures() (failed, rolledBack int) {
	for _, n := range r.Nodes {
		switch {
		case n.Known:
		case n.State == NodeFailed:
			failed++
		case n.State == NodeRolledBack:
			rolledBack++
		}
	}
	return failed, rolledBack
}

// PauseReason returns why a rollout is paused, with all failures until now, also those
// after the pause. It returns Reason for other statuses.
func (r Rollout) PauseReason() string {
	if r.Status != Paused {
		return r.Reason
	}
	failed, rolledBack := r.newFailures()
	if failed+rolledBack == 0 {
		return r.Reason
	}
	if strings.Contains(r.Reason, " failed or went back in wave ") { // stored by an earlier version
		r.Reason = ""
	}
	var parts []string
	for _, p := range []struct {
		count int
		word  string
	}{{failed, "failed"}, {rolledBack, "rolled back"}} {
		switch p.count {
		case 0:
		case 1:
			parts = append(parts, "1 node "+p.word)
		default:
			parts = append(parts, fmt.Sprintf("%d nodes %s", p.count, p.word))
		}
	}
	failures := fmt.Sprintf("%s in wave %d of %d", strings.Join(parts, ", "), r.Wave+1, len(r.Waves))
	if r.Reason != "" {
		return r.Reason + "; " + failures
	}
	return failures
}

// advance moves the rollout as far as its state allows at now.
func (r *Rollout) advance(now time.Time, acts *[]Action) {
	for !r.Status.Final() && r.Status != Paused {
		if failed, rolledBack := r.newFailures(); failed+rolledBack >= r.Threshold {
			r.pause("", acts)
			return
		}
		over := r.over(now)
		running, offline, ended := r.commandWaves(now, !over, acts)
		switch {
		case running > 0:
			r.run()
			return
		case over || r.Wave == len(r.Waves)-1 && offline == 0:
			r.complete(now, acts)
		case r.Wave == len(r.Waves)-1:
			r.Status, r.SettleUntil = Waiting, time.Time{}
			return
		case !ended: // no node of this wave has an outcome yet
			r.run()
			return
		case r.Status != Settling:
			r.Status, r.SettleUntil = Settling, now.Add(r.Settle)
			return
		case now.Before(r.SettleUntil):
			return
		default:
			r.Wave++
			r.run()
		}
	}
}

// commandWaves gives a command to the waiting nodes of the waves so far that are online,
// if allowed. It returns how many of these waves' nodes run an upgrade, how many are
// offline, and whether a node of the present wave has an outcome.
func (r *Rollout) commandWaves(now time.Time, allowed bool, acts *[]Action) (running, offline int, ended bool) {
	first := 0
	if r.Wave > 0 {
		first = r.Waves[r.Wave-1]
	}
	for i := range r.Nodes[:r.Waves[r.Wave]] {
		n := &r.Nodes[i]
		if n.State == NodeWaiting && n.Online && allowed {
			n.State, n.Since = NodeCommanded, now
			n.Attempt++
			*acts = append(*acts, Command{n.ID, r.CommandID(*n)})
		}
		switch {
		case n.State == NodeCommanded:
			running++
		case n.State == NodeWaiting:
			offline++
		case i >= first:
			ended = true
		}
	}
	return running, offline, ended
}

func (r *Rollout) complete(now time.Time, acts *[]Action) {
	for i := range r.Nodes {
		if r.Nodes[i].State == NodeWaiting {
			r.Nodes[i].State = NodeMissed
		}
	}
	r.Status, r.EndedAt, r.SettleUntil = Completed, now, time.Time{}
	*acts = append(*acts, Note{NoteComplete, r.Wave + 1, r.Count(NodeFailed) + r.Count(NodeRolledBack), r.Count(NodeUpdated)})
}

// NextTick returns when a Tick will change something, unless another event comes
// first. It reports false if no Tick will.
func (r Rollout) NextTick() (time.Time, bool) {
	if r.Status.Final() {
		return time.Time{}, false
	}
	var next time.Time
	add := func(t time.Time) {
		if next.IsZero() || t.Before(next) {
			next = t
		}
	}
	if r.Status == Settling {
		add(r.SettleUntil)
	}
	for _, n := range r.Nodes {
		if n.State == NodeCommanded {
			add(n.Since.Add(r.Limit))
		}
	}
	if r.Status != Paused && r.Count(NodeCommanded) == 0 {
		add(r.CreatedAt.Add(r.Life))
	}
	return next, !next.IsZero()
}
