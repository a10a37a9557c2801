package rollout

import (
	"errors"
	"fmt"
	"slices"
)

// ErrBroken means that only Abort is possible: the state of the rollout is not valid.
var ErrBroken = errors.New("the rollout is broken, and can only be aborted")

// Break reports that the rollout cannot continue, and why. It pauses the rollout. Resume tries
// again.
type Break struct{ Reason string }

func (Break) event() {}

// Check returns an error unless the state of the rollout is one that Step can return.
func (r Rollout) Check() error {
	switch {
	case !slices.Contains([]Status{Running, Settling, Waiting, Paused, Completed, Aborted}, r.Status):
		return fmt.Errorf("its status %.40q is unknown", r.Status)
	case r.Settle < 0 || r.Limit <= 0 || r.Life <= 0:
		return fmt.Errorf("its times are not valid: settle %v, limit %v, life %v", r.Settle, r.Limit, r.Life)
	case r.Threshold < 1:
		return fmt.Errorf("its threshold is %d", r.Threshold)
	case len(r.Nodes) == 0 || len(r.Waves) == 0:
		return fmt.Errorf("it has %d nodes in %d waves", len(r.Nodes), len(r.Waves))
	case r.Wave < 0 || r.Wave >= len(r.Waves):
		return fmt.Errorf("its wave is %d of %d", r.Wave+1, len(r.Waves))
	}
	before := 0
	for _, w := range r.Waves {
		if w <= before || w > len(r.Nodes) {
			return fmt.Errorf("its waves %v do not fit %d nodes", r.Waves, len(r.Nodes))
		}
		before = w
	}
	if before != len(r.Nodes) {
		return fmt.Errorf("its waves %v do not fit %d nodes", r.Waves, len(r.Nodes))
	}
	states := []NodeState{NodeWaiting, NodeCommanded, NodeUpdated, NodeFailed, NodeRolledBack, NodeSkipped, NodeMissed, NodeUnproven, NodeDependency}
	seen := make(map[string]bool, len(r.Nodes))
	for _, n := range r.Nodes {
		if n.ID == "" || seen[n.ID] || n.Attempt < 0 || !slices.Contains(states, n.State) {
			return fmt.Errorf("its node %.80q is not valid: state %.40q, attempt %d", n.ID, n.State, n.Attempt)
		}
		seen[n.ID] = true
	}
	return nil
}

// recordBroken pauses the rollout, which cannot continue.
func (r *Rollout) recordBroken(reason string, acts *[]Action) {
	text := "broken: " + reason
	switch {
	case r.Broken == reason:
		return
	case r.Status != Paused:
		r.pause(text, acts)
	case r.Reason == "" || r.Broken != "":
		r.Reason = text
	default:
		r.Reason += "; " + text
	}
	r.Broken = reason
}
