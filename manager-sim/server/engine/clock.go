package engine

import (
	"context"
	"sync"
	"time"

	"github.com/bilbycast/edge-agent/manager-sim/rollout"
	"github.com/bilbycast/edge-agent/manager-sim/store"
)

// maxBeatGap is the longest time between two beats of a manager that runs. A longer one is
// an outage: the process or its machine was suspended.
const maxBeatGap = 3 * tickInterval

// Clock measures time limits, which do not run while no manager runs. It stores when the
// manager last ran, and so measures an outage at the next start, whatever ended the manager.
// A nil Clock knows no outage.
type Clock struct {
	store *store.Store

	mu      sync.Mutex
	beat    time.Time // the last one
	outages rollout.Outages
}

// StartClock records that the manager runs, and the outage before.
func StartClock(ctx context.Context, st *store.Store) (*Clock, error) {
	c := &Clock{store: st}
	return c, c.record(ctx, time.Now(), 0)
}

// Beat records that the manager runs, if the last beat is older than tickInterval. It is
// called before time limits are evaluated, so that they never run in an outage.
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
	return c.record(ctx, now, maxBeatGap)
}

// Stop records when the manager ended.
func (c *Clock) Stop(ctx context.Context) error {
	if c == nil {
		return nil
	}
	return c.record(ctx, time.Now(), maxBeatGap)
}

func (c *Clock) record(ctx context.Context, now time.Time, gap time.Duration) error {
	if err := c.store.RecordAlive(ctx, now, gap); err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	now = now.Round(0) // as it is stored: without the monotonic clock, which stops in a suspended machine
	known := !c.beat.IsZero() && now.Sub(c.beat) <= gap && !now.Before(c.beat)
	c.beat = now
	if known {
		return nil
	}
	list, err := c.store.Outages(ctx)
	if err != nil {
		return err
	}
	c.outages = make(rollout.Outages, len(list))
	for i, o := range list {
		c.outages[i] = rollout.Outage{Began: o.Began, Ended: o.Ended}
	}
	return nil
}

// Outages returns the outages of the manager until now.
func (c *Clock) Outages() rollout.Outages {
	if c == nil {
		return nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.outages // which record replaces, and never changes
}

// Age returns how long a manager has run since a time.
func (c *Clock) Age(since time.Time) time.Duration { return c.Outages().Elapsed(since, time.Now()) }
