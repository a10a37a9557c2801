package agent

import (
	"fmt"

	"github.com/bilbycast/edge-agent/release"
	"github.com/bilbycast/edge-agent/wire"
)

// reportStart reports what is wrong with the files of the node, and repairs what it can.
// Attend calls it at each of its runs.
func (a *Agent) reportStart() {
	a.mu.Lock()
	a.warnings = nil
	a.mu.Unlock()
	a.reportConfig()
	a.reportOwner()
	a.restrictModes()
}

// warn adds a problem of the start, which the caller logs, to those that each health
// message reports.
func (a *Agent) warn(cause, remedy string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.warnings = append(a.warnings, warning(cause, remedy))
}

// warnKept reports, as warn does, why Options.Kept has not succeeded; nil: it has.
func (a *Agent) warnKept(err error) {
	text := ""
	if err != nil {
		text = warning(fmt.Sprintf("what the service does once %s is kept is not done, and is tried again: %v", a.c.version, err), "see the log of the service")
	}
	a.mu.Lock()
	changed := a.keptWarning != text
	a.keptWarning = text
	a.mu.Unlock()
	if changed {
		wake(a.healthDue)
		a.publish()
	}
}

// warning returns the text of a warning. A long cause is shortened, so that the remedy stays
// complete.
func warning(cause, remedy string) string {
	end := ": " + remedy
	if room := wire.MaxWarning - len(end); room >= wire.MaxWarning/4 {
		cause = release.Foreign(cause, room)
	}
	return release.Foreign(cause+end, wire.MaxWarning)
}

// healthWarnings returns the present warnings.
func (a *Agent) healthWarnings() []string {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.warningsNow()
}

// warningsNow returns a copy of the present warnings, as many as a health message may have. The
// last one counts those that are left out. The caller holds a.mu.
func (a *Agent) warningsNow() []string {
	var list []string
	if a.keptWarning != "" {
		list = append(list, a.keptWarning)
	}
	list = append(list, a.warnings...)
	more := len(list) - wire.MaxWarnings
	if more <= 0 {
		return list
	}
	return append(list[:wire.MaxWarnings-1], fmt.Sprintf("%d more warnings: see the log of the service, or run edge-agent doctor on the device", more+1))
}
