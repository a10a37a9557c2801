package agent

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/bilbycast/edge-agent/internal/state"
	"github.com/bilbycast/edge-agent/release"
)

// Change is an upgrade as a hook of Options sees it.
type Change struct {
	// From is the version that To takes the place of. For Kept it may be an older one: see there.
	From, To release.Version
	// Reason says why To was rolled back; RolledBack alone has it.
	Reason string
}

// Pauses between two calls of a hook that fails.
const (
	hookPause    = 5 * time.Second
	maxHookPause = 5 * time.Minute
)

// checkHooks reports at the start a record of the hooks that cannot be read.
func (a *Agent) checkHooks() {
	if a.c.BeforeTrial == nil && a.c.Kept == nil && a.c.RolledBack == nil {
		return
	}
	if _, err := a.c.Layout.ReadHooks(); err != nil {
		a.log.Error("which hooks are due cannot be read; none is called", "error", err)
		a.warn("which hooks of the service are due cannot be read, so none is called: "+err.Error(), "check the service's data; the next upgrade writes the record again")
	}
}

// beforeTrial has the service save its data for a rollback from v. An error refuses the upgrade.
// While RolledBack is due, or this version is on trial, the data that were saved before are the good
// ones: the service does not save others over them, and v inherits them.
// still reports whether that has not changed since.
func (a *Agent) beforeTrial(ctx context.Context, v release.Version) (still func() bool, err error) {
	if a.c.BeforeTrial == nil && a.c.RolledBack == nil {
		return nil, nil
	}
	if err := a.recordOwed(ctx); err != nil {
		return nil, err
	}
	res, err := a.c.Layout.Read()
	if err != nil {
		return nil, err
	}
	var then state.Hooks
	h, _ := a.c.Layout.ReadHooks() // an unreadable record has nothing to inherit
	decided, fits := h, false      // fits: what h said still holds when the decision is recorded
	record := func(change func(*state.Hooks)) (func() bool, error) {
		err := a.changeHooks(ctx, func(h *state.Hooks) {
			if fits = h.SavedAs(decided); fits {
				change(h)
			}
			then = *h
		})
		return func() bool {
			if !fits {
				return false
			}
			now, err := a.c.Layout.Read()
			h, e := a.c.Layout.ReadHooks()
			return err == nil && e == nil && now.State.SameTrial(res.State) && h.SavedAs(then)
		}, err
	}
	u := Change{From: a.c.version, To: v}
	saved := state.Saved{From: u.From, To: u.To, After: res.State.TrialID}
	if _, due := h.Restores(res.State, a.c.version); due && a.c.RolledBack != nil {
		a.log.Warn("the service does not save its data again: it has not restored those that it saved before", "to", v.String())
		return record(func(h *state.Hooks) { h.Inherit(saved) })
	}
	if _, back := res.State.OperatorRollback(); back && h.RestoredIn == res.State.TrialID {
		return record(func(*state.Hooks) {}) // a rollback from v returns to the newer version, and an operator may return from that again
	}
	if h.InheritOnTrial(res.State, a.c.version, v) {
		a.log.Info("the service does not save its data again: this version is on trial, and a rollback restores those that were saved before it", "to", v.String())
		return record(func(h *state.Hooks) { h.InheritOnTrial(res.State, a.c.version, v) })
	}
	if a.c.BeforeTrial != nil {
		if err := a.calls.beforeTrial.call(ctx, func(ctx context.Context) error { return a.c.BeforeTrial(ctx, u) }); err != nil {
			return nil, release.Errorf(release.DataNotSaved, "the service did not save its data before the trial of %s: %w", v, err)
		}
	}
	return record(func(h *state.Hooks) { h.Save(saved) })
}

// restore has the service restore its data after a rollback to this version, until that succeeds
// or ctx ends. It closes a.restored when the first call has ended, or when none is due. It calls
// refused with each error.
func (a *Agent) restore(ctx context.Context, s state.State, refused func(error)) {
	begun := sync.OnceFunc(func() { close(a.restored) })
	defer begun()
	h := a.settle(ctx, s)
	if h.InheritReplaced(s) {
		a.recordDone(ctx, func(h *state.Hooks) { h.InheritReplaced(s) })
	}
	if a.c.RolledBack == nil {
		return
	}
	from, due := h.Restores(s, a.c.version)
	if !due {
		return
	}
	defer a.extendStart(ctx)() // systemd would end a restoration that takes longer than a start
	u, tries := Change{From: a.c.version, To: from, Reason: s.Reason}, h.RestoreTries
	if s.Status == state.PendingHealth { // the trial bounds its starts, and ends while a call waits
		tries = 0
	}
	a.callHook(ctx, a.calls.rolledBack, tries, func(ctx context.Context) error { return a.c.RolledBack(ctx, u) }, func(err error) {
		refused(err)
		begun()
	}, func(h *state.Hooks, tries int) { h.Restoring(s, tries) }, func(h *state.Hooks) {
		now := s
		if res, err := a.c.Layout.Read(); err == nil {
			now = res.State
		}
		h.Restored(s, now)
	})
}

// settle drops the records of data that are not to be restored any more in the state s, and returns
// the rest.
func (a *Agent) settle(ctx context.Context, s state.State) state.Hooks {
	h, err := a.readHooks() // checkHooks has reported the error
	if err != nil || !h.Settles(s) {
		return h
	}
	seen := h
	a.recordDone(ctx, func(h *state.Hooks) {
		if h.SavedAs(seen) { // otherwise an upgrade has begun meanwhile
			h.Settle(s)
		}
	})
	h.Settle(s)
	return h
}

// expectKept records that Options.Kept is due once the version on trial is kept.
func (a *Agent) expectKept(ctx context.Context, s state.State) {
	if a.c.Kept == nil {
		return
	}
	if h, err := a.c.Layout.ReadHooks(); err == nil && h.Expects(s) {
		return
	}
	if err := a.changeHooks(ctx, func(h *state.Hooks) { h.Expect(s) }); err != nil {
		a.log.Warn("that Options.Kept is due was not recorded; it is called if this process runs until the version is kept", "error", err)
	}
}

// runKept calls Options.Kept when the trial of this version ends well, or at the start if the call
// is due. After a rollback to this version, whose call had not succeeded before the upgrade, it is
// due again, once the data are restored.
func (a *Agent) runKept(ctx context.Context, res state.Result, trial bool) error {
	if a.c.Kept == nil || !trial && res.State.Good != a.c.version {
		return nil
	}
	begin := []<-chan struct{}{a.dataReady}
	if trial {
		begin = append(begin, a.keptNow)
	}
	for _, c := range begin {
		select {
		case <-ctx.Done():
			return nil
		case <-c:
		}
	}
	u, tries := Change{From: res.State.Previous, To: a.c.version}, 0
	h, err := a.c.Layout.ReadHooks()
	if from, due := h.Migrates(a.c.version); err == nil && due {
		u.From, tries = from, h.KeptTries
	} else if !trial {
		return nil
	}
	a.callHook(ctx, a.calls.kept, tries, func(ctx context.Context) error { return a.c.Kept(ctx, u) }, a.warnKept,
		func(h *state.Hooks, tries int) { h.KeptTries = tries }, func(h *state.Hooks) { h.Kept, h.KeptTries = nil, 0 })
	if ctx.Err() == nil {
		a.warnKept(nil)
	}
	return nil
}

// callHook calls a hook that is due until it succeeds, and then records that with done. tries are
// the calls before in which the process ended: the next one waits, so that a hook that ends the
// process leaves a node that is connected between two calls. callHook calls refused with each
// error. It returns early when ctx ends.
func (a *Agent) callHook(ctx context.Context, c *callback, tries int, f func(context.Context) error, refused func(error), tried func(*state.Hooks, int), done func(*state.Hooks)) {
	record := func(change func(*state.Hooks)) {
		if err := a.changeHooks(context.WithoutCancel(ctx), change); err != nil {
			a.log.Warn("how a hook does was not recorded", "callback", c.name, "error", err)
		}
	}
	pause := hookPause
	wait := func(err error) bool {
		refused(err)
		a.log.Error("a hook has not succeeded; calling it again", "callback", c.name, "error", err, "retry_in", pause.String())
		select {
		case <-ctx.Done():
			return false
		case <-time.After(pause):
		}
		pause = min(2*pause, maxHookPause)
		return true
	}
	for range tries {
		pause = min(2*pause, maxHookPause)
	}
	if tries > 0 && !wait(fmt.Errorf("the process ended in %d calls of %s", tries, c.name)) {
		return
	}
	for {
		record(func(h *state.Hooks) { tried(h, tries+1) })
		began := time.Now()
		err := c.call(ctx, f)
		if err == nil {
			a.log.Info("a hook was called", "callback", c.name, "ms", time.Since(began).Milliseconds())
			a.recordDone(ctx, done)
			return
		}
		tries = 0
		record(func(h *state.Hooks) { tried(h, 0) })
		if ctx.Err() != nil || !wait(fmt.Errorf("%s failed: %w", c.name, err)) {
			return
		}
	}
}

// recordDone records what is done: that a hook has succeeded, say, which would be called again
// otherwise. It waits for the first attempt only.
func (a *Agent) recordDone(ctx context.Context, done func(*state.Hooks)) {
	a.hooksTurn <- struct{}{}
	a.owedHooks = append(a.owedHooks, done)
	<-a.hooksTurn
	record := func() bool {
		err := a.recordOwed(context.WithoutCancel(ctx))
		if err != nil {
			a.log.Warn("which hooks are due was not recorded; trying again", "error", err)
		}
		return err == nil
	}
	if record() {
		return
	}
	go func() {
		for {
			select {
			case <-ctx.Done():
				return
			case <-time.After(recordPause):
			}
			if record() {
				return
			}
		}
	}()
}

// recordOwed records what is done, and could not be recorded yet.
func (a *Agent) recordOwed(ctx context.Context) error {
	a.hooksTurn <- struct{}{}
	owed := len(a.owedHooks)
	<-a.hooksTurn
	if owed == 0 {
		return nil
	}
	return a.changeHooks(ctx, func(*state.Hooks) {})
}

// readHooks reads the record of the hooks, with what is owed to it.
func (a *Agent) readHooks() (state.Hooks, error) {
	a.hooksTurn <- struct{}{}
	defer func() { <-a.hooksTurn }()
	h, err := a.c.Layout.ReadHooks()
	for _, done := range a.owedHooks {
		done(&h)
	}
	return h, err
}

// changeHooks changes the record of the hooks, after what is owed to it.
func (a *Agent) changeHooks(ctx context.Context, change func(*state.Hooks)) error {
	a.hooksTurn <- struct{}{}
	defer func() { <-a.hooksTurn }()
	if err := a.c.Layout.ChangeHooks(ctx, func(h *state.Hooks) {
		for _, done := range a.owedHooks {
			done(h)
		}
		change(h)
	}); err != nil {
		return err
	}
	a.owedHooks = nil
	return nil
}
