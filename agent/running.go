package agent

import (
	"context"
	"time"

	"github.com/bilbycast/edge-agent/probe"
)

// checkRunning asks, before a swap, the own check of the version that runs, which is not on
// trial. In attached mode the unit has to be up, too.
func (a *Agent) checkRunning(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	if a.attached != nil {
		if _, err := a.attached.Active(ctx); err != nil && !isTimeout(err) {
			return err
		}
	}
	return a.ownCheck(ctx)
}

// ownCheck asks the program's own check, and what [health] names.
func (a *Agent) ownCheck(ctx context.Context) error {
	if a.c.Check != nil {
		if err := a.c.Check(ctx); err != nil {
			return err
		}
	}
	return probe.Run(ctx, a.c.Health)
}
