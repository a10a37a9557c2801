package agent

import (
	"context"
	"fmt"
	"time"

	"github.com/bilbycast/edge-agent/internal/state"
	"github.com/bilbycast/edge-agent/trial"
)

// outdated are the starts of the attached service that run a version to which current no
// longer points. The value says that this agent itself moved current: such a start ends at
// once. That of an operator ends after followWait.
type outdated map[string]bool

// outdated returns those that are known: from the records of the trial that was rolled back,
// and from what this process saw.
func (a *Agent) outdated(res state.Result) outdated {
	u, starts := a.attached, outdated{}
	starts[u.stale] = false
	if s, l := res.State, a.c.Layout; s.Status == state.RolledBack && res.Tree.Current != s.Target {
		counted, _ := l.ReadStarts(s)
		judged := l.ReadJudge(s)
		starts[counted.Invocation] = false
		delete(starts, judged.Before) // it runs what current points to again
		starts[judged.Ends] = true
	}
	starts[u.ended] = true
	delete(starts, "")
	return starts
}

// awaitRestart restarts the attached unit if it still runs in an outdated start. A trial does
// that by itself.
func (a *Agent) awaitRestart(ctx context.Context, res state.Result) error {
	if res.State.Status == state.PendingHealth { // the judge then changes what outdated reads
		return nil
	}
	old := a.outdated(res)
	if len(old) == 0 {
		return nil
	}
	said := false
	defer func() {
		if said {
			a.setDiffers(nil)
		}
	}()
	tick := time.NewTicker(pace(time.Second))
	defer tick.Stop()
	requests := requests{a: a}
	stopped := false
	for begin, last := time.Now(), (time.Time{}); ; {
		if stopped && time.Since(last) < pace(5*time.Second) { // each look forks a process
			select {
			case <-ctx.Done():
				return nil
			case <-tick.C:
			}
			continue
		}
		last = time.Now()
		unit, err := a.attached.look(ctx)
		stopped = err == nil && unit.State == trial.Stopped
		atOnce, is := old[unit.Invocation]
		if ctx.Err() != nil || err == nil && !is {
			return nil
		}
		now := time.Now()
		switch {
		case err != nil:
		case !atOnce && now.Sub(begin) < followWait:
			if !said {
				said = true
				a.setDiffers(fmt.Errorf("current was pointed to %s, and %s was not restarted since: it is restarted in %v", a.c.version, a.c.Service.Unit, followWait))
			}
		default:
			switch a.rerun(unit, &requests, now) {
			case trial.Ask:
				requests.ask(ctx, unit)
			case trial.Mend:
				if err := requests.mend(); err != nil {
					return err
				}
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// rerun is what to do about a service that runs in an outdated start.
func (a *Agent) rerun(unit trial.Service, r *requests, now time.Time) trial.Act {
	asked, unserved := r.pending(unit, now)
	return trial.Seen{
		Unit: unit.State, Began: true, Counted: true, Reverted: true, OwnStop: unit.OwnStop, Asked: asked, Unserved: unserved, Mendable: unit.PathDown,
	}.Next()
}

// staleStart returns the id of the start of the unit that ran before current was changed,
// a moment ago; "" if that is not known. A start that is only just known may have followed
// the change.
func (u *attached) staleStart() string {
	u.mu.Lock()
	defer u.mu.Unlock()
	if time.Since(u.since) < 5*time.Second {
		return ""
	}
	return u.start
}
