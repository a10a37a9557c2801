package rollout

import (
	"fmt"
	"slices"
	"testing"
	"time"
)

// The command model adds to a rollout what becomes of its commands: the rows of the store, what
// is sent, what the nodes begin and obey, and requests that take the place of what was never
// sent. The store's statements are modelled as they are: what sends asks the state of the row.

type row struct {
	state            rowState
	sent, begun, out bool
	obeyed           bool // the node confirmed the withdrawal, and never begins
}

// rowState is the state of a command in the store; 0: there is none.
type rowState byte

const (
	pending rowState = iota + 1
	held
	sent
	withdrawn
	superseded
	ended
)

func (c row) open() bool { return c.state == pending || c.state == held || c.state == sent }

// mayRun reports whether the command can still be sent to a node that has not begun it.
func (c row) mayRun() bool { return (c.state == pending || c.state == sent) && !c.begun && !c.out }

const modelAttempts = 2

type world struct {
	r    Rollout
	now  int
	rows [2][modelAttempts]row
	// unable are nodes that report, in this step only, that they cannot be upgraded.
	unable [2]bool
}

// rules are those that can be taken away, to see that the model notices.
type rules struct {
	sendAnything bool                // what sends does not ask the state
	drop         func(a Action) bool // the action is lost
	deaf         bool                // no outcome is recorded after the end
	twoOpen      bool                // a new command does not close the one before
}

type commandFleet struct {
	nodes     int
	withdraws [2]bool
	strategy  string
	steps     int
	rules     rules
}

func (w world) key() string {
	b := []byte(key(w.r, w.now))
	for _, rows := range w.rows {
		for _, c := range rows {
			bits := byte(c.state)
			for i, is := range []bool{c.sent, c.begun, c.out, c.obeyed} {
				if is {
					bits |= 8 << i
				}
			}
			b = append(b, bits)
		}
	}
	return string(b)
}

// step applies an event to the rollout and its actions to the rows.
func (f commandFleet) step(w world, e Event) world {
	w.r.Nodes = slices.Clone(w.r.Nodes)
	for i := range w.r.Nodes {
		n := &w.r.Nodes[i]
		n.Facts = Facts{Withdrawable: f.withdraws[i], Unable: w.unable[i]}
		n.Online = n.Online && !w.unable[i]
		if n.Attempt > 0 {
			c := w.rows[i][n.Attempt-1]
			n.Withdrawn = c.state == withdrawn
			n.Sent, n.Begun = c.sent, (c.begun || c.out) && !c.obeyed
		}
	}
	if _, outcome := e.(Outcome); outcome && f.rules.deaf && w.r.Status.Final() {
		return w
	}
	before := w.r
	next, acts, err := Step(w.r, e, epoch.Add(time.Duration(w.now)*step))
	if err != nil {
		w.r = before
		return w
	}
	w.r = next
	for _, a := range acts {
		if f.rules.drop != nil && f.rules.drop(a) {
			continue
		}
		w.apply(a, f.rules)
	}
	return w
}

func (w *world) row(id, commandID string) *row {
	i := w.r.index(id)
	for a := range modelAttempts {
		if w.r.CommandID(Node{ID: id, Attempt: a + 1}) == commandID {
			return &w.rows[i][a]
		}
	}
	panic("a command without a row")
}

func (w *world) apply(a Action, rules rules) {
	switch a := a.(type) {
	case Command:
		for k := range w.rows[w.r.index(a.NodeID)] {
			if c := &w.rows[w.r.index(a.NodeID)][k]; c.open() && !rules.twoOpen {
				c.state = withdrawn
			}
		}
		*w.row(a.NodeID, a.CommandID) = row{state: pending}
	case Hold:
		if c := w.row(a.NodeID, a.CommandID); c.state == pending || c.state == sent {
			c.state = held
		}
	case Release:
		w.row(a.NodeID, a.CommandID).release()
	case Keep:
		w.row(a.NodeID, a.CommandID).release()
	case Recall:
		if c := w.row(a.NodeID, a.CommandID); c.open() {
			c.state = withdrawn
		}
	}
}

func (c *row) release() {
	if c.state != held {
		return
	}
	if c.state = pending; c.sent {
		c.state = sent
	}
}

// next returns the states that follow, each with what happened, and whether it breaks a rule.
func (f commandFleet) next(w world, visit func(what string, to world, violation string)) {
	add := func(e Event, later int) {
		to := w
		to.now += later
		to = f.step(to, e)
		visit(fmt.Sprintf("%T%+v", e, e), to, "")
	}
	add(Tick{}, 0)
	if w.now < f.steps {
		add(Tick{}, 1)
	}
	for _, e := range []Event{Pause{"because"}, Abort{}} {
		add(e, 0)
	}
	again := true
	if !slices.ContainsFunc(w.r.Nodes, func(n Node) bool { return n.Hold == Recalled && n.Attempt == modelAttempts }) {
		add(Resume{}, 0)
	}
	for i, n := range w.r.Nodes {
		again = again && n.Attempt < modelAttempts
		add(Skip{NodeID: n.ID}, 0)
		add(Presence{n.ID, !n.Online}, 0)
		for a := range modelAttempts {
			f.rowEvents(w, i, a, visit)
		}
	}
	if again {
		add(Retry{}, 0)
	}
}

func (f commandFleet) rowEvents(w world, i, a int, visit func(string, world, string)) {
	n, c := w.r.Nodes[i], w.rows[i][a]
	if c.state == 0 {
		return
	}
	change := func(what string, do func(c *row)) world {
		to := w
		do(&to.rows[i][a])
		return to
	}
	if n.Online && !c.out && (c.state == pending || c.state == sent && !c.sent || f.rules.sendAnything && !c.sent) {
		violation := ""
		if c.state == withdrawn || c.state == superseded || c.state == held {
			violation = "a command that is withdrawn, superseded or held is sent"
		}
		visit("send", change("send", func(c *row) { c.state, c.sent = sent, true }), violation)
	}
	if c.sent && !c.begun && !c.obeyed { // it had arrived, perhaps long ago
		to := change("begin", func(c *row) { c.begun = true })
		visit("begin", f.step(to, Tick{}), "")
	}
	if f.withdraws[i] && c.state == withdrawn && c.sent && !c.out && n.Online {
		visit("obey", change("obey", func(c *row) { c.obeyed, c.out = true, true }), "")
	}
	if c.begun && !c.out && !c.obeyed {
		for _, s := range []NodeState{NodeUpdated, NodeFailed, NodeRolledBack} {
			to := change("outcome", func(c *row) {
				if c.out = true; c.state != withdrawn {
					c.state = ended
				}
			})
			to = f.step(to, Outcome{NodeID: n.ID, Attempt: a + 1, State: s, Code: "upgrade_x"})
			violation := ""
			known := n.State == NodeCommanded || n.recalled() || n.State == NodeFailed && n.Code == TimeLimit
			if known && n.Attempt == a+1 && to.r.Nodes[i].State != s && to.r.Nodes[i].Attempt == a+1 {
				violation = "an outcome is not recorded"
			}
			visit("outcome", to, violation)
		}
	}
	if c.open() && a+1 == n.Attempt { // by a person
		to := change("withdraw", func(c *row) { c.state = withdrawn })
		if n.State == NodeCommanded && !c.begun {
			to = f.step(to, Outcome{NodeID: n.ID, Attempt: a + 1, State: NodeSkipped, Code: Withdrawn})
		}
		visit("withdraw", to, "")
	}
	if n.State == NodeCommanded && a+1 == n.Attempt && n.Attempt < modelAttempts {
		to := w
		to.unable[i] = true
		to = f.step(to, Tick{})
		to.unable[i] = false
		visit("unable", to, "")
	}
	if !c.sent && (c.state == pending || c.state == held) {
		to := change("supersede", func(c *row) { c.state, c.out = superseded, true })
		visit("supersede", f.step(to, Outcome{NodeID: n.ID, Attempt: a + 1, State: NodeSkipped, Code: Replaced}), "")
	}
}

// broken returns the rule that a state breaks, or "".
func (w world) broken() string {
	for i, n := range w.r.Nodes {
		open := 0
		for a, c := range w.rows[i] {
			if c.open() {
				open++
			}
			switch {
			case c.mayRun() && w.r.Status == Paused:
				return "a command that the node has not begun can be sent in a pause"
			case c.mayRun() && w.r.Status.Final(), c.state == held && w.r.Status.Final():
				return "a command can be sent after the end of its rollout"
			case c.mayRun() && (n.State == NodeSkipped || n.State == NodeMissed):
				return "a command can be sent to a node that is left out"
			case n.State == NodeCommanded && n.Attempt == a+1 && c.state == withdrawn && !c.begun && !c.out && !w.r.Status.Final():
				return "a rollout waits for a command that was withdrawn"
			case c.mayRun() && n.State == NodeFailed && n.Attempt == a+1:
				return "a command can be sent to a node that failed"
			case c.mayRun() && n.Attempt != a+1:
				return "an old attempt can be sent"
			}
		}
		if open > 1 {
			return "a node has two open commands"
		}
	}
	return ""
}

func (f commandFleet) explore(limit int) (states int, violations []string) {
	r, acts, err := New(Plan{ID: "r", Version: "1.1.0", Strategy: f.strategy, Threshold: 1, Settle: step, Limit: 2 * step, Life: time.Duration(f.steps) * step},
		[]string{"n0", "n1"}[:f.nodes], map[string]bool{"n0": true, "n1": true}, epoch)
	if err != nil {
		return 0, []string{err.Error()}
	}
	begin := world{r: r}
	for _, a := range acts {
		begin.apply(a, f.rules)
	}
	seen, queue := map[string]bool{}, []world{begin}
	for len(queue) > 0 && len(violations) < limit {
		w := queue[len(queue)-1]
		queue = queue[:len(queue)-1]
		if k := w.key(); seen[k] {
			continue
		} else {
			seen[k] = true
		}
		states++
		f.next(w, func(what string, to world, violation string) {
			if violation == "" {
				violation = to.broken()
			}
			if violation != "" {
				violations = append(violations, fmt.Sprintf("%s: after %s: %s, %+v", violation, what, to.r.Status, to.rows))
				return
			}
			if !seen[to.key()] {
				queue = append(queue, to)
			}
		})
	}
	return states, violations
}

// commandModel visits what can become of the commands of small fleets.
func commandModel(t *testing.T) (states, violations int) {
	for _, f := range []commandFleet{
		{nodes: 1, withdraws: [2]bool{true}, strategy: Immediate, steps: 6},
		{nodes: 1, withdraws: [2]bool{false}, strategy: Immediate, steps: 6},
		{nodes: 2, withdraws: [2]bool{true, false}, strategy: Staged, steps: 1},
	} {
		k, bad := f.explore(5)
		for _, v := range bad {
			t.Error(v)
		}
		t.Logf("commands: %+v: %d states", f, k)
		states, violations = states+k, violations+len(bad)
	}
	return states, violations
}

// Each rule that is taken away brings a violation.
func TestCommandRulesAreNeeded(t *testing.T) {
	t.Parallel()
	recall := func(reason string) func(Action) bool {
		return func(a Action) bool { r, ok := a.(Recall); return ok && r.Reason == reason }
	}
	for name, r := range map[string]rules{
		"what sends asks the state":    {sendAnything: true},
		"a pause holds":                {drop: func(a Action) bool { _, ok := a.(Hold); return ok }},
		"a pause withdraws":            {drop: recall(ForPause)},
		"an abort withdraws":           {drop: recall(ForAbort)},
		"a skip withdraws":             {drop: recall(ForSkip)},
		"the limit withdraws":          {drop: recall(ForLimit)},
		"the end withdraws":            {drop: recall(ForLifetime)},
		"an unable node keeps nothing": {drop: recall(ForUnable)},
		"late outcomes count":          {deaf: true},
		"a new command closes the old": {twoOpen: true, drop: recall(ForRetry)},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := commandFleet{nodes: 2, withdraws: [2]bool{true, false}, strategy: Immediate, steps: 4, rules: r}
			if _, violations := f.explore(1); len(violations) == 0 {
				t.Error("without it nothing is violated")
			}
		})
	}
}
