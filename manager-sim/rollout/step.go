package rollout

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// Event is something that happened: one of the types below.
type Event interface{ event() }

// Tick says that time passed. NextTick says when the next one matters.
type Tick struct{}

// Outcome says what became of a node's command. One that is repeated, late, or
// of an earlier attempt changes nothing.
type Outcome struct {
	NodeID  string
	Attempt int
	State   NodeState // NodeUpdated, NodeFailed or NodeRolledBack
	Code    string    // of a failure
}

// Presence says that a node came, or went.
type Presence struct {
	NodeID string
	Online bool
}

// What an operator does. Each may come at any time, and twice.
type (
	Pause  struct{ Why string }
	Resume struct{}
	Retry  struct{}                // of all that failed
	Skip   struct{ NodeID string } // a node
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

// Errors of what an operator asks for at the wrong time; nothing changes then.
var (
	ErrFinal      = errors.New("the rollout has ended")
	ErrNotPaused  = errors.New("the rollout is not paused")
	ErrNoFailure  = errors.New("no node has failed")
	ErrOver       = errors.New("the rollout's life is over; resume or abort it, and begin another one")
	ErrNoSuchNode = errors.New("the node is not in the rollout, or has been updated")
)

// Action is something to do, once the new state is stored: one of the types below.
type Action interface{ action() }

// Command tells a node to upgrade.
type Command struct{ NodeID, CommandID string }

// Note is for the audit trail: "group.upgrade.paused" or "group.upgrade.complete".
type Note struct {
	Action  string
	Wave    int // from 1; of a pause
	Failed  int // nodes that failed or rolled back, so far
	Updated int
}

func (Command) action() {}
func (Note) action()    {}

// Names of notes.
const (
	NotePaused   = "group.upgrade.paused"
	NoteComplete = "group.upgrade.complete"
)

// Step is what follows from e at now. It does not change r. An error is of an
// operator's event alone.
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
	if err := r.take(e, now, &acts); err != nil {
		return before, nil, err
	}
	r.expireNodes(now)
	r.advance(now, &acts)
	return r, acts, nil
}

func (r *Rollout) take(e Event, now time.Time, acts *[]Action) error {
	switch e := e.(type) {
	case Outcome:
		if i := r.index(e.NodeID); i >= 0 {
			r.Nodes[i].outcome(e)
		}
	case Presence:
		if i := r.index(e.NodeID); i >= 0 {
			r.Nodes[i].Online = e.Online
		}
	case Pause:
		if r.Status != Paused {
			r.pause(e.Why, acts)
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
			return ErrOver // nobody would be told, and the failures would be forgotten
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

// outcome takes down what became of a node.
func (n *Node) outcome(e Outcome) {
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

func (r *Rollout) pause(why string, acts *[]Action) {
	r.Status, r.Reason, r.SettleUntil = Paused, why, time.Time{}
	*acts = append(*acts, Note{NotePaused, r.Wave + 1, r.Count(NodeFailed) + r.Count(NodeRolledBack), r.Count(NodeUpdated)})
}

// expireNodes fails the nodes whose time is up.
func (r *Rollout) expireNodes(now time.Time) {
	for i := range r.Nodes {
		if n := &r.Nodes[i]; n.State == NodeCommanded && now.Sub(n.Since) >= r.Limit {
			n.State, n.Code = NodeFailed, TimeLimit
		}
	}
}

// over reports whether no node may be told any more.
func (r *Rollout) over(now time.Time) bool { return now.Sub(r.CreatedAt) >= r.Life }

// fresh counts the failures that no operator has seen and resumed from.
func (r Rollout) fresh() (failed, rolledBack int) {
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

// PauseReason is why a paused rollout is paused, as it stands now: nodes that fail
// after the pause are counted, too.
func (r Rollout) PauseReason() string {
	if r.Status != Paused {
		return r.Reason
	}
	failed, rolledBack := r.fresh()
	if failed+rolledBack == 0 {
		return r.Reason
	}
	if strings.Contains(r.Reason, " failed or went back in wave ") { // as earlier versions stored it
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
	why := fmt.Sprintf("%s in wave %d of %d", strings.Join(parts, ", "), r.Wave+1, len(r.Waves))
	if r.Reason != "" {
		return r.Reason + "; " + why
	}
	return why
}

// advance goes on as far as it may.
func (r *Rollout) advance(now time.Time, acts *[]Action) {
	for !r.Status.Final() && r.Status != Paused {
		if failed, rolledBack := r.fresh(); failed+rolledBack >= r.Threshold {
			r.pause("", acts)
			return
		}
		over := r.over(now)
		atWork, offline, ended := r.wave(now, !over, acts)
		switch {
		case atWork > 0:
			r.run()
			return
		case over || r.Wave == len(r.Waves)-1 && offline == 0:
			r.complete(now, acts)
		case r.Wave == len(r.Waves)-1:
			r.Status, r.SettleUntil = Waiting, time.Time{}
			return
		case !ended: // nobody of this wave has shown anything yet
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

// wave tells the nodes of the waves so far whose turn it is, if it may, and
// returns how many of them are at work, how many are offline, and whether one of
// the present wave has ended.
func (r *Rollout) wave(now time.Time, may bool, acts *[]Action) (atWork, offline int, ended bool) {
	first := 0
	if r.Wave > 0 {
		first = r.Waves[r.Wave-1]
	}
	for i := range r.Nodes[:r.Waves[r.Wave]] {
		n := &r.Nodes[i]
		if n.State == NodeWaiting && n.Online && may {
			n.State, n.Since = NodeCommanded, now
			n.Attempt++
			*acts = append(*acts, Command{n.ID, r.CommandID(*n)})
		}
		switch {
		case n.State == NodeCommanded:
			atWork++
		case n.State == NodeWaiting:
			offline++
		case i >= first:
			ended = true
		}
	}
	return atWork, offline, ended
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

// NextTick returns when a Tick will change something, unless something else
// does before; false means never.
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
