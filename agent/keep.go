package agent

import (
	"context"
	"time"

	"github.com/bilbycast/edge-agent/internal/state"
	"github.com/bilbycast/edge-agent/stage"
)

// keep records that the version proved healthy, and reports the upgrade as completed.
func (a *Agent) keep(ctx context.Context, note string) error {
	return a.keepBy(ctx, "upgrade completed: the new version is healthy", func(s state.State, t state.Tree, now time.Time) (state.State, state.Tree) {
		return state.Keep(s, t, a.c.version, note, now)
	})
}

// keepCompleted is keep for a version whose upgrade was reported as completed before.
func (a *Agent) keepCompleted(ctx context.Context) error {
	return a.keepBy(ctx, "the trial is over: the new version is kept", func(s state.State, t state.Tree, now time.Time) (state.State, state.Tree) {
		return state.KeepCompleted(s, t, a.c.version, now)
	})
}

// keepBy records by change, and logs as done, that the version proved healthy. A disk that cannot store the
// record does not make the version unhealthy: the service is ready, and the record is
// tried again.
//
// If current points to another version by now, that one has not proved anything, and
// this one is not ready: followCurrent, or systemd, starts the other one. keepBy then waits
// for an operator who points current back.
func (a *Agent) keepBy(ctx context.Context, done string, change func(state.State, state.Tree, time.Time) (state.State, state.Tree)) error {
	var before state.State
	for told := false; ; {
		res, ok := a.record(ctx, "the new version is healthy", func(s state.State, t state.Tree, now time.Time) (state.State, state.Tree, error) {
			if s.Status == state.PendingHealth {
				before = s
			}
			s, t = change(s, t, now)
			return s, t, nil
		}, func(res state.Result) {
			if current := res.Tree.Current; current == a.c.version || current.IsZero() {
				a.ready(res)
				wake(a.healthDue)
			}
		})
		if !ok {
			return nil
		}
		if res.State.Status == state.Stable && res.State.Good == a.c.version {
			break
		}
		if !told {
			a.log.Warn("this version is healthy, but it is not on trial any more, so it is not kept", "version", a.c.version.String(), "current", res.Tree.Current.String(), "status", string(res.State.Status))
			told = true
		}
		if !a.currentReturns(ctx) {
			return nil
		}
	}
	if res, err := a.c.Layout.Read(); err == nil {
		a.settle(ctx, res.State)
	}
	a.endTrial()
	a.log.Info(done, "from", before.Previous.String(), "to", before.Target.String(), "boot_attempts", before.BootAttempts)
	a.keepConfig(ctx)
	if err := stage.Prune(ctx, a.c.Layout, a.c.Upgrade.KeepVersions, a.c.version); err != nil {
		a.log.Warn("old versions were not removed", "error", err)
	}
	return nil
}

// currentReturns waits until current points to this version again, from another one. It
// reports false if the run ends first.
func (a *Agent) currentReturns(ctx context.Context) bool {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for away := false; ; {
		t, err := a.c.Layout.Tree()
		if err == nil && !t.Current.IsZero() {
			if t.Current == a.c.version && away {
				return true
			}
			away = t.Current != a.c.version
		}
		select {
		case <-ctx.Done():
			return false
		case <-a.swapped:
			return false
		case <-tick.C:
		}
	}
}
