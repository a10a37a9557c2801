package agent

import (
	"fmt"

	"github.com/bilbycast/edge-agent/release"
	"github.com/bilbycast/edge-agent/wire"
)

// reportStart reports what is wrong with the files of the node, and repairs what it can.
// Attend calls it at each of its runs.
func (a *Agent) reportStart() {
	a.warnings = nil
	a.reportConfig()
	a.reportOwner()
	a.restrictModes()
}

// warn adds a problem of the start, which the caller logs, to those that each health
// message reports. It may be called only before the agent's goroutines start. A long
// cause is shortened, so that the remedy stays complete.
func (a *Agent) warn(cause, remedy string) {
	end := ": " + remedy
	if room := wire.MaxWarning - len(end); room >= wire.MaxWarning/4 {
		cause = release.Foreign(cause, room)
	}
	a.warnings = append(a.warnings, release.Foreign(cause+end, wire.MaxWarning))
}

// healthWarnings returns the problems of the start, as many as a health message may have.
// The last one counts those that are left out.
func (a *Agent) healthWarnings() []string {
	more := len(a.warnings) - wire.MaxWarnings
	if more <= 0 {
		return a.warnings
	}
	list := append([]string{}, a.warnings[:wire.MaxWarnings-1]...)
	return append(list, fmt.Sprintf("%d more warnings: see the log of the service, or run edge-agent doctor on the device", more+1))
}
