package agent

import (
	"context"

	"github.com/bilbycast/edge-agent/fsutil"
	"github.com/bilbycast/edge-agent/probe"
	"github.com/bilbycast/edge-agent/upgrade"
)

// running says how the version that runs is looked at before a swap.
func (a *Agent) running(repair bool) upgrade.Running {
	r := upgrade.Running{Check: a.checkRunning, Repair: repair, Dependency: func(ctx context.Context) error { return probe.Dependency(ctx, a.c.Health, a.c.clock) }}
	if a.attached != nil { // an operator may have changed the unit since the last look
		r.Unit = func(ctx context.Context) error {
			if err := a.attached.Fit(ctx); err != nil && !isTimeout(err) {
				return err
			}
			return nil
		}
		r.Up = func(ctx context.Context) error {
			unit, err := a.attached.look(ctx)
			switch {
			case isTimeout(err):
				return nil
			case err != nil:
				return err
			}
			return unit.Upgradable(a.c.Service.Unit, repair)
		}
	}
	return r
}

// checkRunning asks, before a swap, the own check of the version that runs, which is not on
// trial.
func (a *Agent) checkRunning(ctx context.Context) error {
	if a.attached == nil {
		return a.ownCheck(ctx)
	}
	if err := a.askCheck(ctx); err != nil {
		return err
	}
	return probe.BeforeSwap(ctx, a.c.Health, a.c.clock)
}

// ownCheck asks whether the service serves, the program's own check, and what [health] names.
func (a *Agent) ownCheck(ctx context.Context) error {
	if err := a.serving.problem(a.c.Serve != nil); err != nil {
		return err
	}
	if err := a.askCheck(ctx); err != nil {
		return fsutil.NameDenial(err)
	}
	ctx, cancel := context.WithTimeout(ctx, checkLimit)
	defer cancel()
	return fsutil.NameDenial(probe.Run(ctx, a.c.Health, a.c.clock))
}
