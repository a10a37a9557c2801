//go:build sim

package cert

import (
	"os"
	"time"
)

// deviceTime returns what this device's clock shows. In a simulation build the environment
// variable EDGE_AGENT_SIM_CLOCK can say what it showed when the program started.
func deviceTime() time.Time {
	if at, err := time.Parse(time.RFC3339, os.Getenv("EDGE_AGENT_SIM_CLOCK")); err == nil {
		return at.Add(time.Since(started))
	}
	return time.Now()
}

var started = time.Now()
