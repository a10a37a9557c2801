package watchdog

import (
	"context"
	"errors"
	"time"

	"github.com/bilbycast/edge-agent/state"
)

// Before does the work of the watchdog in a unit of its own, which systemd starts before
// each start of the service. So it counts a start also if systemd then skips it, or if
// the service's unit fails before its first command. It returns false if it left the
// start to the watchdog in the service's unit: nothing is on trial or damaged, systemd
// is not about to start the service, or nothing could be recorded.
func Before(ctx context.Context, l state.Layout, systemd Systemd) (Report, bool) {
	l = l.AtStart()
	if atRest(l) || systemd.Starting != nil && !systemd.Starting(ctx) {
		return Report{}, false
	}
	// This comes first: a start must not be counted twice.
	if err := l.RecordCounted(false); err != nil {
		return Report{}, false
	}
	rep, settled := run(ctx, l, systemd, look(ctx, l, systemd, false, true), true)
	var err error
	switch {
	case !settled:
		err = l.ClearCounted()
	case rep.Reverted:
		err = l.RecordCounted(true)
	}
	if err != nil {
		rep.Errs = append(rep.Errs, err)
	}
	return rep, true
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

// After runs after each start of the service, in a unit of its own. It returns true if
// systemd skipped a start of a version on trial, and the service must be started again: a
// start that systemd skips is not repeated, and no watchdog would count it. Each start
// that Before counted is repeated once, so the starts are used up, and the trial ends.
func After(ctx context.Context, l state.Layout, systemd Systemd) (again bool, err error) {
	if counted, _ := l.StartCounted(); !counted || systemd.Skipped == nil {
		return false, nil
	}
	res, err := l.Read()
	if err != nil || res.State.Status != state.PendingHealth || res.Tree.Current != res.State.Target {
		return false, err
	}
	why := systemd.Skipped(ctx)
	if why == "" {
		return false, nil
	}
	if err := l.ClearCounted(); err != nil {
		return false, err // it could be repeated for ever
	}
	_, err = l.Do(ctx, func(s state.State, t state.Tree, _ time.Time) (state.State, state.Tree, error) {
		return state.NoteFailure(s, why), t, nil
	})
	if errors.Is(err, state.ErrReportsPending) {
		err = nil
	}
	return true, err
}
