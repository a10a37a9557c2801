package agent

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/bilbycast/edge-agent/internal/state"
	"github.com/bilbycast/edge-agent/stage"
	"github.com/bilbycast/edge-agent/trial"
)

// judge decides on a version on trial by the rules of package trial, where the service is
// its own agent and last-good can probe the link to the manager. It ends the process for
// the version's own fault, or for a link that last-good's probe contradicts. Otherwise the
// version serves, and stays on trial until its link is proven.
//
// All times are monotonic, and begin with this process.
type judge struct {
	a    *Agent
	res  state.Result
	swap state.SwapRecord
	log  *slog.Logger

	deadline time.Time     // until when the check must have held, once more
	guard    time.Time     // until when a version that proved healthy may still be rolled back
	first    time.Duration // how long the check may take until it first passes; 0: as always
	accepted bool          // an operator waived the proof of the link

	passed, calm bool      // in this start
	well         time.Time // since when the check passes without a break; zero: it fails
	why          string    // it failed last
	held         bool      // it has passed for health_hold_secs without a break until now

	link      trial.Link
	round     roundFound                                                     // the last one
	probe     func(ctx context.Context, began time.Time) (trial.Old, string) // probeOld
	asking    bool                                                           // rounds are made
	record    state.JudgeRecord                                              // as it is on disk
	wrote     time.Time                                                      // when the record was written last, or should have been
	unwritten bool                                                           // the disk did not take it
	again     time.Time                                                      // not before: a report that the disk did not take is tried again
}

// judged returns the judge of the trial in res, or nil if earlier rules apply: last-good has
// no probe that could tell a bad version from a bad line.
func (a *Agent) judged(res state.Result, began time.Time) *judge {
	swap, ok := a.c.Layout.ReadSwap(res.State)
	if !ok || swap.Attached || a.attached != nil || !stage.HasProbe(a.c.Layout, swap.From) {
		return nil
	}
	j := &judge{
		a: a, res: res, swap: swap, deadline: began.Add(a.c.Window), guard: began.Add(a.c.Window), why: "it did not answer yet",
		log: a.log.With("version", res.State.Target.String(), "boot_attempts", res.State.BootAttempts),
	}
	j.probe = j.probeOld
	starts, counted := a.c.Layout.ReadStarts(res.State)
	j.record = a.c.Layout.ReadJudge(res.State).InStart(starts.Number)
	if !counted { // the watchdog could not write its record, so the number says nothing
		j.record = j.record.InStart(-1).InStart(0)
	}
	j.link.Total = j.record.Rounds
	// A release may need longer until its check first passes: it migrates data.
	if first := pace(stage.FirstStartOf(a.c.Layout, res.State.Target)); first > a.c.Window && !j.record.Passed {
		j.first, j.deadline = first, began.Add(first)
	}
	return j
}

// checkTick is how often the judge looks at the time.
const checkTick = 100 * time.Millisecond

// run returns nil once the version is kept, or ctx is done.
func (j *judge) run(ctx context.Context) error {
	a := j.a
	j.log.Info("on trial", "window", a.c.Window.String(), "hold", a.c.Hold.String())
	if j.first > 0 {
		j.log.Info("the release may take this long until its check first passes", "first_start", j.first.String())
		a.notify(fmt.Sprintf("EXTEND_TIMEOUT_USEC=%d", (j.first + a.c.Window).Microseconds()))
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	rounds := make(chan roundFound)
	tick := time.NewTicker(checkTick)
	defer tick.Stop()
	var next time.Time // check
	for {
		if now := time.Now(); !now.Before(next) {
			j.check(ctx)
			next = now.Add(j.pause())
		}
		if ctx.Err() != nil {
			return nil
		}
		if j.passed && !j.asking && len(a.c.URLs) > 0 {
			j.asking = true
			go j.ask(ctx, rounds)
		}
		if !j.link.Proven && a.tries.proven() {
			j.proven()
		}
		if done, err := j.settle(ctx, time.Now()); done || err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return nil
		case found := <-rounds:
			if err := j.judgeRound(found); err != nil {
				return err
			}
		case <-tick.C:
		}
	}
}

// proven records that a session of this start was held. Contradictions before it were
// chance.
func (j *judge) proven() {
	j.link.Proven, j.link.Total = true, 0
	if j.record.Rounds > 0 {
		j.note(func(r *state.JudgeRecord) { r.Rounds = 0 })
	}
	j.log.Info("the link to the manager is proven")
}

// pause is the time between two checks. After ten minutes a check that forks a program must
// not do so each second.
func (j *judge) pause() time.Duration {
	if j.calm {
		return min(pace(calmPause), j.a.c.Window/4)
	}
	return pace(time.Second)
}

const calmPause = 15 * time.Second

// check asks the version's own check.
func (j *judge) check(ctx context.Context) {
	a := j.a
	if !j.accepted && a.c.Layout.Accepted(j.res.State) {
		j.accepted = true
		j.log.Warn("an operator accepted this version: its link to the manager needs no proof")
	}
	err := a.check(ctx)
	if ctx.Err() != nil {
		return
	}
	if err == nil && !j.passed {
		err = a.readyOnTrial(j.res.State, j.note)
	}
	now := time.Now()
	if err != nil {
		if !j.well.IsZero() {
			j.log.Warn("its own check fails", "error", err)
		}
		j.why, j.well, j.held = "its own check fails: "+err.Error(), time.Time{}, false
		return
	}
	if j.well.IsZero() {
		j.well = now
		j.why = fmt.Sprintf("its own check did not pass for %v without a break", a.c.Hold)
		j.log.Info("its own check passes; holding")
	}
	if !j.passed {
		j.passed = true
		if j.first > 0 { // the check's first window begins now
			j.deadline, j.guard = now.Add(a.c.Window), now.Add(a.c.Window)
		}
	}
	if j.held = now.Sub(j.well) >= a.c.Hold; j.held {
		j.deadline = now.Add(a.c.Window)
	}
	if !j.calm && now.Sub(j.well) >= pace(calmAfter) {
		j.calm = true
		j.note(func(r *state.JudgeRecord) { r.Calm = true })
	}
}

// settle acts on what the version has reached. done means that it is kept.
func (j *judge) settle(ctx context.Context, now time.Time) (done bool, err error) {
	a := j.a
	waived := j.accepted || len(a.c.URLs) == 0
	guarded := !now.Before(j.guard)
	switch result := trial.Settle(j.held && guarded, j.link.Proven, waived); {
	case now.After(j.deadline) && j.well.IsZero(): // a check that passes now may finish its hold: the machine may have stood still
		return false, j.failed(fmt.Sprintf("within %v: %s", cmp.Or(j.first, a.c.Window), j.why))
	case result == trial.Kept:
		if j.complete(ctx, now); j.record.Completed {
			return true, a.keepCompleted(ctx)
		}
		return true, a.keep(ctx, j.waiver())
	case j.held && (j.link.Proven || waived):
		j.complete(ctx, now)
		j.reached(state.UnderGuard, "the end of its first health window")
	case result == trial.Unproven:
		j.reached(state.Unproven, j.waitsFor())
	case j.record.Stage != state.Unproven: // a check that fails for a moment changes nothing about the link
		j.reached(state.OnTrial, j.waitsFor())
	}
	return false, nil
}

// failed returns the error that ends the start.
func (j *judge) failed(why string) error {
	target := j.res.State.Target
	j.a.setStatus(func(w *statusText) { w.service = fmt.Sprintf("%s did not prove healthy: %s", target, why) })
	return fmt.Errorf("%s did not prove healthy %s", target, why)
}

// waitsFor says what the version lacks.
func (j *judge) waitsFor() string {
	session := fmt.Sprintf("a session with the manager that lasts %v", pace(heldFor))
	switch {
	case !j.passed && j.first > 0:
		return fmt.Sprintf("its own check to pass, which may take %v in a first start: %s", j.first, j.why)
	case j.well.IsZero():
		return "its own check to pass: " + j.why
	case !j.held:
		return fmt.Sprintf("its own check to pass for %v", j.a.c.Hold)
	case j.round.link != "":
		return session + "; the last attempt: " + j.round.link
	}
	return session
}

// complete reports the upgrade as completed, once in the trial.
func (j *judge) complete(ctx context.Context, now time.Time) {
	if j.record.Completed || now.Before(j.again) {
		return
	}
	_, err := j.a.do(ctx, func(s state.State, t state.Tree, now time.Time) (state.State, state.Tree, error) {
		return state.Complete(s, t, j.a.c.version, j.waiver(), now), t, nil
	})
	if err != nil && !errors.Is(err, state.ErrReportsPending) {
		j.again = now.Add(recordPause)
		j.log.Error("the completed upgrade could not be recorded; trying again", "error", err)
		return
	}
	j.note(func(r *state.JudgeRecord) { r.Completed = true })
	j.log.Info("upgrade completed: the new version is healthy; it stays under guard until its first health window is over", "from", j.res.State.Previous.String(), "to", j.res.State.Target.String())
}

// waiver says why the link needed no proof, if it has none.
func (j *judge) waiver() string {
	switch {
	case len(j.a.c.URLs) == 0:
		return "the node has no manager, so its check alone decided"
	case !j.link.Proven:
		return "an operator accepted it without the proof of its link to the manager"
	}
	return ""
}

// recordEvery is how often what a version waits for is written. After ten minutes it is five
// minutes, so that an unproven version wears no flash out.
const recordEvery = 15 * time.Second

func (j *judge) every() time.Duration {
	if j.calm {
		return 20 * pace(recordEvery)
	}
	return pace(recordEvery)
}

// reached records the stage that the version has reached in this start.
func (j *judge) reached(stage state.TrialStage, waits string) {
	r := j.record
	changed := r.Stage != stage
	defer func() {
		r := j.record
		r.Waits = waits // the record may keep an older text for a while
		j.a.showTrial(j.res.State, r)
	}()
	if !changed && (r.Waits == waits && !j.unwritten || time.Since(j.wrote) < j.every()) {
		return
	}
	j.note(func(r *state.JudgeRecord) {
		if changed {
			r.Since = time.Now().UTC()
		}
		r.Stage, r.Waits = stage, waits
	})
	if changed {
		j.tell(stage)
	}
}

// tell makes a new stage known.
func (j *judge) tell(stage state.TrialStage) {
	v, s := j.res.State.Target.String(), j.res.State
	words := fmt.Sprintf("%s is on trial, start %d of %d", v, s.BootAttempts, s.MaxBootAttempts)
	switch stage {
	case state.Unproven:
		j.log.Warn("this version is unproven: its check held, and its link to the manager is neither proven nor disproven; it serves, and waits", "waits_for", j.record.Waits, "rollback_to", s.Previous.String())
		words = v + " runs, unproven: it waits for " + j.record.Waits
	case state.UnderGuard:
		words = v + " runs, under guard until its first health window is over"
	}
	j.a.setStatus(func(w *statusText) { w.service, w.upgrade = words, "" })
	wake(j.a.healthDue)
}

// note changes the record of the trial.
func (j *judge) note(change func(*state.JudgeRecord)) {
	change(&j.record)
	j.wrote = time.Now()
	err := j.a.c.Layout.RecordJudge(j.record)
	if j.unwritten = err != nil; err != nil {
		j.log.Warn("what the trial found was not recorded; an operator's restart may count as a failure", "error", err)
	}
}
