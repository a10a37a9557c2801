package agent

import (
	"context"
	"fmt"
	"time"

	"github.com/bilbycast/edge-agent/internal/state"
	"github.com/bilbycast/edge-agent/stage"
)

// runTrial decides whether the version on trial is healthy: within the window, which
// starts at began, the node is authenticated to the manager as the new
// version and its own check passes, both for health_hold_secs without a break. Then
// runTrial keeps the version and returns nil. Otherwise it returns an error, which
// ends the process.
//
// A manager that answers 429 or 5xx does not let the node authenticate. That is not
// the fault of the version, so each such answer extends the window. All times are
// monotonic.
//
// That is the rule where last-good has no probe. Elsewhere a judge decides, and in attached
// mode another one.
func (a *Agent) runTrial(ctx context.Context, res state.Result, began time.Time) error {
	if a.attached != nil {
		return a.newAttachedJudge(res).run(ctx)
	}
	a.notify(fmt.Sprintf("EXTEND_TIMEOUT_USEC=%d", (a.c.Window + verdictTime).Microseconds()))
	if j := a.judged(res, began); j != nil {
		return j.run(ctx)
	}
	target := res.State.Target.String()
	log := a.log.With("version", target, "boot_attempts", res.State.BootAttempts)
	log.Info("on trial", "window", a.c.Window.String(), "hold", a.c.Hold.String())
	a.setStatus(func(w *statusText) {
		w.service = fmt.Sprintf("%s is on trial, start %d of %d", target, res.State.BootAttempts, res.State.MaxBootAttempts)
	})

	end := began.Add(a.c.Window)
	// A release may need longer until its check first passes: it migrates data.
	first := stage.FirstStartOf(a.c.Layout, res.State.Target)
	if a.c.Layout.ReadJudge(res.State).Passed {
		first = 0
	}
	if first > a.c.Window {
		end = began.Add(first)
		log.Info("the release may take this long until its check first passes", "first_start", first.String())
		a.notify(fmt.Sprintf("EXTEND_TIMEOUT_USEC=%d", (first + a.c.Window).Microseconds()))
	}
	var healthySince time.Time
	var extended string
	why := "the manager was never reached"
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	nextCheck := time.Time{}
	checked, passed, calm := false, false, false
	accepted := a.c.Layout.Accepted(res.State)
	var wellSince time.Time // the check has passed without a break since
	for {
		now := time.Now()
		a.mu.Lock()
		authenticated, fault, faultUntil := a.authenticated, a.managerFault, a.managerFaultUntil
		a.mu.Unlock()

		if accepted || len(a.c.URLs) == 0 { // its link needs no proof, or there is none
			authenticated, fault = true, ""
		}
		// Nothing extends the window of a version whose own check fails.
		if fault != "" && checked && faultUntil.Add(a.c.Window).After(end) {
			end = faultUntil.Add(a.c.Window)
			if extended == "" {
				log.Warn("the manager is at fault, not this version; the trial is extended", "reason", fault)
			}
			extended = fault
			a.notify(fmt.Sprintf("EXTEND_TIMEOUT_USEC=%d", end.Sub(now).Microseconds()))
			a.setStatus(func(w *statusText) { w.upgrade = "the trial is extended, because the manager is at fault" })
		}
		if !now.Before(nextCheck) {
			nextCheck = now.Add(time.Second)
			if !accepted && a.c.Layout.Accepted(res.State) {
				accepted = true
				log.Warn("an operator accepted this version: its link to the manager needs no proof")
			}
			err := a.check(ctx)
			if err == nil && !passed && ctx.Err() == nil { // one that is to stop is not ready
				err = a.readyOnTrial(res.State, func(change func(*state.JudgeRecord)) { a.recordJudge(res.State, change) })
				if passed = err == nil; passed && first > a.c.Window {
					end = now.Add(a.c.Window)
				}
			}
			if checked = err == nil; !checked {
				why = "its own check fails: " + err.Error()
			}
			switch {
			case !checked:
				wellSince = time.Time{}
			case wellSince.IsZero():
				wellSince = now
			case !calm && now.Sub(wellSince) >= calmAfter:
				calm = true
				a.recordJudge(res.State, func(r *state.JudgeRecord) { r.Calm = true })
			}
		}
		switch {
		case !authenticated || !checked:
			if !healthySince.IsZero() {
				log.Warn("no longer healthy; the hold starts again")
			}
			healthySince = time.Time{}
		case healthySince.IsZero():
			healthySince = now
			log.Info("the new version is healthy; holding")
		}
		if authenticated && !checked {
			// why is the error of the check
		} else if authenticated {
			why = "it was not healthy for long enough"
		}
		if !healthySince.IsZero() && now.Sub(healthySince) >= a.c.Hold {
			break
		}
		if now.After(end) && healthySince.IsZero() { // what is healthy now may finish its hold: the machine may have stood still
			a.setStatus(func(w *statusText) { w.service = fmt.Sprintf("%s did not prove healthy: %s", target, why) })
			return fmt.Errorf("%s did not prove healthy within %v of its start: %s", target, a.c.Window, why)
		}
		a.showTrial(res.State, state.JudgeRecord{Stage: state.OnTrial, Waits: why, Passed: passed})
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
	note := ""
	switch {
	case accepted:
		note = "an operator accepted it without the proof of its link to the manager"
	case len(a.c.URLs) == 0:
		note = "the node has no manager, so its check alone decided"
	case extended != "":
		note = "the trial was extended: " + extended
	}
	return a.keep(ctx, note)
}

// verdictTime is how much later than the window systemd ends a start that is not ready. Its
// TimeoutStartSec= began before this process did, with the commands before it: it would end
// the start first, and the cause that this process knows would be lost.
const verdictTime = 10 * time.Second

// calmAfter is how long the check of the version on trial must pass, without a break, for
// the starts before the present one to be forgotten.
const calmAfter = 10 * time.Minute

// recordJudge changes the record of the present start, if its watchdog keeps records.
func (a *Agent) recordJudge(s state.State, change func(*state.JudgeRecord)) {
	starts, ok := a.c.Layout.ReadStarts(s)
	if !ok {
		return
	}
	r := a.c.Layout.ReadJudge(s)
	r = r.InStart(starts.Number)
	change(&r)
	if err := a.c.Layout.RecordJudge(r); err != nil {
		a.log.Warn("how this start does was not recorded; an operator's restart may count as a failure", "error", err)
	}
}

// record retries change until it is durable. It reports false if ctx ended first.
// firstTry, if set, is called once, after the first attempt, whatever its result.
func (a *Agent) record(ctx context.Context, what string, change state.Change, firstTry func(state.Result)) (state.Result, bool) {
	for {
		res, err := a.do(ctx, change)
		if firstTry != nil {
			firstTry(res)
			firstTry = nil
		}
		if err == nil {
			return res, true
		}
		a.log.Error("could not be recorded; trying again", "error", err, "what", what)
		select {
		case <-ctx.Done():
			return res, false
		case <-time.After(recordPause):
		}
	}
}

// recordPause is the pause between two attempts of record.
const recordPause = 5 * time.Second
