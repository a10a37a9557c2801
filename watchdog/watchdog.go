// Package watchdog runs before every start of the service, from the version that last
// proved healthy (ExecStartPre=last-good/... watchdog). During a trial it counts the
// start durably, before the new version runs. When the configured starts are used up,
// it rolls back in this same start.
//
// A setting of the service's unit can fail before its first command. So the watchdog also
// runs in a unit of its own, before the service (Before) and after it (After). Whichever
// of them runs first counts the start, and the other does not.
//
// The watchdog never blocks a start: it reports its own failures, and the service
// starts. If it cannot count a start (full or read-only disk), it ends the trial by
// the link current alone, since an uncounted trial could last for ever. A start that
// was counted stays counted, whatever fails afterwards. After a crash the next start
// repeats or completes its work.
//
// It uses no network, reads no configuration, and decides nothing about a version by a clock.
// Where a service ends again and again, the caller waits before the start (Report.Pause). It does
// not judge whether a version is healthy.
package watchdog

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/bilbycast/edge-agent/fsutil"
	"github.com/bilbycast/edge-agent/internal/state"
	"github.com/bilbycast/edge-agent/release"
	"github.com/bilbycast/edge-agent/trial"
)

// Report is what the watchdog found and did.
type Report struct {
	Status       state.Status
	Current      release.Version // the version that starts next
	Target       release.Version // the version on trial, or the one that was rolled back
	BootAttempts int             // starts of Target, this one included
	MaxAttempts  int
	Reverted     bool     // whether this start rolled back
	Unsettled    bool     // whether the start could not be counted: another watchdog, or the agent, may
	Reason       string   // of the rollback
	LastEnd      string   // how the start before this one ended; "": there was none, or that is unknown
	LastCounts   bool     // whether that counts against the version
	Notes        []string // damage that was found and repaired
	Errs         []error  // failures of the watchdog itself
}

// Systemd answers what the watchdog asks of systemd. The zero value knows nothing.
type Systemd struct {
	// Invocation is the id of the service's present start; "": this process belongs to it,
	// and has it in its environment.
	Invocation string
	// Boot is the id of this boot, as the watchdog in the service's unit has it; "":
	// state.BootID. In a container a sandbox may show another one.
	Boot string
	// LastEnd returns how the previous start ended, or "" if that is unknown
	// (systemd.LastEnd). It is called during a trial only.
	LastEnd func(context.Context) string
	// Restarts returns how often systemd has restarted the service by itself since an
	// operator, or the boot, started it (systemd.Restarts). It is called during a trial,
	// and while state.json cannot be read.
	Restarts func(context.Context) (int, error)
	// Starting reports whether systemd is about to start the service (systemd.Other.Starting).
	// Only Before calls it; nil means that it is.
	Starting func(context.Context) bool
	// Skipped reports whether the service is down and systemd does not try again, why, and
	// the invocation id of its last run (systemd.Other.Skipped). Only After calls it.
	Skipped func(context.Context) (down bool, why, invocation string)
	// NotMade reports whether the last start of the service was skipped, or failed because
	// another unit did (systemd.Other.NotMade). Only Before calls it.
	NotMade func(context.Context) bool
	// OwnFault returns why the version that current points to keeps the service from being
	// started, or "" (systemd.Service.OwnFault). Without it no start is that version's fault.
	OwnFault func(context.Context) string
}

// Run does the work of the watchdog in an install root.
func Run(ctx context.Context, l state.Layout) Report { return RunAfter(ctx, l, Systemd{}) }

// maxBlindRestarts is how many restarts in a row the watchdog permits while it cannot read
// state.json, and so cannot tell whether a version is on trial.
const maxBlindRestarts = 9

// RunAfter is Run with what systemd knows of the service.
func RunAfter(ctx context.Context, l state.Layout, systemd Systemd) Report {
	l = l.AtStart()
	// A unit may run the watchdog more than once before a start, and its own unit before that.
	counted, rolledBack := l.StartCounted("")
	counts := !l.StartRecorded() && !counted
	last := look(ctx, l, systemd, true, counts)
	rep := run(ctx, l, systemd, last, counts)
	if !counts {
		last.correct(l)
	}
	rep.Reverted = rep.Reverted || rolledBack && rep.Status == state.RolledBack // also for this unit's log
	if rep.Unsettled && !rep.Reverted && last.rules == trial.Attached {
		return rep // the service's agent counts it
	}
	if err := l.RecordStart(); err != nil {
		rep.Notes = append(rep.Notes, "the agent refuses upgrades, since the watchdog could not record that it ran: "+err.Error())
	}
	return rep
}

// Count does the work of the watchdog for a start of an attached service that runs by now,
// and that no watchdog counted: its agent calls it. Systemd.Invocation is that start.
func Count(ctx context.Context, l state.Layout, systemd Systemd) Report {
	counted, _ := l.StartCounted(systemd.Boot) // by the watchdog in a unit of its own
	last := look(ctx, l, systemd, true, !counted)
	rep := run(ctx, l, systemd, last, !counted)
	if counted {
		last.correct(l)
	}
	if rep.Unsettled && !rep.Reverted {
		return rep
	}
	if err := l.RecordStartOf(systemd.Invocation); err != nil {
		rep.Errs = append(rep.Errs, err)
	}
	return rep
}

// run reconciles the root, and counts the start if counts is true.
func run(ctx context.Context, l state.Layout, systemd Systemd, last last, counts bool) (rep Report) {
	var counted state.State
	var next func() error
	res, err := l.Do(ctx, func(s state.State, t state.Tree, now time.Time) (state.State, state.Tree, error) {
		before := s.Status
		if !counts {
			counted = s
			return s, t, nil
		}
		var past state.Past
		past, next = last.past(l, s, t, &rep)
		s, t = state.NextStart(s, t, past, now)
		rep.Reverted = before == state.PendingHealth && s.Status == state.RolledBack
		counted = s
		return s, t, nil
	})
	rep.Notes = res.Notes
	if !errors.Is(err, state.ErrUnreadable) {
		l.ClearBlind()
	}
	if next != nil && (err == nil || errors.Is(err, state.ErrReportsPending)) {
		if e := next(); e != nil {
			rep.Notes = append(rep.Notes, "how this start ends cannot be told from a fault of the version, and will count: "+e.Error())
		}
	}
	if err != nil {
		rep.Errs = append(rep.Errs, err)
		switch {
		case errors.Is(err, state.ErrUnreadable):
			res = rep.revertBlind(ctx, l, systemd, counts)
		case errors.Is(err, fsutil.ErrLocked):
			rep.Unsettled = true
		case !done(l, counted):
			rep.Unsettled = true
			res = rep.revertByLink(l, res)
		}
	}
	s := res.State
	rep.Status, rep.Current, rep.Target = s.Status, res.Tree.Current, s.Target
	rep.BootAttempts, rep.MaxAttempts = s.BootAttempts, s.MaxBootAttempts
	if s.Status == state.RolledBack {
		rep.Reason = s.Reason
	}
	return rep
}

// revertBlind acts while state.json cannot be read. Its content may be sound, so it changes
// nothing, unless current is dangling, or systemd has restarted a version that is not
// last-good maxBlindRestarts times in a row: then it points current to last-good.
func (rep *Report) revertBlind(ctx context.Context, l state.Layout, systemd Systemd, counts bool) state.Result {
	t, err := l.Tree()
	if err != nil {
		rep.Errs = append(rep.Errs, err)
		return state.Result{}
	}
	res := state.Result{Tree: t}
	if !counts || t.LastGood.IsZero() || t.Current == t.LastGood {
		return res
	}
	// systemd counts since an operator, or the boot, started the service, also restarts that
	// an upgrade or an earlier crash made: both counts must say so.
	restarts := l.CountBlind() - 1 // the first start is no restart
	restarts = min(restarts, systemd.restarts(ctx))
	if !t.Current.IsZero() && restarts < maxBlindRestarts {
		return res
	}
	if err := l.PointCurrent(t.LastGood); err != nil {
		rep.Errs = append(rep.Errs, err)
		return res
	}
	rep.Reverted = true
	res.State = state.State{Status: state.RolledBack, Target: t.Current,
		Reason: fmt.Sprintf("state.json cannot be read, and systemd restarted %s %d times in a row", t.Current, restarts)}
	res.Tree.Current = t.LastGood
	return res
}

// done reports whether the state want is on disk although Do returned an error. Then only
// reports are not in the outbox yet, which is no reason to end a trial.
func done(l state.Layout, want state.State) bool {
	now, err := l.Read()
	if err != nil || want.Status == "" {
		return false
	}
	have, err := l.Tree()
	return err == nil && now.State.Status == want.Status && now.State.Target == want.Target &&
		now.State.BootAttempts == want.BootAttempts && now.Tree.Current == have.Current && !have.Current.IsZero()
}

// Rescue is Run for a node whose link current is missing or dangling. Otherwise it does
// nothing, and returns false. The unit runs it from the previous version, because the
// watchdog of a removed version is missing as well.
func Rescue(ctx context.Context, l state.Layout) (Report, bool) {
	if t, err := l.Tree(); err == nil && !t.Current.IsZero() {
		return Report{}, false
	}
	return Run(ctx, l), true
}

// Record is one line of the log.
type Record struct {
	Level   slog.Level // info, warn or error
	Message string
	Fields  []any // name, value, name, value ...
}

// Records returns the lines of the report for the caller's log: one for each note and each
// error, and one for what the watchdog did.
func (rep Report) Records() []Record {
	var rs []Record
	for _, n := range rep.Notes {
		rs = append(rs, Record{slog.LevelWarn, n, nil})
	}
	for _, err := range rep.Errs {
		rs = append(rs, Record{slog.LevelError, "the watchdog failed; the service starts anyway", []any{"error", fsutil.NameDenial(err).Error()}})
	}
	status := []any{"status", string(rep.Status), "current", rep.Current.String()}
	switch {
	case rep.Reverted:
		return append(rs, Record{slog.LevelError, "rolled back: " + rep.Reason, []any{
			"from", rep.Target.String(), "to", rep.Current.String(), "boot_attempts", rep.BootAttempts, "error_code", string(release.RolledBack)}})
	case rep.Status == state.PendingHealth:
		status = append(status, "boot_attempts", rep.BootAttempts, "max_boot_attempts", rep.MaxAttempts)
		if rep.LastEnd != "" {
			status = append(status, "last_end", rep.LastEnd, "counted", rep.LastCounts)
		}
		return append(rs, Record{slog.LevelInfo, "a version on trial starts", status})
	}
	if len(rep.Notes) > 0 {
		return append(rs, Record{slog.LevelInfo, "the watchdog repaired the install root", status})
	}
	return append(rs, Record{slog.LevelInfo, "watchdog has nothing to do", status})
}

// revertByLink changes the link current alone, where state.json cannot be written. It ends
// a trial whose starts cannot be counted, and repairs a dangling link. The next Do
// that can write records it, since Reconcile finds a trial whose current is the
// previous version.
func (rep *Report) revertByLink(l state.Layout, res state.Result) state.Result {
	now, err := l.Read()
	if err != nil {
		rep.Errs = append(rep.Errs, err)
		return res
	}
	have, err := l.Tree()
	if err != nil {
		rep.Errs = append(rep.Errs, err)
		return now
	}
	to := now.Tree.Current
	counting := now.State.Status == state.PendingHealth && to == now.State.Target
	if counting {
		to = now.State.Previous
	}
	if to.IsZero() || to == have.Current {
		return now
	}
	if err := l.PointCurrent(to); err != nil {
		rep.Errs = append(rep.Errs, err)
		return now
	}
	now.Tree.Current = to
	if counting {
		rep.Reverted = true
		now.State.Status, now.State.Reason = state.RolledBack, "its starts could not be counted"
	}
	return now
}
