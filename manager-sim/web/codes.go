package web

import (
	"github.com/bilbycast/edge-agent/manager-sim/rollout"
	"github.com/bilbycast/edge-agent/release"
)

// failure is why an upgrade failed. Cause is the node's own message and comes first;
// Meaning and Remedy are general help on the code.
type failure struct {
	Cause, Code, Meaning, Remedy string
}

// failureOf returns the failure with the general help on its code.
func failureOf(code, cause string) *failure {
	f := &failure{Cause: cause, Code: code}
	help := explain(code)
	switch {
	case help.Meaning != "":
		f.Meaning, f.Remedy = help.Meaning, help.Remedy
	case code != "":
		f.Meaning, f.Remedy = "This manager has no description of the code.", "See the node's events and its journal."
	case cause == "":
		f.Meaning, f.Remedy = "The node gave no reason.", "See the node's events and its journal."
	}
	return f
}

// explain returns the help on a code: one of package release, or the manager's own.
func explain(code string) release.Explanation {
	if code == rollout.TimeLimit {
		return release.Explanation{Meaning: "The node reported no outcome within the time limit. A later report still counts.",
			Remedy: "Check whether the node is online. Retry, or skip it."}
	}
	return release.Explain(release.Code(code))
}
