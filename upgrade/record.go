package upgrade

import (
	"github.com/bilbycast/edge-agent/config"
	"github.com/bilbycast/edge-agent/state"
)

// isOwnAgent reports whether the service of a root is its own agent, as far as its
// config.toml says. In attached mode a start ends for other reasons, and each counts.
func isOwnAgent(l state.Layout) bool {
	c, _, err := config.Open(l.ConfigFile())
	return err == nil && c.Service.Unit == ""
}

// recordTrial records that a trial begins, before it does. Without the record each start
// counts, so an error is a note and no reason to refuse.
func recordTrial(l state.Layout, r state.SwapRecord) (note string) {
	if err := l.RecordSwap(r); err != nil {
		return "each start of the version on trial will count, whatever ends it: " + err.Error()
	}
	return ""
}
