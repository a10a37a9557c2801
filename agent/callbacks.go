package agent

import (
	"context"
	"math"
	"time"
)

// Limits of the callbacks of Options, whose documentation states them.
const (
	checkLimit        = 10 * time.Second
	notifyLimit       = time.Second
	checkUnitLimit    = 30 * time.Second
	checkVersionLimit = time.Minute
	checkRestartLimit = 5 * time.Second
	journalLimit      = 20 * time.Second
	verifiedLimit     = 2 * time.Second
	hookLimit         = 10 * time.Minute
	keptLimit         = time.Hour
)

// callbacks call the functions of Options. The runs of Attend share them, since an abandoned
// call may outlive a run.
type callbacks struct {
	check, drain, notify, checkUnit, checkVersion, checkRestart, journal, verified *callback
	serve, beforeTrial, kept, rolledBack                                           *callback

	handlers map[string]*callback // by the name of the action
}

func newCallbacks(r settings) *callbacks {
	log := r.Log.Error
	serve := newCallback("Options.Serve", math.MaxInt64, log)
	serve.grace = r.DrainTime
	c := &callbacks{
		check:        newCallback("Options.Check", checkLimit, log),
		drain:        newCallback("Options.Drain", r.DrainTime, log),
		notify:       newCallback("Options.Notify", notifyLimit, log),
		checkUnit:    newCallback("Options.CheckUnit", checkUnitLimit, log),
		checkVersion: newCallback("Options.CheckVersion", checkVersionLimit, log),
		checkRestart: newCallback("Options.CheckRestart", checkRestartLimit, log),
		journal:      newCallback("Options.Journal", journalLimit, log),
		verified:     newCallback("Options.Verified", verifiedLimit, log),
		serve:        serve,
		beforeTrial:  newCallback("Options.BeforeTrial", hookLimit, log),
		kept:         newCallback("Options.Kept", keptLimit, log),
		rolledBack:   newCallback("Options.RolledBack", hookLimit, log),
	}
	if r.Handlers != nil {
		c.handlers = r.Handlers.callbacks(r.HandlerTimeout, log)
	}
	return c
}

// askCheck calls Options.Check.
func (a *Agent) askCheck(ctx context.Context) error {
	if a.c.Check == nil {
		return nil
	}
	return a.calls.check.call(ctx, a.c.Check)
}

// callNotify calls Options.Notify, also when the run is over.
func (a *Agent) callNotify(state string) error {
	return notifyBy(a.calls.notify, a.c.Notify, state)
}

// notifyBy calls notify, which gets no context: it is abandoned at its limit.
func notifyBy(c *callback, notify func(string) error, state string) error {
	return c.call(context.Background(), func(context.Context) error { return notify(state) })
}

// fitsVersion calls Options.CheckVersion.
func (a *Agent) fitsVersion(ctx context.Context, dir string) error {
	return a.calls.checkVersion.call(ctx, func(ctx context.Context) error { return a.c.CheckVersion(ctx, dir) })
}

// callVerified calls Options.Verified, which gets no context.
func (a *Agent) callVerified() {
	if err := a.calls.verified.call(context.Background(), func(context.Context) error { a.c.Verified(); return nil }); err != nil {
		a.log.Warn("memory may not have been given back after the verification", "error", err)
	}
}
