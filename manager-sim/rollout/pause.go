package rollout

import (
	"fmt"
	"slices"
	"strings"
)

// mustPause reports whether the nodes that fell since an operator resumed pause the
// rollout: as many failures as the threshold, or an unproven node at its time limit.
func (r Rollout) mustPause() bool {
	failures, unproven := 0, false
	for _, n := range r.Nodes {
		switch {
		case n.Known:
		case n.failed():
			failures++
		case n.overdue():
			unproven = true
		}
	}
	return unproven || failures >= r.Threshold
}

// lacksDependency reports whether a node rolled back for what is probably a dependency, since
// an operator resumed.
func (r Rollout) lacksDependency() bool {
	return slices.ContainsFunc(r.Nodes, func(n Node) bool { return n.State == NodeDependency && !n.Known })
}

// fallen are the ways in which a node pauses a rollout, in the order of PauseReason. Those
// with names list the nodes: their own upgrade has not failed, so people look for them.
var fallen = []struct {
	word  string
	names bool
	is    func(n Node) bool
}{
	{"failed", false, func(n Node) bool { return n.State == NodeFailed && !watchCode(n.Code) }},
	{"rolled back", false, func(n Node) bool { return n.State == NodeRolledBack }},
	{"vanished", true, func(n Node) bool { return n.State == NodeFailed && n.Code == Vanished }},
	{"degraded", true, func(n Node) bool { return n.State == NodeFailed && n.Code == Degraded }},
	{"running another version again", true, func(n Node) bool { return n.State == NodeFailed && n.Code == OtherVersion }},
	{"running another release of the version", true, func(n Node) bool { return n.State == NodeFailed && n.Code == OtherManifest }},
	{"unproven", true, Node.overdue},
	{"rolled back, probably a dependency", true, func(n Node) bool { return n.State == NodeDependency }},
}

// maxNames is how many nodes a reason lists.
const maxNames = 5

// PauseReason returns why a rollout is paused, with all nodes that fell until now, also
// those after the pause. It returns Reason for other statuses.
func (r Rollout) PauseReason() string {
	if r.Status != Paused {
		return r.Reason
	}
	var parts []string
	for _, f := range fallen {
		var ids []string
		for _, n := range r.Nodes {
			if !n.Known && f.is(n) {
				ids = append(ids, n.ID)
			}
		}
		if len(ids) == 0 {
			continue
		}
		part := fmt.Sprintf("%d nodes %s", len(ids), f.word)
		if len(ids) == 1 {
			part = "1 node " + f.word
		}
		if f.names {
			part += " (" + list(ids) + ")"
		}
		parts = append(parts, part)
	}
	if len(parts) == 0 {
		return r.Reason
	}
	if strings.Contains(r.Reason, " failed or went back in wave ") { // stored by an earlier version
		r.Reason = ""
	}
	failures := fmt.Sprintf("%s in wave %d of %d", strings.Join(parts, ", "), r.Wave+1, len(r.Waves))
	if r.Reason != "" {
		return r.Reason + "; " + failures
	}
	return failures
}

// list joins the first ids.
func list(ids []string) string {
	if len(ids) <= maxNames {
		return strings.Join(ids, ", ")
	}
	return fmt.Sprintf("%s and %d more", strings.Join(ids[:maxNames], ", "), len(ids)-maxNames)
}
