package agent

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"github.com/bilbycast/edge-agent/internal/state"
	"github.com/bilbycast/edge-agent/watchdog"
)

// countStart checks that a watchdog ran before this start. Without one the node
// refuses upgrades. If an operator started a trial anyway, or the unit was changed
// during one, the trial must end: then the agent counts the start itself, and returns
// an error if that rolled the version back.
//
// In attached mode the watchdog belongs to another unit: see checkCounted.
func (a *Agent) countStart(ctx context.Context) error {
	if a.attached != nil {
		return nil
	}
	l := a.c.Layout
	ran := l.TakeStart()
	res, err := l.Read()
	trial := err == nil && res.State.Status == state.PendingHealth && res.Tree.Current == res.State.Target
	if trial && res.State.BootAttempts > res.State.SeenAttempts {
		ran = true // the watchdog of an earlier version counts, and records nothing else
	}
	if trial && l.CountedNow(res.State) {
		ran = true // it was killed before it recorded the rest
	}
	if !ran {
		why := fmt.Errorf("no watchdog ran before this start, so a bad version could not be rolled back: the service must be started by "+
			"'%[1]s watchdog --root %[2]s' and then '%[3]s run', as the unit does that 'edge-agent unit' prints",
			filepath.Join(l.LastGood(), a.c.Service.Binary), l.Root(), filepath.Join(l.Current(), a.c.Service.Binary))
		a.log.Error("upgrades are not possible", "error", why)
		a.mu.Lock()
		a.uncountedErr = why
		a.mu.Unlock()
		a.showUnavailable()
	}
	if !trial {
		return nil
	}
	if !ran {
		rep := watchdog.Run(ctx, l)
		l.TakeStart() // the watchdog that just ran did not run before the start
		for _, r := range rep.Records() {
			a.log.Log(ctx, r.Level, r.Message, r.Fields...)
		}
		if rep.Reverted {
			return fmt.Errorf("rolled back to %s, because no watchdog did: %s", rep.Current, rep.Reason)
		}
	}
	_, err = a.do(ctx, func(s state.State, t state.Tree, _ time.Time) (state.State, state.Tree, error) {
		if s.Status == state.PendingHealth && s.Target == res.State.Target {
			s.SeenAttempts = s.BootAttempts
		}
		return s, t, nil
	})
	if err != nil && !errors.Is(err, state.ErrReportsPending) {
		a.log.Warn("the start was not marked as seen", "error", err)
	}
	return nil
}

// failedStartWait is how long the end of a failed start waits for another change of the root: on
// a slow disk one takes long.
const failedStartWait = 30 * time.Second

// recordFailedStart records err as the cause of a failed start of trial, unless another
// one began meanwhile, and returns err. It needs no ctx that is still open.
func (a *Agent) recordFailedStart(ctx context.Context, trial state.State, err error) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), failedStartWait)
	defer cancel()
	if _, e := a.do(ctx, func(s state.State, t state.Tree, _ time.Time) (state.State, state.Tree, error) {
		if s.TrialID == trial.TrialID {
			s = state.NoteFailure(s, err.Error())
		}
		return s, t, nil
	}); e != nil && !errors.Is(e, state.ErrReportsPending) {
		a.log.Warn("the cause of the failed start was not recorded", "error", e)
	}
	return err
}

// checkCounted returns an error if the attached service runs in a start that no
// watchdog counted. A stopped service has no such start.
func (a *Agent) checkCounted(ctx context.Context) error {
	unit, err := a.attached.look(ctx)
	if isTimeout(err) {
		return err
	} else if err != nil || !unit.Active {
		return nil
	}
	if ran, known := a.c.Layout.StartOf(unit.Invocation); known && !ran {
		return fmt.Errorf("no watchdog ran before the present start of %[1]s, so a bad version could not be rolled back: "+
			"write its drop-in again (edge-agent unit --help), then run: systemctl daemon-reload && systemctl restart %[1]s", a.c.Service.Unit)
	}
	return nil
}

const (
	// unitCheckEvery is how often the unit is checked while nothing happens.
	unitCheckEvery = time.Minute
	// unitCheckAgain is the pause after a check that systemd did not answer in time.
	unitCheckAgain = 5 * time.Second
)

// isTimeout reports whether err says that systemd did not answer in time: then nothing is
// decided by it, and the question is asked again.
func isTimeout(err error) bool {
	var t interface{ Timeout() bool }
	return errors.As(err, &t) && t.Timeout()
}

// checkUnit checks whether systemd can roll a bad version back in this unit. What it found
// before stays if systemd does not answer in time, which checkUnit reports.
func (a *Agent) checkUnit(ctx context.Context) (answered bool) {
	if a.c.CheckUnit == nil {
		return true
	}
	err := a.calls.checkUnit.call(ctx, a.c.CheckUnit)
	if err == nil && a.attached != nil {
		err = a.checkCounted(ctx)
	}
	a.mu.Lock()
	if !isCallbackError(err) && (ctx.Err() != nil || isTimeout(err)) {
		a.unitChecked = time.Now()
		a.mu.Unlock()
		return false
	}
	before := a.unitErr
	a.unitErr, a.unitChecked = err, time.Now()
	a.mu.Unlock()
	switch {
	case err != nil && (before == nil || before.Error() != err.Error()):
		a.log.Error("upgrades are not possible: the node could not roll back", "error", err)
		wake(a.healthDue)
	case err == nil && before != nil:
		a.log.Info("upgrades are possible again")
		wake(a.healthDue)
	}
	a.showUnavailable()
	return true
}

// checkUnitFirst is the first check of the unit. The connection, and a trial, wait for it, so
// it is bounded.
func (a *Agent) checkUnitFirst(ctx context.Context) (answered bool) {
	ctx, cancel := context.WithTimeout(ctx, min(unitCheckAgain, a.c.Window/4))
	defer cancel()
	return a.checkUnit(ctx)
}

// checkUnitRegularly checks the unit every unitCheckEvery, since an operator may change it
// without a restart of the service. It asks again sooner if systemd did not answer.
func (a *Agent) checkUnitRegularly(ctx context.Context, answered bool) error {
	for a.c.CheckUnit != nil {
		pause := unitCheckEvery
		if !answered {
			pause = unitCheckAgain
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(pause):
			answered = a.checkUnit(ctx)
		}
	}
	return nil
}
