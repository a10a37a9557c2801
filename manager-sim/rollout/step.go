package rollout

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
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
	State   NodeState // NodeUpdated, NodeFailed, NodeRolledBack, NodeDependency or NodeSkipped
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
	Resume struct{ By Person }
	Retry  struct{ By Person } // all nodes that failed, or rolled back
	// Skip leaves out a node. Code is "" for an operator's act; Group belongs to Moved. With
	// Unseen its operator named no state of the rollout: see ErrUnseen.
	Skip struct {
		NodeID, Code, Group string
		Unseen              bool
	}
	Abort struct{}
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
	// ErrUnseen: only a waiting node of a rollout that is not paused, and in which no node fell since
	// an operator resumed, is skipped without the revision. That decides on no failure, and lets
	// nothing continue that has stopped.
	ErrUnseen = errors.New("the node is not waiting, or the rollout is paused, or nodes of it failed")
)

// Action is to be carried out together with storing the new state: a Note, a Command, or an
// act on a command: Hold, Release, Keep or Recall.
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
	case Pause, Resume, Retry, Skip, Abort, Seen:
		operator = true
	}
	if r.Status.Final() {
		if operator {
			return r, nil, ErrFinal
		}
		return r.recordLate(e), nil, nil
	}
	before := r
	r.Nodes = slices.Clone(r.Nodes)
	r.correctTimes(now)
	var acts []Action
	if err := r.Check(); err != nil {
		if _, abort := e.(Abort); operator && !abort {
			return before, nil, fmt.Errorf("%w: %w", ErrBroken, err)
		} else if !abort {
			r.recordBroken(err.Error(), &acts)
			return r, acts, nil
		}
	}
	if err := r.apply(e, now, &acts); err != nil {
		return before, nil, err
	}
	r.noticeBegun(&acts)
	r.noticeWithdrawn()
	r.noticeUnable(&acts)
	r.expireNodes(now, &acts)
	r.advance(now, &acts)
	return r, acts, nil
}

// recordLate records an outcome that arrives after the end of the rollout.
func (r Rollout) recordLate(e Event) Rollout {
	o, outcome := e.(Outcome)
	i := r.index(o.NodeID)
	if !outcome || i < 0 {
		return r
	}
	r.Nodes = slices.Clone(r.Nodes)
	r.Nodes[i].recordOutcome(o)
	return r
}

// correctTimes replaces times later than now by now: the caller's clock was ahead, and has
// been set back.
func (r *Rollout) correctTimes(now time.Time) {
	r.CreatedAt = earlier(now, r.CreatedAt)
	for i := range r.Nodes {
		r.Nodes[i].Since = earlier(now, r.Nodes[i].Since)
	}
	if latest := now.Add(r.Settle); r.SettleUntil.After(latest) {
		r.SettleUntil = latest
	}
}

// apply applies an event to the state. advance decides what follows from it.
func (r *Rollout) apply(e Event, now time.Time, acts *[]Action) error {
	switch e := e.(type) {
	case Outcome:
		if i := r.index(e.NodeID); i >= 0 {
			r.Nodes[i].recordOutcome(e)
		}
	case Condition:
		if i := r.index(e.NodeID); i >= 0 {
			r.Nodes[i].recordCondition(e)
		}
	case Pin:
		r.pin(e)
	case Unproven:
		if i := r.index(e.NodeID); i >= 0 {
			r.Nodes[i].recordUnproven(e)
		}
	case Presence:
		if i := r.index(e.NodeID); i >= 0 {
			r.Nodes[i].Online = e.Online
		}
	case Pause:
		if r.Status != Paused {
			r.pause(e.Reason, acts)
		}
	case Break:
		r.recordBroken(e.Reason, acts)
	case Resume:
		if r.Status != Paused {
			return ErrNotPaused
		}
		for i := range r.Nodes {
			r.Nodes[i].Known = r.Nodes[i].fell()
		}
		r.Acting = e.By
		r.run()
	case Retry:
		if r.over(now) {
			return ErrOver // no node would get a command, and the failures would be forgotten
		}
		k := 0
		for i := range r.Nodes {
			if n := &r.Nodes[i]; n.failed() || n.State == NodeDependency {
				if n.State == NodeFailed && n.Code == TimeLimit { // also if the node has begun: it gets one upgrade at a time
					*acts = append(*acts, Recall{n.ID, r.CommandID(*n), ForRetry})
				}
				n.State, n.Code, n.Known = NodeWaiting, "", false
				k++
			}
		}
		if k == 0 {
			return ErrNoFailure
		}
		r.Acting = e.By
		r.run()
	case Skip:
		i := r.index(e.NodeID)
		if i < 0 || r.Nodes[i].State == NodeUpdated {
			return ErrNoSuchNode
		}
		n := &r.Nodes[i]
		if e.Unseen && (n.State != NodeWaiting || r.Status == Paused || slices.ContainsFunc(r.Nodes, func(n Node) bool { return n.fell() && !n.Known })) {
			return ErrUnseen
		}
		r.recall(n, cmp.Or(e.Code, ForSkip), acts)
		n.State, n.Code, n.Group, n.Hold = NodeSkipped, e.Code, e.Group, ""
	case Seen:
		if r.Decision() != e.Decision {
			return &ChangedError{r.changes(e.Decision)}
		}
		return r.apply(e.Act, now, acts)
	case Abort:
		for i := range r.Nodes {
			if n := &r.Nodes[i]; r.recall(n, ForAbort, acts) {
				n.State, n.Hold = NodeWaiting, Recalled
			}
		}
		r.Status, r.Reason, r.Broken, r.EndedAt, r.SettleUntil = Aborted, "", "", now, time.Time{}
	}
	return nil
}

// fall makes the node one that failed or rolled back. If an operator resumed after it was
// unproven, or after another fault of the version that it kept, this is new.
func (n *Node) fall(state NodeState, code string) {
	if n.State == NodeUnproven || watchCode(n.Code) && code != n.Code {
		n.Known = false
	}
	n.State, n.Code = state, code
}

func (r *Rollout) index(id string) int {
	return slices.IndexFunc(r.Nodes, func(n Node) bool { return n.ID == id })
}

func (r *Rollout) run() {
	r.Status, r.Reason, r.Broken, r.SettleUntil = Running, "", "", time.Time{}
}

func (r *Rollout) pause(reason string, acts *[]Action) {
	r.Status, r.Reason, r.SettleUntil = Paused, reason, time.Time{}
	for i := range r.Nodes {
		r.hold(&r.Nodes[i], acts)
	}
	*acts = append(*acts, Note{NotePaused, r.Wave + 1, r.Count(NodeFailed) + r.Count(NodeRolledBack), r.Count(NodeUpdated)})
}

// expireNodes fails the nodes that have reached the time limit. Of an unproven one it only
// records that. It withdraws the command of a node that has not begun.
func (r *Rollout) expireNodes(now time.Time, acts *[]Action) {
	for i := range r.Nodes {
		n := &r.Nodes[i]
		if !n.running() || !r.passed(n.Since, n.SinceUp, r.Limit, now) {
			continue
		}
		r.recall(n, ForLimit, acts)
		if n.Code = TimeLimit; n.State == NodeCommanded {
			n.State = NodeFailed
		}
	}
}

// over reports whether the lifetime is over: no node gets a command any more.
func (r *Rollout) over(now time.Time) bool { return r.passed(r.CreatedAt, r.CreatedUp, r.Life, now) }

// SettleEnd returns when the settle window ends: SettleUntil, and later by the outages of
// the manager in the window, or by the uptime. It is zero outside of the window.
func (r Rollout) SettleEnd() time.Time {
	if r.SettleUntil.IsZero() {
		return time.Time{}
	}
	return r.end(r.SettleUntil.Add(-r.Settle), r.SettleUp, r.Settle)
}

// advance moves the rollout as far as its state allows at now.
func (r *Rollout) advance(now time.Time, acts *[]Action) {
	for !r.Status.Final() && r.Status != Paused {
		if r.mustPause() {
			r.pause("", acts)
			return
		}
		over := r.over(now)
		running, offline, ended := r.commandWaves(now, !over, acts)
		switch {
		case running > 0:
			r.run()
			return
		case r.lacksDependency(): // it says nothing about the version, good or bad
			r.pause("", acts)
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
			r.Status, r.SettleUntil, r.SettleUp = Settling, now.Add(r.Settle), r.Uptime.Sum
			return
		case now.Before(r.SettleEnd()):
			return
		default:
			r.Wave++
			r.run()
		}
	}
}

// commandWaves gives a command to the waiting nodes of the waves so far that are online,
// if allowed; one that runs the version already gets none, and is updated. It returns how many of these waves' nodes run an upgrade, how many are
// offline, and whether a node of the present wave has an outcome.
func (r *Rollout) commandWaves(now time.Time, allowed bool, acts *[]Action) (running, offline int, ended bool) {
	first := 0
	if r.Wave > 0 {
		first = r.Waves[r.Wave-1]
	}
	for i := range r.Nodes[:r.Waves[r.Wave]] {
		n := &r.Nodes[i]
		switch {
		case n.State != NodeWaiting || !n.Online || !allowed:
		case n.Runs:
			r.recall(n, ForSkip, acts)
			n.State, n.Hold = NodeUpdated, ""
		default:
			n.Since, n.SinceUp = now, r.Uptime.Sum
			r.command(n, acts)
		}
		switch {
		case n.running():
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
		if n := &r.Nodes[i]; n.State == NodeWaiting {
			r.recall(n, ForLifetime, acts)
			n.State, n.Hold = NodeMissed, ""
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
		add(r.SettleEnd())
	}
	running := false
	for _, n := range r.Nodes {
		if n.running() {
			running = true
			add(r.end(n.Since, n.SinceUp, r.Limit))
		}
	}
	if r.Status != Paused && !running {
		add(r.end(r.CreatedAt, r.CreatedUp, r.Life))
	}
	return next, !next.IsZero()
}
