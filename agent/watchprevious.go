package agent

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/bilbycast/edge-agent/internal/state"
	"github.com/bilbycast/edge-agent/release"
	"github.com/bilbycast/edge-agent/trial"
	"github.com/bilbycast/edge-agent/wire"
)

// watchPrevious watches the check of the previous version, after a rollback for the check of an
// attached service. If it fails as well, probably what the service depends on is down, and the
// version that was rolled back is not at fault: the event of the rollback says so. It is sent
// when that is known. While the outbox cannot be written, the event is still to come.
func (a *Agent) watchPrevious(ctx context.Context, res state.Result) error {
	why, known := "", a.attached == nil || res.State.Status != state.RolledBack
	for ctx.Err() == nil {
		entries, toCome := a.watched()
		if len(entries) > 0 {
			if !known {
				why, known = a.failsAsWell(ctx, res), true
			}
			if ctx.Err() != nil {
				return nil // the next agent begins again
			}
			for _, e := range entries {
				a.amendWatched(ctx, e, why)
			}
			wake(a.outbox)
			continue
		}
		if !toCome {
			return nil
		}
		select {
		case <-ctx.Done():
		case <-time.After(wire.HealthInterval):
			a.do(ctx, func(s state.State, t state.Tree, _ time.Time) (state.State, state.Tree, error) { return s, t, nil })
		}
	}
	return nil
}

// watched returns the events of the outbox that are watched, and whether one is still to come.
func (a *Agent) watched() (entries []state.Entry, toCome bool) {
	entries, _, err := a.c.Layout.Outbox().List()
	entries = slices.DeleteFunc(entries, func(e state.Entry) bool { return !e.Watched() })
	res, e := a.c.Layout.Read()
	return entries, err != nil || e != nil || slices.ContainsFunc(res.State.PendingReports, state.Entry.Watched)
}

// failsAsWell returns why the check of the version that runs does not pass, by the measure of a
// trial: for as long as a start may take, and half a window more. It returns "" if it
// passes, or if that is not known.
func (a *Agent) failsAsWell(ctx context.Context, res state.Result) (why string) {
	tick := time.NewTicker(pace(time.Second))
	defer tick.Stop()
	begin, old := time.Now(), a.outdated(res)
	if since := begin.Sub(res.State.Since); since > 0 && since < 3*a.c.Window { // an agent before this one watched, too
		begin = res.State.Since
	}
	limit := a.c.Window
	var well time.Time
	for {
		now := time.Now()
		unit, err := a.attached.look(ctx)
		limit = max(limit, unit.StartLimit)
		if _, is := old[unit.Invocation]; err == nil && unit.Active && !is {
			own, said := a.askOwn(ctx)
			switch {
			case own != trial.Passes:
				well = time.Time{}
			case well.IsZero():
				well = now
			}
			switch over := unit.Age >= limit+a.c.Window/2; {
			case !well.IsZero() && now.Sub(well) >= a.c.Hold, over && (own == trial.Passes || own == trial.NotRun):
				return ""
			case over:
				return said
			}
		}
		if now.Sub(begin) >= 3*limit { // it does not run
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
		a.log.Warn("the event of the rollback was not completed; trying again", "error", err)
		select {
		case <-ctx.Done():
		case <-time.After(recordPause):
		}
	}
	if why != "" && ctx.Err() == nil {
		a.log.Error("the check of the previous version fails as well: probably a dependency is down, and the version that was rolled back is not at fault", "reason", why)
	}
}
