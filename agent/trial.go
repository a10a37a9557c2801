package agent

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/bilbycast/edge-agent/probe"
	"github.com/bilbycast/edge-agent/stage"
	"github.com/bilbycast/edge-agent/state"
)

// judge proves, within the window from this process's start, that the version
// on trial is healthy: authenticated to the manager with the new version, its
// own check passing, both held for health_hold_secs. Then it keeps the version
// and returns nil. Otherwise it returns an error, which ends the process.
//
// In attached mode (see Attend) the service does not talk to the manager, so
// only the checks count, and a service that somebody stopped is waited for.
//
// A manager that answers 429 or 5xx does not let the node authenticate, and
// that is not the node's fault: each such answer moves the end of the window.
// All times are monotonic.
func (a *Agent) judge(ctx context.Context, res state.Result) error {
	target := res.State.Target.String()
	log := a.log.With().Str("version", target).Int("boot_attempts", res.State.BootAttempts).Logger()
	log.Info().Str("window", a.c.Window.String()).Str("hold", a.c.Hold.String()).Msg("on trial")
	a.say(func(w *words) {
		w.service = fmt.Sprintf("%s is on trial, start %d of %d", target, res.State.BootAttempts, res.State.MaxBootAttempts)
	})

	end := a.began.Add(a.c.Window)
	var healthySince time.Time
	var extended string
	why := "the manager was never reached"
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	nextCheck := time.Time{}
	checked := false
	for {
		now := time.Now()
		a.mu.Lock()
		authenticated, excuse, excused := a.authenticated, a.fault, a.faultAt
		a.mu.Unlock()

		if a.unitOf != nil {
			authenticated, excuse = true, ""
		}
		// A version whose own check fails is not excused: that is no manager's fault.
		if excuse != "" && checked && excused.Add(a.c.Window).After(end) {
			end = excused.Add(a.c.Window)
			if extended == "" {
				log.Warn().Str("reason", excuse).Msg("the manager is at fault, not this version; the trial is extended")
			}
			extended = excuse
			a.notify(fmt.Sprintf("EXTEND_TIMEOUT_USEC=%d", end.Sub(now).Microseconds()))
			a.say(func(w *words) { w.upgrade = "the trial is extended, because the manager is at fault" })
		}
		if !now.Before(nextCheck) {
			nextCheck = now.Add(time.Second)
			err := a.check(ctx)
			if checked = err == nil; !checked {
				why = "its own check fails: " + err.Error()
			}
			if errors.Is(err, ErrStopped) {
				end = now.Add(a.c.Window)
			}
		}
		switch {
		case !authenticated || !checked:
			if !healthySince.IsZero() {
				log.Warn().Msg("no longer healthy; the hold starts again")
			}
			healthySince = time.Time{}
		case healthySince.IsZero():
			healthySince = now
			log.Info().Msg("the new version is healthy; holding")
		}
		if authenticated && !checked {
			// why is the check's
		} else if authenticated {
			why = "it was not healthy for long enough"
		}
		if !healthySince.IsZero() && now.Sub(healthySince) >= a.c.Hold {
			break
		}
		if now.After(end) {
			a.say(func(w *words) { w.service = fmt.Sprintf("%s did not prove healthy: %s", target, why) })
			return fmt.Errorf("%s did not prove healthy within %v of its start: %s", target, a.c.Window, why)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
	return a.keep(ctx, extended)
}

func (a *Agent) check(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	if a.unitOf != nil {
		if err := a.unitOf.check(ctx, a.c.Layout); err != nil {
			return err
		}
	}
	if a.c.Check != nil {
		if err := a.c.Check(ctx); err != nil {
			return err
		}
	}
	return probe.Run(ctx, a.c.Health)
}

// keep records that the version proved healthy. A disk that cannot take the
// record is no reason to call the version unhealthy: it is ready, and the
// record is tried again.
func (a *Agent) keep(ctx context.Context, extended string) error {
	note := ""
	if extended != "" {
		note = "the trial was extended: " + extended
	}
	var before state.State
	_, ok := a.record(ctx, "the new version is healthy", func(s state.State, t state.Tree) (state.State, state.Tree, error) {
		before = s
		s, t = state.Keep(s, t, note, time.Now().UTC())
		return s, t, nil
	}, func(res state.Result) {
		a.ready(res)
		wake(a.beat)
	})
	if !ok {
		return nil
	}
	a.log.Info().Str("from", before.Previous.String()).Str("to", before.Target.String()).
		Int("boot_attempts", before.BootAttempts).Msg("upgrade completed: the new version is healthy")
	if err := stage.Prune(ctx, a.c.Layout, a.c.Upgrade.KeepVersions, a.c.version); err != nil {
		a.log.Warn().Err(err).Msg("old versions were not removed")
	}
	return nil
}

// record makes a change that must not be lost, trying again until it is on
// disk or ctx is done; false means the latter. tried, if set, is called once,
// after the first try, whatever came of it.
func (a *Agent) record(ctx context.Context, what string, change state.Change, tried func(state.Result)) (state.Result, bool) {
	for {
		res, err := a.do(ctx, change)
		if tried != nil {
			tried(res)
			tried = nil
		}
		if err == nil {
			return res, true
		}
		a.log.Error().Err(err).Str("what", what).Msg("could not be recorded; trying again")
		select {
		case <-ctx.Done():
			return res, false
		case <-time.After(recordPause):
		}
	}
}

// recordPause is between two tries of record.
const recordPause = 5 * time.Second
