package agent

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/bilbycast/edge-agent/release"
	"github.com/bilbycast/edge-agent/state"
	"github.com/bilbycast/edge-agent/trial"
)

// watchPrevious watches the check of the previous version for a window, after a rollback for
// the check of an attached service. If it fails as well, probably what the service depends on
// is down, and the version that was rolled back is not at fault: the event of the rollback
// says so. It is sent when that is known. ends is the start of the version that was rolled
// back.
func (a *Agent) watchPrevious(ctx context.Context, res state.Result, ends string) error {
	entries, _, err := a.c.Layout.Outbox().List()
	if err != nil {
		return nil // nothing of it is sent either
	}
	entries = slices.DeleteFunc(entries, func(e state.Entry) bool { return !e.Watched() })
	if len(entries) == 0 {
		return nil
	}
	why := ""
	if a.attached != nil && res.State.Status == state.RolledBack {
		why = a.failsAsWell(ctx, ends)
	}
	if ctx.Err() != nil {
		return nil // the next agent begins again
	}
	for _, e := range entries {
		a.amendWatched(ctx, e, why)
	}
	wake(a.outbox)
	return nil
}

// failsAsWell returns why the check of the version that runs did not hold within a window; ""
// if it did, or if that is not known.
func (a *Agent) failsAsWell(ctx context.Context, ends string) (why string) {
	tick := time.NewTicker(pace(time.Second))
	defer tick.Stop()
	begin := time.Now()
	var up, well time.Time
	for {
		now := time.Now()
		if unit, err := a.attached.look(ctx); err == nil && unit.Active && unit.Invocation != ends {
			if up.IsZero() {
				up = now
			}
			own, said := a.askOwn(ctx)
			switch {
			case own != trial.Passes:
				well = time.Time{}
			case well.IsZero():
				well = now
			}
			switch over := now.Sub(up) >= a.c.Window; {
			case !well.IsZero() && now.Sub(well) >= a.c.Hold, over && (own == trial.Passes || own == trial.NotRun):
				return ""
			case over:
				return said
			}
		}
		if now.Sub(begin) >= 3*a.c.Window { // it does not run
			return ""
		}
		select {
		case <-ctx.Done():
			return ""
		case <-tick.C:
		}
	}
}

// amendWatched completes an event that was not sent yet.
func (a *Agent) amendWatched(ctx context.Context, e state.Entry, why string) {
	for {
		err := a.c.Layout.Locked(ctx, func() error {
			return a.c.Layout.Outbox().Amend(e.ID, func(e *state.Entry) {
				e.Event.Watch = false
				if why != "" {
					e.Event.Dependency = true
					e.Event.Message += fmt.Sprintf("; probably a dependency is down: the check of %s fails as well: %s", e.Event.To, release.Foreign(why, maxRoundWords))
				}
			})
		})
		if err == nil || ctx.Err() != nil {
			break
		}
		a.log.Warn().Err(err).Msg("the event of the rollback was not completed; trying again")
		select {
		case <-ctx.Done():
		case <-time.After(recordPause):
		}
	}
	if why != "" && ctx.Err() == nil {
		a.log.Error().Str("reason", why).Msg("the check of the previous version fails as well: probably a dependency is down, and the version that was rolled back is not at fault")
	}
}
