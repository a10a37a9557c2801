package rollout

import (
	"fmt"
	"time"
)

// Uptime is how long managers have run in all, at a time: a sum over restarts, by a clock
// that nobody sets. The zero value means that it is not known.
type Uptime struct {
	At  time.Time
	Sum time.Duration
}

// maxLag is by how much an uptime may be behind one that a rollout recorded before: a manager
// that is killed loses the time since it last stored its own.
const maxLag = time.Minute

// since returns how much uptime has passed since it was up, and whether both are known.
func (r Rollout) since(up time.Duration) (time.Duration, bool) {
	return max(0, r.Uptime.Sum-up), up > 0 && r.Uptime.Sum > 0 && r.Uptime.Sum >= up-maxLag
}

// end returns when d has passed since a time at which the uptime was up. If the uptimes are
// known, they alone decide: the wall clock may have been set since. Otherwise, as in the state
// of an earlier version, the wall clock decides, without the outages.
func (r Rollout) end(from time.Time, up, d time.Duration) time.Time {
	if passed, ok := r.since(up); ok {
		return r.Uptime.At.Add(d - passed)
	}
	return r.Outages.After(from, d)
}

// passed reports whether d has passed since a time at which the uptime was up.
func (r Rollout) passed(from time.Time, up, d time.Duration, now time.Time) bool {
	if passed, ok := r.since(up); ok {
		return passed >= d
	}
	return r.Outages.Elapsed(from, now) >= d
}

// Begin records the uptime at which a rollout of New began.
func (r *Rollout) Begin(up Uptime) {
	r.Uptime, r.CreatedUp = up, up.Sum
	for i := range r.Nodes {
		if !r.Nodes[i].Since.IsZero() {
			r.Nodes[i].SinceUp = up.Sum
		}
	}
	if !r.SettleUntil.IsZero() {
		r.SettleUp = up.Sum
	}
}

// Result describes how the rollout ended; "" while it has not.
func (r Rollout) Result() string {
	switch missed := r.Count(NodeMissed); {
	case r.Status == Aborted:
		return "aborted"
	case r.Status != Completed:
		return ""
	case missed == 1:
		return "ended: 1 node never came"
	case missed > 1:
		return fmt.Sprintf("ended: %d nodes never came", missed)
	}
	return "completed"
}
