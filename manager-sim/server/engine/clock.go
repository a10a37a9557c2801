package engine

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/bilbycast/edge-agent/manager-sim/rollout"
	"github.com/bilbycast/edge-agent/manager-sim/store"
)

// maxBeatGap is the longest time between two beats of a manager that runs. A longer one is
// an outage: the process or its machine was suspended, or the database did not answer.
const maxBeatGap = 3 * tickInterval

// Clock measures time limits, which do not run while no manager runs. It stores when the
// manager last ran, and so measures an outage at the next start, whatever ended the manager.
// A nil Clock knows no outage.
type Clock struct {
	store *store.Store

	mu        sync.Mutex
	beat      time.Time // the last one that is stored
	corrected time.Time // when this Clock began, or last saw that the clock was set back
	outages   rollout.Outages
	last      store.Beat // the last one; at first, that of the manager before
	mono      time.Time  // of last, with the monotonic clock; zero: last is of the manager before
	before    time.Time  // of the last beat of the manager before
	jump      *Jump      // nil: none that has to be looked at
	seen      bool       // a manager before this one saw a node in the same boot of the machine

	boot func() Boot
}

// StartClock records that the manager runs, and the outage before.
func StartClock(ctx context.Context, st *store.Store) (*Clock, error) {
	return StartClockAt(ctx, st, time.Now(), thisBoot)
}

// StartClockAt is StartClock at a time, on a machine with a boot.
func StartClockAt(ctx context.Context, st *store.Store, now time.Time, boot func() Boot) (*Clock, error) {
	last, err := st.LastBeat(ctx)
	if err != nil {
		return nil, err
	}
	c := &Clock{store: st, boot: boot, last: last, before: last.At}
	if id := boot().ID; id != "" && id == last.BootID {
		// By the clock of that manager. A node that was seen later than its last beat was seen
		// before the boot, by a clock that was right.
		if c.seen, err = st.SeenBetween(ctx, last.At.Add(-last.Boot), last.At.Add(maxBeatGap)); err != nil {
			return nil, err
		}
	}
	return c, c.record(ctx, now, 0)
}

// Beat records that the manager runs, if the last beat is older than tickInterval.
func (c *Clock) Beat(ctx context.Context, now time.Time) error {
	if c == nil {
		return nil
	}
	c.mu.Lock()
	due := now.Round(0).Sub(c.beat) >= tickInterval || now.Round(0).Before(c.beat)
	c.mu.Unlock()
	if !due {
		return nil
	}
	if _, err := c.store.Away(); err != nil { // what changes a row in its place may still be possible
		return err
	}
	return c.record(ctx, now, maxBeatGap)
}

// Stop records when the manager ended.
func (c *Clock) Stop(ctx context.Context) error {
	if c == nil {
		return nil
	}
	return c.record(ctx, time.Now(), maxBeatGap)
}

// Outages returns the outages of the manager until now. If the last beat is too old, the
// last of them lasts from it until now, and the next beat stores it: no time limit runs
// while beats are not possible.
func (c *Clock) Outages(now time.Time) rollout.Outages {
	if c == nil {
		return nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if now = now.Round(0); now.Sub(c.beat) > maxBeatGap {
		return append(slices.Clip(c.outages), rollout.Outage{Began: c.beat, Ended: now})
	}
	return c.outages // which record replaces, and never changes
}

// Age returns how long a manager has run since a time.
func (c *Clock) Age(since time.Time) time.Duration {
	now := time.Now()
	return c.Outages(now).Elapsed(c.Past(since, now), now)
}

// Past returns the stored time t. If t is in the future, it was stored before the clock was
// set back: then Past returns when that was noticed, and at the latest now.
func (c *Clock) Past(t, now time.Time) time.Time {
	if !t.After(now) {
		return t
	}
	if c == nil {
		return now
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if t.Sub(now) <= maxBeatGap || now.Before(c.corrected) || now.Round(0).Before(c.beat) { // not noticed yet, or so little that it never is
		return now
	}
	return c.corrected
}

// After reports whether the stored time t is later than u, also if the clock was set back
// between the two.
func (c *Clock) After(t, u time.Time) bool {
	now := time.Now()
	return t.After(u) || c.Past(t, now).After(c.Past(u, now))
}
