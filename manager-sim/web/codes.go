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
	if meaning, remedy = actionMeaning(code); meaning != "" {
		return meaning, remedy
	}
	switch code {
	case rollout.Vanished:
		return "The node kept the version, and is offline for longer than usual for it. It counts as updated again when it is back.",
			"Check the device and its network. Resume the rollout if the release is not the cause; otherwise abort it, and roll the group back."
	case rollout.Degraded:
		return "The node kept the version, and its health is degraded since. It counts as updated again when its health is ok.",
			"See the node's events, and the service's journal on the device. Resume the rollout if the release is not the cause."
	case rollout.OtherVersion:
		return "The node kept the version, and runs another one again. It counts as updated again when it runs the version.",
			"See the node's events: a version was chosen on the device, or the node rolled back. Retry, or skip it."
	case rollout.OtherManifest:
		return "The node runs the version, but from another manifest than the rollout pinned: the version was published again. It counts as updated when the manifests are the same.",
			"Find out which release is the right one, and who published it again. Publish it as a new version, and begin another rollout."
	case rollout.Dependency:
		return "Probably a dependency of the node is down: after the rollback the check of the previous version failed as well. This does not count against the version.",
			"Bring back what the service depends on, then retry. The node's event has what its check reports."
	case rollout.Moved:
		return "The node is in another group now, so this rollout leaves it out.", "Upgrade it with its present group."
	case rollout.Removed:
		return "The node was removed from the manager, so this rollout leaves it out.", "Register the device again to manage it."
	case rollout.Replaced:
		return "Another request took the place of the rollout's command before that was sent.", "See the node's upgrades."
	case rollout.Withdrawn:
		return "An operator withdrew the rollout's command.", "See the node's upgrades, and upgrade it by itself if it should have the version."
	case rollout.TimeLimit:
		return "The node reported no outcome within the time limit. A later report still counts.",
			"Check whether the node is online. Retry, or skip it."
	}
	e := release.Explain(release.Code(code))
	return e.Meaning, e.Remedy
}
