package agent

import (
	"context"
	"time"
)

// NoManager is what a node without a manager ([manager] urls is empty) reports in place of a
// Connection.
const NoManager = "no manager configured"

// noManagerTurn is how often the loop that stands for the session's reports that it runs.
const noManagerTurn = 5 * time.Second

// withoutManager stands for the session of a node without a manager, until ctx is done.
func (a *Agent) withoutManager(ctx context.Context) error {
	a.log.Info(NoManager)
	a.setStatus(func(w *statusText) { w.manager = NoManager })
	tick := time.NewTicker(noManagerTurn)
	defer tick.Stop()
	for {
		a.expectLoop(noManagerTurn)
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}
