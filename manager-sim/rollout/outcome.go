package rollout

// recordOutcome records the outcome of a node, unless it is of an earlier attempt.
func (n *Node) recordOutcome(e Outcome) {
	if e.Attempt != n.Attempt {
		return
	}
	late := n.State == NodeFailed && n.Code == TimeLimit
	open := n.State == NodeCommanded || n.State == NodeUnproven || n.recalled() || n.State == NodeMissed && n.Attempt > 0
	if open {
		defer func() {
			if n.State != NodeWaiting {
				n.Hold = ""
			}
		}()
	}
	switch e.State {
	case NodeUpdated:
		if open || late {
			n.State, n.Code, n.Known = NodeUpdated, "", false
		}
	case NodeFailed:
		if open || late && e.Code != TimeLimit {
			n.fall(NodeFailed, e.Code)
		}
	case NodeRolledBack, NodeDependency:
		if open || n.Watched() || late {
			n.fall(e.State, e.Code)
		}
	case NodeSkipped:
		if open || late || n.Code == OtherVersion { // which may be the version that took the place of the unproven one
			n.State, n.Code, n.Known = NodeSkipped, e.Code, false
		}
	}
}
