//go:build sim

package agent

import (
	"os"
	"time"
)

// heldFor is how long an authenticated connection must last to prove a link. Simulations
// scale it with the other times of a trial.
var heldFor = heldTime(os.Getenv("EDGE_AGENT_SIM_HELD"))

func heldTime(s string) time.Duration {
	if d, err := time.ParseDuration(s); err == nil && d > 0 {
		return d
	}
	return 10 * time.Second
}
