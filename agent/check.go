package agent

import (
	"context"
	"time"

	"github.com/bilbycast/edge-agent/internal/state"
	"github.com/bilbycast/edge-agent/release"
	"github.com/bilbycast/edge-agent/wire"
)

// check asks whether the version that runs is well, and whether that version answers. Status shows
// the result.
func (a *Agent) check(ctx context.Context) error {
	err := checkOtherVersions(a.c.Layout, a.c.version)
	if err == nil {
		err = a.ownCheck(ctx)
	}
	if ctx.Err() == nil {
		a.showCheck(err)
	}
	return err
}

// showCheck shows what a check found.
func (a *Agent) showCheck(err error) {
	health, problem := wire.StatusOK, ""
	if err != nil {
		health, problem = wire.StatusDegraded, release.Foreign(err.Error(), maxReason)
	}
	serves := a.serving.problem(a.c.Serve != nil) == nil
	a.setStatus(func(w *statusText) {
		a.checked, a.problem, w.check = health, problem, ""
		// The text says what the trial waits for, and that the service does not serve.
		if err != nil && serves && a.known.Status != state.PendingHealth {
			w.check = "degraded: " + release.Foreign(problem, maxReason/4)
		}
	})
}

// checkOffline asks the check while no health message and no trial does, for Status: regularly,
// and when the service begins or ends to serve.
func (a *Agent) checkOffline(ctx context.Context) error {
	tick := time.NewTicker(wire.HealthInterval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		case <-a.checkDue:
		}
		a.mu.Lock()
		asked := a.connection.Connected || a.known.Status == state.PendingHealth
		a.mu.Unlock()
		if !asked {
			a.check(ctx)
		}
	}
}
