// Package watchdog is what runs before every start of the service, from the
// version that last proved healthy (ExecStartPre=last-good/... watchdog). In
// a trial it counts the start durably, before the new version gets to run, or,
// when the configured starts are used up, rolls back in this same start.
//
// The watchdog never blocks a start: it logs its own failures, and the service
// starts. It ends a trial whose starts it cannot count (a full or read-only
// disk), because such a trial could otherwise go on for ever; a start that was
// counted stays counted, whatever fails afterwards. It uses no network, reads no
// configuration, and decides nothing by a clock.
package watchdog

import (
	"context"
	"errors"
	"time"

	"github.com/bilbycast/edge-agent/fsutil"
	"github.com/bilbycast/edge-agent/release"
	"github.com/bilbycast/edge-agent/state"
)

// Report says what the watchdog found and did, for the log.
type Report struct {
	Status       state.Status
	Current      release.Version // what is about to start
	Target       release.Version // on trial, or rolled back from
	BootAttempts int             // starts of Target, this one included
	MaxAttempts  int
	Reverted     bool     // in this start
	Reason       string   // of the revert
	Notes        []string // what was amiss and settled
	Errs         []error  // what could not be done
}

// Run does the watchdog's work under the install root l.
func Run(ctx context.Context, l state.Layout) Report {
	return RunAfter(ctx, l, func(context.Context) string { return "" })
}

// RunAfter is Run with ended, which says how the start before this one ended, or
// returns "" (systemd.LastEnd). It is asked only in a trial.
func RunAfter(ctx context.Context, l state.Layout, ended func(context.Context) string) Report {
	var rep Report
	l = l.AtStart()
	// A unit may run the watchdog more than once before a start.
	counts := !l.StartRecorded()
	cause := ""
	if res, err := l.Read(); err == nil && res.State.Status == state.PendingHealth && res.State.BootAttempts > 0 {
		cause = ended(ctx) // not while the lock is held
	}
	var counted state.State
	res, err := l.Do(ctx, func(s state.State, t state.Tree) (state.State, state.Tree, error) {
		before := s.Status
		if !counts {
			counted = s
			return s, t, nil
		}
		s, t = state.CountStart(s, t, cause, time.Now().UTC())
		rep.Reverted = before == state.PendingHealth && s.Status == state.RolledBack
		counted = s
		return s, t, nil
	})
	rep.Notes = res.Notes
	if err != nil {
		rep.Errs = append(rep.Errs, err)
		if !errors.Is(err, fsutil.ErrLocked) && !done(l, counted) {
			res = rep.goBack(l, res)
		}
	}
	if err := l.RecordStart(); err != nil {
		rep.Notes = append(rep.Notes, "the agent will not know that a watchdog ran, and offers no upgrade: "+err.Error())
	}
	s := res.State
	rep.Status, rep.Current, rep.Target = s.Status, res.Tree.Current, s.Target
	rep.BootAttempts, rep.MaxAttempts = s.BootAttempts, s.MaxBootAttempts
	if s.Status == state.RolledBack {
		rep.Reason = s.Reason
	}
	return rep
}

// done reports whether what Do was to write is on disk although it returned an
// error: then only a report waits to be put in the outbox, and that is no reason
// to end a trial.
func done(l state.Layout, want state.State) bool {
	now, err := l.Read()
	if err != nil || want.Status == "" {
		return false
	}
	have, err := l.Tree()
	return err == nil && now.State.Status == want.Status && now.State.Target == want.Target &&
		now.State.BootAttempts == want.BootAttempts && now.Tree.Current == have.Current && !have.Current.IsZero()
}

// Rescue is Run for a node whose current is missing or dangling, and nothing
// otherwise; then it returns false. It is run from the previous version: whoever
// removed the running version has removed its watchdog too.
func Rescue(ctx context.Context, l state.Layout) (Report, bool) {
	if t, err := l.Tree(); err == nil && !t.Current.IsZero() {
		return Report{}, false
	}
	return Run(ctx, l), true
}

// Record is one line for the log.
type Record struct {
	Level   string // "info", "warn" or "error"
	Message string
	Fields  []any // name, value, name, value ...
}

// Records are the report in words, one for each thing that was amiss and one
// for what was done. The caller has the logger; this package needs none.
func (rep Report) Records() []Record {
	var rs []Record
	for _, n := range rep.Notes {
		rs = append(rs, Record{"warn", n, nil})
	}
	for _, err := range rep.Errs {
		rs = append(rs, Record{"error", "the watchdog failed; the service starts anyway", []any{"error", err.Error()}})
	}
	status := []any{"status", string(rep.Status), "current", rep.Current.String()}
	switch {
	case rep.Reverted:
		return append(rs, Record{"error", "rolled back: " + rep.Reason, []any{
			"from", rep.Target.String(), "to", rep.Current.String(), "boot_attempts", rep.BootAttempts, "error_code", string(release.RolledBack)}})
	case rep.Status == state.PendingHealth:
		return append(rs, Record{"info", "a version on trial starts", append(status, "boot_attempts", rep.BootAttempts, "max_boot_attempts", rep.MaxAttempts)})
	}
	return append(rs, Record{"info", "watchdog has nothing to do", status})
}

// goBack does by the link alone what could not be recorded: it ends a trial
// whose starts cannot be counted, and leads a current that is lost to a version
// that is there. The next Do that can write records it: Reconcile finds a trial
// whose current is the version before.
func (rep *Report) goBack(l state.Layout, res state.Result) state.Result {
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
