//go:build sim

package agent

import (
	"os"
	"strconv"
	"time"
)

// faster is by what the environment variable EDGE_AGENT_SIM_FASTER, 1 to 1000, divides every
// time of a trial: the health window and the hold, for how long a connection must be held,
// the limits of an attempt, and the pauses. The probe of another version divides them as well.
var faster = fasterOf(os.Getenv("EDGE_AGENT_SIM_FASTER"))

func fasterOf(s string) time.Duration {
	if n, err := strconv.Atoi(s); err == nil && n > 0 && n <= 1000 {
		return time.Duration(n)
	}
	return 1
}

func pace(d time.Duration) time.Duration { return d / faster }

// limit is pace for how long an attempt may take: a busy machine needs some time for it, and
// one with many agents more, which EDGE_AGENT_SIM_LIMIT says.
func limit(d time.Duration) time.Duration { return max(pace(d), min(d, shortest)) }

var shortest = shortestOf(os.Getenv("EDGE_AGENT_SIM_LIMIT"))

func shortestOf(s string) time.Duration {
	if d, err := time.ParseDuration(s); err == nil && d > 0 {
		return d
	}
	return time.Second
}
