package rollout

import (
	"encoding/json"
	"fmt"
	"reflect"
	"slices"
	"testing"
	"time"
)

// The model visits every state that a small fleet can reach, by every event in every
// order, with time in steps. It includes restarts, because each state must survive being
// stored, and lost and repeated messages, because an outcome may arrive at any time, twice
// or never.

var epoch = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

const step = time.Minute

// key is the state in few bytes. Times are in steps, and count only relatively.
func key(r Rollout, now int) string {
	b := make([]byte, 0, 64)
	at := func(t time.Time) byte {
		if t.IsZero() {
			return 0xff
		}
		return byte(min(int(t.Sub(epoch)/step), 200))
	}
	b = append(b, byte(now), byte(r.Wave), r.Status[0], r.Status[1], at(r.SettleUntil))
	for _, n := range r.Nodes {
		flags := byte(n.Attempt << 2)
		if n.Online {
			flags |= 1
		}
		if n.Known {
			flags |= 2
		}
		since := byte(0xff)
		if n.running() {
			since = at(n.Since)
		}
		code := byte(slices.Index([]string{"", TimeLimit, Vanished, Degraded, OtherVersion}, n.Code))
		hold := byte(len(n.Hold))
		b = append(b, n.State[0], n.State[2], flags, since, code, hold)
	}
	return string(b)
}

// fleet is one model: its size, its plan, and the events that may happen.
type fleet struct {
	nodes, threshold int
	strategy         string
	waves            []int
	offline, skip    bool
	watch            bool    // nodes fall after they kept the version, and are unproven
	outages          Outages // of the manager
	attempts, steps  int
}

type place struct {
	r   Rollout
	now int
}

func (f fleet) events(r Rollout) []Event {
	es := []Event{Tick{}, Pause{"because"}, Resume{}, Abort{}}
	again := true
	for _, n := range r.Nodes {
		again = again && n.Attempt < f.attempts
		for _, s := range []NodeState{NodeUpdated, NodeFailed, NodeRolledBack, NodeDependency} {
			es = append(es, Outcome{NodeID: n.ID, Attempt: n.Attempt, State: s, Code: "upgrade_x"})
		}
		if n.Attempt > 1 {
			es = append(es, Outcome{NodeID: n.ID, Attempt: n.Attempt - 1, State: NodeUpdated})
		}
		if f.watch {
			for _, code := range []string{"", Vanished, OtherVersion} {
				es = append(es, Condition{n.ID, n.Attempt, code})
			}
			es = append(es, Unproven{n.ID, n.Attempt, true}, Unproven{n.ID, n.Attempt, false}, Outcome{NodeID: n.ID, Attempt: n.Attempt, State: NodeSkipped})
			if n.Attempt > 1 {
				es = append(es, Condition{n.ID, n.Attempt - 1, Vanished}, Unproven{n.ID, n.Attempt - 1, true})
			}
		}
		if f.offline {
			es = append(es, Presence{n.ID, !n.Online})
		}
		if f.skip {
			es = append(es, Skip{NodeID: n.ID})
		}
	}
	if again {
		es = append(es, Retry{})
	}
	return es
}

// withoutOutcome returns a rollout without the node of which e is an outcome.
func withoutOutcome(r Rollout, e Event) Rollout {
	if o, ok := e.(Outcome); ok && r.index(o.NodeID) >= 0 {
		r.Nodes = slices.Clone(r.Nodes)
		r.Nodes[r.index(o.NodeID)] = Node{}
	}
	return r
}

// check returns the rule that a transition breaks, or "".
func check(from Rollout, e Event, to Rollout, acts []Action, err error, now time.Time) string {
	commands, completes, pauses := 0, 0, 0
	for _, a := range acts {
		switch a := a.(type) {
		case Command:
			commands++
			i := to.index(a.NodeID)
			before := from.index(a.NodeID)
			switch {
			case to.Nodes[i].Attempt != from.Nodes[before].Attempt+1:
				return "a node gets two commands in one attempt"
			case a.CommandID != to.CommandID(to.Nodes[i]):
				return "a command has another attempt's id"
			case i >= to.Waves[to.Wave]:
				return "a node gets a command before its wave"
			case !to.Nodes[i].Online:
				return "an offline node gets a command"
			}
		case Note:
			if a.Action == NoteComplete {
				completes++
			} else {
				pauses++
			}
		}
	}
	if _, resumed := e.(Resume); commands > 0 && from.Status == Paused && !resumed {
		if _, retried := e.(Retry); !retried {
			return "a node gets a command in a pause"
		}
	}
	switch {
	case from.Status.Final() && (len(acts) > 0 || !reflect.DeepEqual(withoutOutcome(from, e), withoutOutcome(to, e))):
		return "a rollout that has ended changes"
	case to.Status.Final() && commands > 0:
		return "a rollout that ends sends a command"
	case to.Wave > from.Wave && (from.Status != Settling || from.Outages.Elapsed(from.SettleUntil.Add(-from.Settle), now) < from.Settle):
		return "a wave begins before the settle time of the previous one is over"
	case to.Wave > from.Wave+1 || to.Wave < from.Wave:
		return "a wave is skipped"
	case err != nil && (len(acts) > 0 || !reflect.DeepEqual(from, to)):
		return "an error changes something"
	case completes != 0 && (to.Status != Completed || completes > 1), completes == 0 && to.Status == Completed && from.Status != Completed:
		return "completion is not noted once"
	case pauses > 1, pauses == 1 && from.Status == Paused && to.Status != Paused, from.Status != Paused && to.Status == Paused && pauses != 1:
		return "a pause is not noted once"
	case to.Status == Completed && to.Count(NodeWaiting)+to.Count(NodeCommanded) > 0:
		return "it completes while nodes are waiting or upgrading"
	case to.Status == Completed && slices.ContainsFunc(to.Nodes, func(n Node) bool { return n.State == NodeUnproven && !n.Known }):
		return "it completes while a node is unproven, and no operator has resumed"
	}
	if lacks := to.lacksDependency(); lacks && (to.Wave > from.Wave || to.Status == Settling && from.Status != Settling || to.Status == Completed && from.Status != Completed) {
		return "it goes on although a node probably lacks a dependency, and no operator has resumed"
	}
	fresh := 0
	for i, n := range to.Nodes {
		was := from.Nodes[i]
		if n.failed() && !n.Known {
			fresh++
		}
		if n.State == NodeUnproven && n.Code == TimeLimit && !n.Known {
			fresh = to.Threshold // it pauses whatever the threshold
		}
		if limit := n.Code == TimeLimit && was.Code != TimeLimit; limit && from.Outages.Elapsed(was.Since, now) < from.Limit {
			return "the time limit ran while no manager ran"
		}
		if n.Code == TimeLimit && was.State == NodeUnproven && n.State != NodeUnproven {
			return "an unproven node fails at the time limit"
		}
		if to.Wave > from.Wave && i < from.Waves[from.Wave] && n.State == NodeUnproven && !n.Known {
			return "a wave begins while a node of an earlier one is unproven, and no operator has resumed"
		}
		switch e := e.(type) {
		case Outcome:
			if e.NodeID != n.ID || from.Status.Final() {
				break
			}
			asked := was.State == NodeCommanded || was.State == NodeUnproven || was.Watched() || was.Code == TimeLimit
			if e.Attempt == was.Attempt && (e.State == NodeRolledBack || e.State == NodeDependency) && asked && n.State != e.State {
				return "a node rolled back, and that does not count"
			}
			if e.Attempt != was.Attempt && n.State != was.State && n.Code != TimeLimit && !n.recalled() {
				return "an outcome of an earlier attempt counts"
			}
		case Condition:
			if e.NodeID != n.ID || from.Status.Final() {
				break
			}
			if e.Attempt == was.Attempt && was.overdue() && (e.Code == OtherVersion) != (n.State == NodeFailed) {
				return "an unproven node runs another version, and that does not count, or something else does"
			}
			if e.Attempt == was.Attempt && was.kept() && (e.Code == "") != (n.State == NodeUpdated) {
				return "what is wrong with a node that kept the version does not count, or counts for ever"
			}
			if (e.Attempt != was.Attempt || !was.Watched()) && watchCode(n.Code) && !watchCode(was.Code) {
				return "a node that did not keep the version counts as one that fell"
			}
		case Retry:
			if err == nil && (was.failed() || was.State == NodeDependency) && n.State != NodeWaiting && n.State != NodeCommanded {
				return "a node that failed is not tried again"
			}
		}
		_, condition := e.(Condition)
		if from.Nodes[i].State == NodeUpdated && to.Nodes[i].State != NodeUpdated && to.Nodes[i].State != NodeRolledBack && to.Nodes[i].State != NodeDependency && !condition {
			return "an updated node is forgotten"
		}
	}
	if fresh >= to.Threshold && to.Status != Paused && !to.Status.Final() {
		return "it continues after as many failures as should pause it"
	}
	return ""
}

// stuck returns why a rollout cannot continue from a state, or "".
func (f fleet) stuck(p place) string {
	r := p.r
	if r.Status.Final() {
		return ""
	}
	if r.Status == Paused {
		if _, _, err := Step(r, Resume{}, epoch); err != nil {
			return "a pause cannot be resumed"
		}
		return ""
	}
	// With time alone the rollout ends, or pauses for an operator.
	for range 10 * f.steps {
		next, ok := r.NextTick()
		if !ok {
			return "nothing will ever happen"
		}
		before := r
		r, _, _ = Step(r, Tick{}, next)
		if r.Status.Final() || r.Status == Paused {
			return ""
		}
		if reflect.DeepEqual(before, r) {
			return "a tick at the time of NextTick changes nothing"
		}
	}
	return "time alone does not end it"
}

func (f fleet) explore(t *testing.T) (states, violations int) {
	t.Helper()
	var ids []string
	online := map[string]bool{}
	for i := range f.nodes {
		id := fmt.Sprintf("n%d", i)
		ids = append(ids, id)
		online[id] = !f.offline || i > 0
	}
	r, _, err := New(Plan{ID: "r", Version: "1.1.0", Strategy: f.strategy, Threshold: f.threshold,
		Settle: step, Limit: 2 * step, Life: time.Duration(f.steps) * step}, ids, online, epoch)
	if err != nil {
		t.Fatal(err)
	}
	if f.waves != nil {
		r.Waves = f.waves
	}
	r.Outages = f.outages
	violation := func(p place, e Event, what string) {
		if violations++; violations <= 5 {
			b, _ := json.Marshal(p.r)
			t.Errorf("%s: %T%+v at step %d of %s", what, e, e, p.now, b)
		}
	}
	seen := map[string]bool{}
	queue := []place{{r, 0}}
	for len(queue) > 0 {
		p := queue[len(queue)-1]
		queue = queue[:len(queue)-1]
		k := key(p.r, p.now)
		if seen[k] {
			continue
		}
		seen[k] = true
		states++
		if what := f.stuck(p); what != "" {
			violation(p, nil, what)
		}
		if states%16 == 0 { // a restart
			b, err := json.Marshal(p.r)
			var back Rollout
			kept := p.r
			kept.Nodes, kept.Outages = slices.Clone(p.r.Nodes), nil
			for i := range kept.Nodes {
				kept.Nodes[i].Online = false
			}
			if err != nil || json.Unmarshal(b, &back) != nil || !reflect.DeepEqual(kept, back) {
				violation(p, nil, "it does not survive being stored")
			}
		}
		for _, e := range f.events(p.r) {
			for _, later := range []int{0, 1} {
				now := p.now + later
				if _, tick := e.(Tick); later == 1 && !tick || now > f.steps+1 {
					continue
				}
				at := epoch.Add(time.Duration(now) * step)
				to, acts, err := Step(p.r, e, at)
				if what := check(p.r, e, to, acts, err, at); what != "" {
					violation(p, e, what)
				}
				if o, ok := e.(Outcome); ok { // repeated: nothing more
					if again, acts, _ := Step(to, o, at); len(acts) > 0 || !reflect.DeepEqual(again, to) {
						violation(place{to, now}, e, "a repeated outcome changes something")
					}
				}
				if !seen[key(to, now)] {
					queue = append(queue, place{to, now})
				}
			}
		}
	}
	return states, violations
}

func TestModel(t *testing.T) {
	t.Parallel()
	total, bad := 0, 0
	fleets := []fleet{
		{nodes: 1, threshold: 1, strategy: Staged, offline: true, skip: true, attempts: 3, steps: 7},
		{nodes: 2, threshold: 1, strategy: Staged, offline: true, skip: true, attempts: 2, steps: 5},
		{nodes: 2, threshold: 2, strategy: Staged, offline: true, skip: true, attempts: 2, steps: 5},
		{nodes: 2, threshold: 1, strategy: Immediate, offline: true, skip: true, attempts: 2, steps: 5},
		{nodes: 3, threshold: 1, strategy: Staged, waves: []int{1, 2, 3}, skip: true, attempts: 1, steps: 5},
		{nodes: 3, threshold: 2, strategy: Staged, waves: []int{1, 3}, attempts: 2, steps: 4},
		{nodes: 2, threshold: 1, strategy: Staged, watch: true, skip: true, attempts: 2, steps: 6},
		{nodes: 2, threshold: 2, strategy: Staged, watch: true, attempts: 2, steps: 6},
		{nodes: 2, threshold: 1, strategy: Staged, watch: true, attempts: 1, steps: 9, outages: Outages{{epoch.Add(step), epoch.Add(3 * step)}, {epoch.Add(5 * step), epoch.Add(6 * step)}}},
	}
	least := 200_000
	if testing.Short() {
		fleets, least = fleets[:2], 20_000
	}
	for _, f := range fleets {
		states, violations := f.explore(t)
		total += states
		bad += violations
		t.Logf("%+v: %d states", f, states)
	}
	states, violations := commandModel(t)
	total, bad = total+states, bad+violations
	t.Logf("rollout model: %d states, %d violations", total, bad)
	if total < least {
		t.Errorf("only %d states, fewer than %d", total, least)
	}
}
