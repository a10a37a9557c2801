package agent

import (
	"context"
	"errors"
	"io/fs"
	"time"

	"github.com/bilbycast/edge-agent/internal/state"
	"github.com/bilbycast/edge-agent/wire"
)

// restrictModes lets only the agent's user read and change the install root. In
// attached mode the service, which is another user, runs from it.
func (a *Agent) restrictModes() {
	mode := fs.FileMode(0o750)
	if a.attached != nil {
		mode = 0o755
	}
	changed, errs := a.c.Layout.Narrow(mode)
	for _, err := range errs {
		a.log.Warn("a mode in the install root was not restricted", "error", err)
		a.warn("other users may read or change files of the install root", err.Error())
	}
	if len(changed) > 0 {
		a.log.Info("modes restricted: other users may no longer read or change these files", "paths", changed)
	}
}

// reconcile repairs the install root, and returns the command that a restart
// interrupted; the zero Command if there is none. The service runs whatever is wrong
// with the root; only upgrades are then refused.
func (a *Agent) reconcile(ctx context.Context) (state.Result, state.Command) {
	var interrupted state.Command
	have := a.c.Layout.Downloaded()
	res, err := a.do(ctx, func(s state.State, t state.Tree, now time.Time) (state.State, state.Tree, error) {
		s, interrupted = state.Resume(s, have, now)
		return s, t, nil
	})
	if err != nil && !errors.Is(err, state.ErrReportsPending) {
		a.log.Error("install root cannot be changed; upgrades are not possible", "error", err)
		a.mu.Lock()
		defer a.mu.Unlock()
		a.reconcileErr = err
		if res, err = a.c.Layout.Read(); err != nil {
			a.log.Error("install root cannot be read", "error", err)
		}
		a.memoryEvents, a.known = res.State.PendingReports, res.State
		return res, state.Command{}
	}
	if cur := res.Tree.Current; !cur.IsZero() && cur != a.c.version && res.State.Status != state.PendingHealth {
		a.log.Warn("current points to another version than this program", "version", a.c.version.String(), "current", cur.String())
	}
	return res, interrupted
}

// retryReconcile repairs a root that could not be repaired at the start, once it can
// be changed again. The node accepts no command before that. known is whether the state
// could be read at the start; if not, this version may be on trial, and the trial begins
// once that is known.
func (a *Agent) retryReconcile(ctx context.Context, known bool) error {
	tick := time.NewTicker(wire.HealthInterval)
	defer tick.Stop()
	for {
		a.mu.Lock()
		reconciled := a.reconcileErr == nil
		a.mu.Unlock()
		if reconciled {
			return nil
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		var interrupted state.Command
		have := a.c.Layout.Downloaded()
		res, err := a.c.Layout.Do(ctx, func(s state.State, t state.Tree, now time.Time) (state.State, state.Tree, error) {
			s, interrupted = state.Resume(s, have, now)
			return s, t, nil
		})
		if err != nil && !errors.Is(err, state.ErrReportsPending) {
			continue
		}
		a.log.Info("install root can be changed again")
		a.mu.Lock()
		a.reconcileErr, a.memoryEvents = nil, nil
		a.mu.Unlock()
		if interrupted.ID != "" {
			a.resume(ctx, interrupted, res.State.Status == state.PendingHealth && a.attached == nil)
		}
		wake(a.outbox)
		wake(a.healthDue)
		if !known && res.State.Status == state.PendingHealth && res.State.Target == a.c.version {
			return a.runTrial(ctx, res, time.Now())
		}
	}
}
