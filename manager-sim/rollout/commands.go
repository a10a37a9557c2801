package rollout

// What became of the last command of a NodeWaiting, in Node.Hold.
const (
	Held     = "held"      // it is not sent, or not sent again, until the rollout resumes
	Recalled = "withdrawn" // it was withdrawn; the node gets a new attempt when the rollout runs and the node can be upgraded
)

// Codes of a NodeSkipped that no operator skipped.
const (
	Moved     = "moved"     // it is in another group now: Node.Group
	Removed   = "removed"   // it was removed from the manager
	Replaced  = "replaced"  // another command took the place of the rollout's
	Withdrawn = "withdrawn" // an operator withdrew the rollout's command
)

// Reasons of a Recall.
const (
	ForAbort    = "abort"
	ForPause    = "pause"
	ForSkip     = "skip"
	ForLimit    = "time_limit"
	ForRetry    = "retry"
	ForLifetime = "lifetime"
	ForUnable   = "unable"
)

// Facts are what the caller knows about the last command of a node. They are not stored.
// The caller sets them before each Step.
type Facts struct {
	Sent         bool // it was sent, or may have been
	Begun        bool // the node has reported something about it
	Withdrawn    bool // it was withdrawn, by the rollout or by a person
	Withdrawable bool // the node obeys a withdrawal
	// Unable is whether the node reported, in its present session, that it cannot be upgraded.
	Unable bool
	// Runs is whether the node runs the rollout's version already, and no trial of it is open.
	Runs bool
}

// Person is who decides that the nodes get commands. Key identifies the person to the
// caller; "" is not known, as of an earlier version.
type Person struct {
	Key  string `json:"key,omitempty"`
	Name string `json:"name,omitempty"`
}

// Acts on the last command of a node. The caller stores them together with the rollout. A
// command that is over already stays as it is.
type (
	// Hold keeps a command from being sent.
	Hold struct{ NodeID, CommandID string }
	// Release ends a Hold: the command is sent, or sent again.
	Release struct{ NodeID, CommandID string }
	// Keep ends a Hold of a command that the node has begun. Nothing is sent.
	Keep struct{ NodeID, CommandID string }
	// Recall withdraws a command, also one that was sent.
	Recall struct{ NodeID, CommandID, Reason string }
)

func (Hold) action()    {}
func (Release) action() {}
func (Keep) action()    {}
func (Recall) action()  {}

// recalled reports whether the last command was withdrawn, and may still have an outcome.
func (n Node) recalled() bool { return n.State == NodeWaiting && n.Hold != "" }

// hold takes back the command of a node that has not begun, because the rollout pauses. A
// command that was sent is withdrawn where the node obeys that. Elsewhere it is not sent
// again until the rollout resumes, and keeps its id: a node that has it runs it once.
func (r *Rollout) hold(n *Node, acts *[]Action) {
	if n.State != NodeCommanded || n.Begun {
		return
	}
	n.State = NodeWaiting
	if n.Sent && n.Withdrawable {
		n.Hold = Recalled
		*acts = append(*acts, Recall{n.ID, r.CommandID(*n), ForPause})
		return
	}
	n.Hold = Held
	*acts = append(*acts, Hold{n.ID, r.CommandID(*n)})
}

// recall withdraws the command of a node that has not begun, and reports whether there was
// one. What the node has begun goes on.
func (r *Rollout) recall(n *Node, reason string, acts *[]Action) bool {
	if n.State == NodeCommanded && !n.Begun || n.recalled() && n.Hold == Held {
		*acts = append(*acts, Recall{n.ID, r.CommandID(*n), reason})
		return true
	}
	return false
}

// command gives a waiting node its next command: the one that was held, or a new attempt.
func (r *Rollout) command(n *Node, acts *[]Action) {
	n.State = NodeCommanded
	if n.Hold == Held {
		*acts = append(*acts, Release{n.ID, r.CommandID(*n)})
	} else {
		n.Attempt++
		n.Sent, n.Begun = false, false
		*acts = append(*acts, Command{n.ID, r.CommandID(*n)})
	}
	n.Hold = ""
}

// noticeUnable takes back what was never sent to a node that cannot be upgraded now. The node
// waits, and has no time limit.
func (r *Rollout) noticeUnable(acts *[]Action) {
	for i := range r.Nodes {
		if n := &r.Nodes[i]; n.State == NodeCommanded && n.Unable && !n.Sent && !n.Begun {
			*acts = append(*acts, Recall{n.ID, r.CommandID(*n), ForUnable})
			n.State, n.Hold = NodeWaiting, Recalled
		}
	}
}

// noticeWithdrawn leaves out nodes whose command a person withdrew while it was held.
func (r *Rollout) noticeWithdrawn() {
	for i := range r.Nodes {
		if n := &r.Nodes[i]; n.recalled() && n.Hold == Held && n.Withdrawn && !n.Begun {
			n.State, n.Code, n.Hold = NodeSkipped, Withdrawn, ""
		}
	}
}

// noticeBegun continues with nodes that have begun although their command was held or
// withdrawn: it had arrived.
func (r *Rollout) noticeBegun(acts *[]Action) {
	for i := range r.Nodes {
		n := &r.Nodes[i]
		if !n.recalled() || !n.Begun {
			continue
		}
		if n.Hold == Held {
			*acts = append(*acts, Keep{n.ID, r.CommandID(*n)})
		}
		n.State, n.Hold = NodeCommanded, ""
	}
}
