package watchdog

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/bilbycast/edge-agent/internal/state"
)

// Before does the work of the watchdog in a unit of its own, which systemd starts before
// each start of the service. So it counts a start also if the service's unit fails before
// its first command. It returns false if it left the start to the watchdog in the
// service's unit: nothing is on trial or damaged, or systemd is not about to start the
// service.
func Before(ctx context.Context, l state.Layout, systemd Systemd) (Report, bool) {
	l = l.AtStart()
	if atRest(l) || systemd.Starting != nil && !systemd.Starting(ctx) {
		return Report{}, false
	}
	asking, cancel := context.WithTimeout(ctx, askFor)
	defer cancel()
	if counted, rolledBack := l.StartCounted(""); counted && !rolledBack && systemd.NotMade != nil && systemd.NotMade(asking) && systemd.ownFault(asking) == "" && asking.Err() == nil {
		// The start before was not made, and After has not taken it back yet.
		takeBack(ctx, l)
	}
	// This comes first: a start must not be counted twice.
	if err := l.RecordCounted(false); err != nil {
		rep := Report{Errs: []error{fmt.Errorf("the start could not be recorded: %w", err)}}
		if systemd.ownFault(asking) == "" {
			return rep.standing(l), true // the watchdog in the service's unit counts
		}
		counted := run(ctx, l, systemd, look(ctx, l, systemd, false, true), true) // no other watchdog will run in this start
		counted.Errs = append(rep.Errs, counted.Errs...)
		return counted, true
	}
	rep := run(ctx, l, systemd, look(ctx, l, systemd, false, true), true)
	var err error
	switch {
	case rep.Unsettled:
		err = l.ClearCounted()
	case rep.Reverted:
		err = l.RecordCounted(true)
	}
	if err != nil {
		rep.Errs = append(rep.Errs, err)
	}
	return rep, true
}

// standing completes rep with what the root has.
func (rep Report) standing(l state.Layout) Report {
	res, err := l.Read()
	if err != nil {
		rep.Errs = append(rep.Errs, err)
	}
	s := res.State
	rep.Status, rep.Current, rep.Target = s.Status, res.Tree.Current, s.Target
	rep.BootAttempts, rep.MaxAttempts = s.BootAttempts, s.MaxBootAttempts
	return rep
}

// atRest reports whether a watchdog has nothing to do.
func atRest(l state.Layout) bool {
	res, err := l.Read()
	if err != nil || res.State.Status == state.PendingHealth || len(res.Notes) > 0 {
		return false
	}
	t, err := l.Tree()
	return err == nil && t.Current == res.Tree.Current && t.LastGood == res.Tree.LastGood
}

// After runs after each start of the service, in a unit of its own. If the service is down,
// and systemd does not try again, then either the version on trial is at fault, since it
// lacks a path that the unit names: the start counts, and After returns true, since it must
// be repeated until the starts are used up. Or it is not, as with a condition about
// something else, or another unit that failed: then the start does not count, and the
// service stays down, as it would with any version. why says what After found; "": nothing.
func After(ctx context.Context, l state.Layout, systemd Systemd) (again bool, why string, err error) {
	res, err := l.Read()
	if err != nil || systemd.Skipped == nil || res.State.Status != state.PendingHealth || res.Tree.Current != res.State.Target {
		return false, "", err
	}
	down, why, invocation := systemd.Skipped(ctx)
	if !down {
		return false, "", nil
	}
	counted, _ := l.StartCounted("")
	if ran, _ := l.StartOf(invocation); ran && !counted {
		return false, "", nil // the service's unit ran
	}
	fault := systemd.ownFault(ctx)
	if !counted && fault == "" {
		return false, "", nil
	}
	err = l.ClearCounted()
	if fault == "" {
		return false, why, errors.Join(err, takeBack(ctx, l))
	}
	why += ": " + fault
	if !counted {
		run(ctx, l.AtStart(), systemd, look(ctx, l, systemd, false, true), true)
	}
	res, e := l.AtStart().Do(ctx, func(s state.State, t state.Tree, _ time.Time) (state.State, state.Tree, error) {
		return state.NoteFailure(s, why), t, nil
	})
	if e != nil && !errors.Is(e, state.ErrReportsPending) {
		err = errors.Join(err, e)
	} else if res.State.Status == state.RolledBack {
		err = errors.Join(err, l.RecordCounted(true)) // for the log of the service's unit
	}
	return true, why, err // Before counts what is repeated, so it ends
}

// takeBack takes back that the last start was counted. Where it is the first one, the version on
// trial was never started.
func takeBack(ctx context.Context, l state.Layout) error {
	undo := func() error { return nil }
	if res, err := l.Read(); err == nil {
		if _, judged := l.ReadSwap(res.State); judged {
			switch r, known := l.ReadStarts(res.State); {
			case known && r.Number == 1:
				undo = func() error { return l.ForgetStarts(res.State) }
			case known:
				r.NotMade = true
				return l.RecordStarts(r)
			}
		}
	}
	_, err := l.AtStart().Do(ctx, func(s state.State, t state.Tree, _ time.Time) (state.State, state.Tree, error) {
		return state.TakeBack(s), t, nil
	})
	if err != nil && !errors.Is(err, state.ErrReportsPending) {
		return err
	}
	return undo()
}

// ownFault returns what OwnFault returns, and "" without it.
func (s Systemd) ownFault(ctx context.Context) string {
	if s.OwnFault == nil {
		return ""
	}
	return s.OwnFault(ctx)
}
