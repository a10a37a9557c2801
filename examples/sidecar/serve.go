package main

import (
	"context"

	"github.com/bilbycast/edge-agent/agent"
)

// serve is the service's own work: it opens what the service needs, says that it serves, and
// serves until ctx is done. The agent runs already, so a release can repair what fails here.
func serve(ctx context.Context, a *agent.Agent) error {
	a.Ready()
	<-ctx.Done()
	return nil
}
