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
	f.Meaning, f.Remedy = Meaning(code)
	switch {
	case f.Meaning != "":
	case code != "":
		f.Meaning, f.Remedy = "This manager has no description of the code.", "See the node's events and its journal."
	case cause == "":
		f.Meaning, f.Remedy = "The node gave no reason.", "See the node's events and its journal."
	}
	return f
}

// Meaning returns what an error code means and what an operator can do. Both are empty
// for an unknown code. Codes of package release have their texts there.
func Meaning(code string) (meaning, remedy string) {
	if code == rollout.TimeLimit {
		return "The node reported no outcome within the time limit. A later report still counts.",
			"Check whether the node is online. Retry, or skip it."
	}
	e := release.Explain(release.Code(code))
	return e.Meaning, e.Remedy
}
