package agent

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/bilbycast/edge-agent/internal/state"
	"github.com/bilbycast/edge-agent/release"
)

// Change is an upgrade as a hook of Options sees it.
type Change struct {
	From, To release.Version
	// Reason says why To was rolled back; RolledBack alone has it.
	Reason string
}

// Pauses between two calls of a hook that fails.
const (
	hookPause    = 5 * time.Second
	maxHookPause = 5 * time.Minute
)

// beforeTrial has the service save its data for a rollback from v. An error refuses the upgrade.
func (a *Agent) beforeTrial(ctx context.Context, v release.Version) error {
	if a.c.BeforeTrial == nil && a.c.RolledBack == nil {
		return nil
	}
	u := Change{From: a.c.version, To: v}
	if a.c.BeforeTrial != nil {
		if err := a.calls.beforeTrial.call(ctx, func(ctx context.Context) error { return a.c.BeforeTrial(ctx, u) }); err != nil {
			return fmt.Errorf("the service did not save its data before the trial of %s: %w", v, err)
		}
	}
	res, err := a.c.Layout.Read()
	if err != nil {
		return err
	}
	return a.c.Layout.ChangeHooks(ctx, func(h *state.Hooks) {
		h.Saved = &state.Saved{From: u.From, To: u.To, After: res.State.TrialID}
	})
}

// restore has the service restore its data after a rollback to this version, until it has.
// refused is told each error. It returns early when ctx ends.
func (a *Agent) restore(ctx context.Context, s state.State, refused func(error)) {
	if a.c.RolledBack == nil {
		return
	}
	u := Change{From: a.c.version, Reason: s.Reason}
	due := func(h state.Hooks) bool {
		saved := h.Saved
		if saved == nil {
			return false
		}
		u.To = saved.To
		if from, ok := s.OperatorRollback(); ok {
			return saved.To == from
		}
		return s.Status == state.RolledBack && saved.To == s.Target && saved.After != s.TrialID
	}
	a.callHook(ctx, a.calls.rolledBack, due, func(ctx context.Context) error { return a.c.RolledBack(ctx, u) }, refused, func(h *state.Hooks) { h.Saved = nil })
}

// expectKept records that the version on trial is told when it is kept.
func (a *Agent) expectKept(ctx context.Context, s state.State) {
	if a.c.Kept == nil {
		return
	}
	want := state.Saved{From: s.Previous, To: s.Target, After: s.TrialID}
	if h, err := a.c.Layout.ReadHooks(); err == nil && h.Kept != nil && *h.Kept == want {
		return
	}
	if err := a.c.Layout.ChangeHooks(ctx, func(h *state.Hooks) { h.Kept = &want }); err != nil {
		a.log.Warn("that Options.Kept is due was not recorded; it is called if this process runs until the version is kept", "error", err)
	}
}

// kept has the service know that this version is kept: at the start, if it was not told before,
// and when the trial ends.
func (a *Agent) runKept(ctx context.Context, res state.Result, trial bool) error {
	if a.c.Kept == nil {
		return nil
	}
	u := Change{From: res.State.Previous, To: a.c.version}
	told := false
	if trial {
		select {
		case <-ctx.Done():
			return nil
		case <-a.keptNow:
		}
		told = true
	}
	due := func(h state.Hooks) bool {
		if h.Kept != nil && h.Kept.To == a.c.version {
			u.From = h.Kept.From
			return trial || res.State.Status == state.Stable && res.State.Good == a.c.version
		}
		return told
	}
	a.callHook(ctx, a.calls.kept, due, func(ctx context.Context) error { return a.c.Kept(ctx, u) }, func(error) {}, func(h *state.Hooks) { h.Kept = nil })
	return nil
}

// callHook calls a hook that is due until it succeeds, and then records that with done. Where
// the record cannot be read, a hook is not due: its data is of an unknown time.
func (a *Agent) callHook(ctx context.Context, c *callback, due func(state.Hooks) bool, f func(context.Context) error, refused func(error), done func(*state.Hooks)) {
	h, err := a.c.Layout.ReadHooks()
	if err != nil {
		a.log.Error("which hooks are due cannot be read; none is called", "error", err)
	}
	if !due(h) {
		return
	}
	for pause := hookPause; ; pause = min(2*pause, maxHookPause) {
		began := time.Now()
		err := c.call(ctx, f)
		if err == nil {
			a.log.Info("a hook was called", "callback", c.name, "ms", time.Since(began).Milliseconds())
			break
		}
		if ctx.Err() != nil {
			return
		}
		refused(errors.Join(fmt.Errorf("%s failed", c.name), err))
		a.log.Error("a hook failed; calling it again", "callback", c.name, "error", err, "retry_in", pause.String())
		select {
		case <-ctx.Done():
			return
		case <-time.After(pause):
		}
	}
	if err := a.c.Layout.ChangeHooks(ctx, done); err != nil {
		a.log.Warn("that a hook succeeded was not recorded; the next start calls it again", "callback", c.name, "error", err)
	}
}
