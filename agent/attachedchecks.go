package agent

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"github.com/bilbycast/edge-agent/internal/state"
	"github.com/bilbycast/edge-agent/probe"
	"github.com/bilbycast/edge-agent/release"
	"github.com/bilbycast/edge-agent/trial"
)

// pause is the time between two checks. After ten minutes a check that forks a program must
// not do so each second.
func (j *attachedJudge) pause() time.Duration {
	if j.calm {
		return min(pace(calmPause), j.a.c.Window/4)
	}
	return pace(time.Second)
}

// longestGap is how long the check may not be asked, besides the pause between two, while it
// is still known to pass: systemd may answer late, once.
const longestGap = 10 * time.Second

// check asks the service's own check.
func (j *attachedJudge) check(ctx context.Context, now time.Time) {
	if now.Sub(j.answered) > j.pause()+pace(longestGap) { // nobody knows what it did meanwhile
		j.well = time.Time{}
	}
	j.own, j.why = j.a.askOwn(ctx)
	if ctx.Err() != nil {
		return
	}
	j.hears(now)
	if j.own != trial.Passes {
		if !j.well.IsZero() {
			j.log.Warn("its own check does not pass any more", "check", string(j.own), "reason", j.why)
		}
		j.well = time.Time{}
		return
	}
	if j.well.IsZero() {
		j.well = now
		j.log.Info("its own check passes; holding")
	}
	if !j.record.Ready || !j.record.Passed {
		j.record.Ready, j.record.Passed = true, true
		j.note(now)
	}
}

// hears notes when the check answered, and whether it has not failed for ten minutes: one that
// cannot tell speaks against nothing.
func (j *attachedJudge) hears(now time.Time) {
	j.answered = time.Now()
	switch {
	case j.own != trial.Passes && j.own != trial.CannotTell:
		j.unfailed = time.Time{}
	case j.unfailed.IsZero():
		j.unfailed = now
	case !j.calm && now.Sub(j.unfailed) >= pace(calmAfter):
		j.calm, j.record.Calm = true, true
		j.note(now)
	}
}

// askOwn asks once whether the attached service is well, and says why not.
func (a *Agent) askOwn(ctx context.Context) (trial.Own, string) {
	limited, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	switch older, err := a.attached.Older(limited); {
	case older != "":
		return trial.Fails, older
	case err != nil && !isTimeout(err): // what answers is not known
		return trial.NotRun, err.Error()
	}
	if err := a.askCheck(ctx); err != nil {
		return trial.Fails, err.Error()
	}
	own, err := probe.Ask(ctx, a.c.Health, a.c.clock)
	if err != nil {
		return own, err.Error()
	}
	return own, "it passes"
}

// judge makes a round of checks after the limit of the start: the dependency, the service's
// own check, and the dependency again. done means that the version is kept.
func (j *attachedJudge) judge(ctx context.Context) (done bool, err error) {
	a, start := j.a, j.unit.Invocation
	h := a.c.Health
	dep := trial.Dependency{Set: h.Dependency.Set()}
	words := ""
	depends := func() bool {
		if !dep.Set {
			return true
		}
		if err := probe.Dependency(ctx, h, a.c.clock); err != nil {
			words = err.Error()
			return false
		}
		return true
	}
	at := time.Since(j.begun)
	before := j.unit.Active
	dep.Before = depends()
	own, why := trial.Fails, j.unit.Words
	if before {
		own, why = a.askOwn(ctx)
		j.answered = time.Now()
	}
	dep.After = depends()
	unit, err := a.attached.look(ctx)
	if ctx.Err() != nil || err != nil || unit.Invocation != start || unit.State != trial.Up || unit.Active != before {
		return false, nil // it says nothing about that start
	}
	if j.record.FailedIn != start || at-time.Duration(j.record.FailedAt)*time.Millisecond >= pace(calmAfter) {
		j.record.Failed = 0 // of another start, or ten minutes ago
	}
	failed, finding := trial.Attached.Checks(j.record.Failed, own, dep, j.accepted)
	if failed > j.record.Failed {
		j.record.FailedIn, j.record.FailedAt = start, at.Milliseconds()
	}
	if dep.Set && words == "" {
		words = "it answers"
	}
	now := time.Now()
	found := fmt.Sprint(own, dep, finding, failed)
	changed := found != j.found
	if j.found = found; changed || now.Sub(j.wrote) >= j.every() {
		j.record.Failed, j.record.Check, j.record.Dependency = failed, release.Foreign(string(own)+": "+why, maxRoundWords), release.Foreign(words, maxRoundWords)
		j.note(now)
	}
	level := slog.LevelDebug
	if changed {
		level = slog.LevelInfo
	}
	j.log.Log(context.Background(), level, "a round of checks after the limit of the start", "check", string(own)+": "+why, "dependency", words, "finding", string(finding), "failed", failed)
	switch finding {
	case trial.Condemned:
		cause := "its own check fails: " + why
		if own == trial.CannotTell {
			cause = "its own check cannot tell, while its dependency answers: " + why
		}
		j.condemn(ctx, fmt.Sprintf("within %v: %s", j.limit(), cause), now)
	case trial.NoEvidence, trial.Well:
		j.reached(state.Unproven, j.waitsFor(j.seen(now)), now)
	case trial.Waived:
		return j.keep(ctx, "an operator accepted it, although its own check cannot tell")
	}
	return false, nil
}

// waitsFor says what the version lacks.
func (j *attachedJudge) waitsFor(seen trial.Seen) string {
	unit := j.a.c.Service.Unit
	switch {
	case j.unit.State == trial.Between:
		return unit + " to start: " + j.unit.Words
	case j.unit.State == trial.Stopped && j.stopped != nil && *j.stopped != "":
		return fmt.Sprintf("somebody to start %s: %s: %s", unit, j.unit.Words, *j.stopped)
	case j.unit.State == trial.Stopped:
		return fmt.Sprintf("somebody to start %s: %s", unit, j.unit.Words)
	case !seen.Began, seen.Noted:
		return "a restart of " + unit
	case j.own == trial.CannotTell && !j.a.c.Health.Dependency.Set():
		return "its own check to tell, or an operator: edge-agent accept; the check cannot tell: " + j.why
	case j.own == trial.CannotTell:
		return fmt.Sprintf("its dependency (%s); its own check cannot tell: %s", j.record.Dependency, j.why)
	case j.own != trial.Passes && j.record.Dependency != "":
		return fmt.Sprintf("its own check to pass: %s; the dependency: %s", j.why, j.record.Dependency)
	case j.own != trial.Passes:
		return "its own check to pass: " + j.why
	case !seen.Held:
		return fmt.Sprintf("its own check to pass for %v", j.a.c.Hold)
	}
	return "the end of its first health window"
}

// reached records the stage that the version has reached in this start.
func (j *attachedJudge) reached(stage state.TrialStage, waits string, now time.Time) {
	waits = release.Foreign(waits, maxRoundWords)
	changed := j.record.Stage != stage
	if !changed && (j.record.Waits == waits || now.Sub(j.wrote) < j.every()) {
		return
	}
	if changed {
		j.record.Since = now.UTC()
	}
	j.record.Stage, j.record.Waits = stage, waits
	j.note(now)
	if !changed {
		return
	}
	words := fmt.Sprintf("%s is on trial, start %d of %d", j.target, j.state.BootAttempts, j.state.MaxBootAttempts)
	if stage == state.Unproven {
		j.log.Warn("this version is unproven: it serves, and waits", "waits_for", waits, "rollback_to", j.state.Previous.String())
		words = j.target + " runs, unproven: it waits for " + waits
	}
	j.a.setStatus(func(w *statusText) { w.service, w.upgrade = words, "" })
	wake(j.a.healthDue)
}

// every is how often what a version waits for is written: see judge.every.
func (j *attachedJudge) every() time.Duration {
	if j.calm || !j.record.Since.IsZero() && time.Since(j.record.Since) >= pace(calmAfter) {
		return 20 * pace(recordEvery)
	}
	return pace(recordEvery)
}

// note writes the record of the trial.
func (j *attachedJudge) note(now time.Time) {
	j.wrote = now
	if err := j.a.c.Layout.RecordJudge(j.record); err != nil {
		j.log.Warn("what the trial found was not recorded", "error", err)
	}
}
