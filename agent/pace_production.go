//go:build !sim

package agent

import "time"

// pace returns a time of a trial. Only simulation builds shorten it.
func pace(d time.Duration) time.Duration { return d }

// limit is pace for how long an attempt may take.
func limit(d time.Duration) time.Duration { return d }
