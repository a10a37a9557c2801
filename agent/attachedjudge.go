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
	"github.com/bilbycast/edge-agent/watchdog"
)

// attachedJudge decides on a version on trial whose service is another unit than this agent,
// by the rules of package trial (Seen.Next). This process may die and start again at any
// moment: what it needs then is on disk, and a start's limit runs from the start's own begin.
type attachedJudge struct {
	a        *Agent
	trial    string // its id
	target   string
	log      *slog.Logger
	requests requests
	accepted bool

	state  state.State        // as it is on disk
	starts state.StartsRecord // of the watchdog, and of this agent
	record state.JudgeRecord  // as it is on disk
	unit   trial.Service      // as systemd says
	begun  time.Time          // of the start that unit is in

	own      trial.Own // what the check said last
	why      string    // in words
	looked   time.Time // at the service, last
	asked    time.Time // when the check was asked last
	answered time.Time // when it answered last
	well     time.Time // since when it passes without a break, in this start; zero: it does not
	unfailed time.Time // since when it has not failed, in this start; zero: it has
	calm     bool      // for ten minutes
	quiet    time.Time // since when nothing starts the service; zero: something does
	stopped  *string   // why, while it is stopped; nil: it is not, or was not asked
	between  time.Time // since when it is between two starts; zero: it is not
	round    time.Time // when the last round of checks began
	found    string    // in it
	stuck    time.Time // since when a verdict or a start could not be recorded; zero: it could
	tried    time.Time // when that failed last
	wrote    time.Time // when the record was written last
	since    time.Time // when the trial began, as far as an agent looked at it
	silent   time.Time // since when systemd does not answer; zero: it does
}

func (a *Agent) newAttachedJudge(res state.Result) *attachedJudge {
	s := res.State
	j := &attachedJudge{
		a: a, trial: s.TrialID, target: s.Target.String(), state: s, requests: requests{a: a}, own: trial.NotRun, why: "it was not asked yet",
		log: a.log.With("version", s.Target.String(), "unit", a.c.Service.Unit),
	}
	if _, ok := a.c.Layout.ReadSwap(s); !ok { // an earlier agent began the trial, or the disk was full
		if err := a.c.Layout.RecordSwap(state.SwapRecord{TrialID: s.TrialID, From: s.Previous, Attached: true}); err != nil {
			j.log.Warn("the trial was not recorded; each start counts", "error", err)
		}
	}
	j.record = a.c.Layout.ReadJudge(s)
	now := time.Now()
	j.since = j.ago(now, j.record.Looked)
	return j
}

// run returns once the version is kept, or current points to another one, or ctx is done.
func (j *attachedJudge) run(ctx context.Context) error {
	a := j.a
	j.log.Info("on trial", "window", a.c.Window.String(), "hold", a.c.Hold.String())
	a.setStatus(func(w *statusText) { w.service = j.target + " is on trial" })
	tick := time.NewTicker(pace(time.Second))
	defer tick.Stop()
	var last time.Time
	for {
		// Each look forks a process: after ten minutes fewer are enough.
		rests := j.calm || j.unit.State == trial.Stopped && j.record.Stage == state.Unproven
		if now := time.Now(); !rests || now.Sub(last) >= min(pace(5*time.Second), a.c.Window/4) {
			last = now
			if done, err := j.step(ctx); done || err != nil {
				return err
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// step looks once at the service, and acts. done means that the trial is over.
func (j *attachedJudge) step(ctx context.Context) (done bool, err error) {
	a := j.a
	unit, err := a.attached.look(ctx)
	if ctx.Err() != nil {
		return false, nil
	}
	if err != nil {
		j.isSilent(err)
		return false, nil
	}
	j.silent = time.Time{}
	res, err := a.c.Layout.Read()
	if err != nil {
		j.log.Warn("the install root could not be read", "error", err)
		return false, nil
	}
	if res.State.Status != state.PendingHealth || res.State.TrialID != j.trial {
		return true, nil // watchCurrent sees where current points
	}
	j.state = res.State
	now := time.Now()
	j.observe(unit, now)
	if unit.Active && j.began(unit) && now.Sub(j.asked) >= j.pause() { // what ran before is not on trial
		j.asked = now
		if j.check(ctx, now); ctx.Err() != nil {
			return false, nil
		}
	}
	switch {
	case unit.State != trial.Stopped:
		j.stopped = nil
	case j.stopped == nil:
		why := a.attached.StoppedBy(ctx)
		j.stopped = &why
	}
	seen := j.seen(now)
	act := seen.Next()
	switch act {
	case trial.CountStart, trial.NoteEnd, trial.TakeBack:
		if now.Sub(j.tried) < a.c.Window/4 {
			break // the disk is full, say
		}
		switch act {
		case trial.CountStart:
			return false, j.count(ctx, now)
		case trial.TakeBack:
			return j.takeBack(ctx, now)
		}
		j.condemn(ctx, unit.Words, now)
	case trial.Ask:
		j.requests.ask(ctx, unit)
	case trial.Mend:
		return false, j.mend(seen)
	case trial.Keep:
		return j.keep(ctx, "")
	case trial.Judge:
		if j.own == trial.Passes { // and is held soon
			j.reached(state.Unproven, j.waitsFor(seen), now)
		} else if now.Sub(j.round) >= a.c.Window/4 {
			j.round = now
			return j.judge(ctx)
		}
	case trial.Offer:
		j.reached(state.Unproven, j.waitsFor(seen), now)
	case trial.Wait:
		if now.Sub(j.since) >= 2*j.limit() { // it is started again and again, say
			j.reached(state.Unproven, j.waitsFor(seen), now)
		} else if j.record.Stage == "" || j.record.Stage == state.OnTrial {
			j.reached(state.OnTrial, j.waitsFor(seen), now)
		}
	}
	return false, nil
}

// observe records what systemd says of the service, and what the disk says of its starts.
func (j *attachedJudge) observe(unit trial.Service, now time.Time) {
	l := j.a.c.Layout
	starts, known := l.ReadStarts(j.state)
	if j.record = j.record.InStart(starts.Number); j.record.Before == "" && !known && j.state.BootAttempts == 0 {
		j.record.Before = cmp.Or(unit.Invocation, notStarted)
		j.note(now)
	}
	first := j.looked.IsZero()
	if unit.Invocation != j.unit.Invocation {
		j.well, j.unfailed, j.calm, j.round, j.asked = time.Time{}, time.Time{}, false, time.Time{}, time.Time{}
		j.found, j.stuck, j.tried = "", time.Time{}, time.Time{}
		j.own, j.why = trial.NotRun, "it was not asked yet"
	}
	if !unit.Active {
		j.well, j.unfailed = time.Time{}, time.Time{}
		j.own, j.why = trial.Fails, unit.Words
	}
	j.starts = starts
	if first && unit.State != trial.Between { // of an agent before this one
		j.quiet = j.ago(now, j.record.Quiet)
	}
	switch {
	case unit.State != trial.Between:
		j.between = time.Time{}
	case first:
		j.between = j.ago(now, j.record.Between)
	case j.between.IsZero():
		j.between = now
	}
	switch began := j.began(unit); {
	case unit.State == trial.Between && !unit.Queued: // a slow stop, or an attempt to start it, is no time of quiet
		if !j.quiet.IsZero() {
			j.quiet = j.quiet.Add(now.Sub(j.looked))
		}
	case began && unit.State != trial.Stopped:
		j.quiet = time.Time{}
	case j.quiet.IsZero():
		j.quiet = now
	}
	j.unit, j.begun, j.looked = unit, now.Add(-unit.Age), now
	if j.round.IsZero() && j.record.Failed > 0 && j.record.FailedIn == unit.Invocation {
		j.round = j.begun.Add(time.Duration(j.record.FailedAt) * time.Millisecond)
	}
	j.keepTimes(now)
	if !j.accepted && l.Accepted(j.state) {
		j.accepted = true
		j.log.Warn("an operator accepted this version: a check that cannot tell is enough")
	}
}

// began reports whether the service was started since the swap.
func (j *attachedJudge) began(unit trial.Service) bool {
	return j.state.BootAttempts > 0 || j.starts.Number > 0 || j.record.Before != "" && unit.Invocation != "" && unit.Invocation != j.record.Before
}

// notStarted stands for JudgeRecord.Before where the service was not started since the boot.
const notStarted = "none"

// ago is now without some quarters of a window.
func (j *attachedJudge) ago(now time.Time, quarters int) time.Time {
	if quarters <= 0 {
		return time.Time{}
	}
	return now.Add(-time.Duration(quarters) * (j.a.c.Window / 4))
}

// keepTimes records, in quarters of a window, what an agent that dies must not forget. No clock
// is needed for that.
func (j *attachedJudge) keepTimes(now time.Time) {
	if j.since.IsZero() {
		j.since = now
	}
	quarters := func(since time.Time, most int) int {
		if since.IsZero() {
			return 0
		}
		return min(most, int(now.Sub(since)/(j.a.c.Window/4)))
	}
	r := &j.record
	quiet, between := quarters(j.quiet, int(4*j.a.patience()/j.a.c.Window)+1), quarters(j.between, 4)
	looked := quarters(j.since, int(8*j.limit()/j.a.c.Window)+1)
	if quiet == r.Quiet && between == r.Between && looked == r.Looked {
		return
	}
	r.Quiet, r.Between, r.Looked = quiet, between, looked
	j.note(now)
}

// isSilent says, once, that systemd does not answer. After a window newer versions can be
// staged.
func (j *attachedJudge) isSilent(err error) {
	now := time.Now()
	if j.silent.IsZero() {
		j.silent = now
		j.log.Warn("systemd does not say how the service is; nothing is decided meanwhile", "error", err)
	}
	if now.Sub(j.silent) >= j.a.c.Window {
		j.reached(state.Unproven, "systemd to answer: "+err.Error(), now)
	}
}

// seen is what the rules are asked about.
func (j *attachedJudge) seen(now time.Time) trial.Seen {
	a, u, began := j.a, j.unit, j.began(j.unit)
	over := now.Sub(j.begun) >= j.limit()
	asked, unserved := j.requests.pending(u, now)
	forAWindow := func(since time.Time) bool { return !since.IsZero() && now.Sub(since) >= a.c.Window }
	return trial.Seen{
		Unit: u.State, Retries: u.Retries, Queued: u.Queued, Stuck: forAWindow(j.between), Began: began,
		// A start whose program does not run yet may still be counted by its watchdog.
		Counted: j.state.BootAttempts > 0 && j.recorded(j.starts) || !u.Ran && u.State == trial.Up && !over,
		Noted:   j.state.Noted() && j.ofStart(j.starts),
		Held:    !j.well.IsZero() && now.Sub(j.well) >= a.c.Hold,
		Over:    over,
		Asked:   asked, Unserved: unserved, Mendable: u.PathDown && (began || !j.record.Mended), OwnStop: u.OwnStop,
		Offered: j.record.Stage == state.Unproven,
		Waited:  !j.quiet.IsZero() && now.Sub(j.quiet) >= a.patience(),
	}
}

// patience is how long nothing may start the service until the agent does something about it.
func (a *Agent) patience() time.Duration { return max(a.c.Window, slowSystemd) }

// slowSystemd is what systemd of a busy machine may take to serve a request for a restart, however
// short the windows are.
const slowSystemd = 20 * time.Second

// recorded reports whether the present start is counted. Where the watchdog could not write
// its record, the mark that it ran in this start says so. Watchdogs of earlier versions leave
// none.
func (j *attachedJudge) recorded(starts state.StartsRecord) bool {
	ran, known := j.a.c.Layout.StartOf(j.unit.Invocation)
	return ran || !known || j.unit.Invocation != "" && starts.Invocation == j.unit.Invocation
}

// ofStart reports whether a verdict that is on disk is about the present start.
func (j *attachedJudge) ofStart(starts state.StartsRecord) bool {
	return starts.Invocation == "" || j.recorded(starts)
}

// limit is how long a start may take until it is judged, from its own begin.
func (j *attachedJudge) limit() time.Duration {
	limit := max(j.a.c.Window, j.unit.StartLimit)
	if first := pace(stage.FirstStartOf(j.a.c.Layout, j.state.Target)); !j.record.Passed {
		limit = max(limit, first)
	}
	return limit
}

// count counts the present start, which no watchdog did.
func (j *attachedJudge) count(ctx context.Context, now time.Time) error {
	a := j.a
	boot := state.BootID()
	if same := j.record.Boot == "" || j.record.Boot == boot; same {
		boot = j.starts.BootID
	}
	// If that rolls the version back, this start must end, whatever happens to this process.
	j.record.Ends, j.record.Boot = j.unit.Invocation, state.BootID()
	j.note(now)
	rep := watchdog.Count(ctx, a.c.Layout, watchdog.Systemd{
		Invocation: j.unit.Invocation, Boot: boot,
		Restarts: func(context.Context) (int, error) { return j.unit.Restarts, nil },
		LastEnd:  func(ctx context.Context) string { return a.attached.LastEnd(ctx, j.unit.Invocation) },
	})
	for _, r := range rep.Records() {
		j.log.Log(ctx, r.Level, r.Message, r.Fields...)
	}
	switch {
	case rep.Reverted:
		a.attached.ended = j.unit.Invocation
		return errCurrentMoved
	case rep.Unsettled:
		j.tried = now
		return nil
	}
	j.record.Ends = "" // it did not
	j.note(now)
	j.log.Warn("no watchdog ran before this start, so the agent counted it: write the drop-in again (edge-agent unit)", "boot_attempts", rep.BootAttempts)
	return nil
}

// condemn records why the present start must end. Without the record it is asked for all the
// same once a window has passed: the watchdog rolls back where it cannot count.
func (j *attachedJudge) condemn(ctx context.Context, cause string, now time.Time) {
	if j.tried = now; j.stuck.IsZero() {
		j.log.Error("this start of the new version failed", "cause", cause, "boot_attempts", j.state.BootAttempts)
	}
	j.a.setStatus(func(w *statusText) { w.service = fmt.Sprintf("%s did not prove healthy: %s", j.target, cause) })
	noted := false
	_, err := j.a.do(ctx, func(s state.State, t state.Tree, _ time.Time) (state.State, state.Tree, error) {
		starts, _ := j.a.c.Layout.ReadStarts(s)
		if noted = s.TrialID == j.trial && j.ofStart(starts); noted {
			s = state.NoteFailure(s, cause)
		}
		return s, t, nil
	})
	if noted && (err == nil || errors.Is(err, state.ErrReportsPending)) {
		j.stuck, j.tried = time.Time{}, time.Time{}
		return
	}
	if j.stuck.IsZero() {
		j.stuck = now
		j.log.Error("the verdict was not recorded; trying again", "error", err)
	}
	if now.Sub(j.stuck) >= j.a.c.Window {
		j.requests.ask(ctx, j.unit)
	}
}
