package rollout

import (
	"maps"
	"slices"
	"time"
)

// Codes of a node that kept the version, and with which something is wrong since. As long
// as the rollout has not ended, each counts as a failure.
const (
	Vanished     = "node_vanished"      // it is offline for longer than usual for it
	Degraded     = "node_degraded"      // its health is degraded, and was not before the command
	OtherVersion = "node_other_version" // it runs another version again
	// OtherManifest: it runs another release of the same version.
	OtherManifest = "node_other_manifest"
)

// Condition reports what is wrong with a watched node: one of the codes, or "" if nothing
// is. A node that kept the version, and with which nothing is wrong any more, counts as
// updated again. Of an unproven node only OtherVersion counts.
type Condition struct {
	NodeID  string
	Attempt int
	Code    string
}

// Unproven reports whether a node's version is unproven: its own check has held, and its
// link to the manager is neither proven nor disproven.
type Unproven struct {
	NodeID  string
	Attempt int
	Is      bool
}

// Pin reports the manifest of the first node of a device type that was updated and reports
// one. It changes nothing if one is pinned.
type Pin struct{ DeviceType, SHA256 string }

func (Pin) event()       {}
func (Condition) event() {}
func (Unproven) event()  {}

// DefaultPatience is the shortest time after which an offline node has vanished.
const DefaultPatience = 2 * time.Minute

// Patience returns how long a node may be offline before it has vanished: at least least,
// and twice as long as its longest absence before.
func Patience(least, longest time.Duration) time.Duration { return max(least, 2*longest) }

// Watched reports whether a Condition of the node counts: it kept the version, or it is
// unproven and past the time limit, so that the rollout no longer waits for it.
func (n Node) Watched() bool { return n.kept() || n.overdue() }

// kept reports whether the node kept the version, and may have fallen since.
func (n Node) kept() bool {
	return n.State == NodeUpdated || n.State == NodeFailed && watchCode(n.Code)
}

func watchCode(code string) bool {
	return slices.Contains([]string{Vanished, Degraded, OtherVersion, OtherManifest}, code)
}

// recordCondition records what is wrong with a watched node.
func (n *Node) recordCondition(e Condition) {
	switch {
	case e.Attempt != n.Attempt || !n.Watched() || n.overdue() && e.Code != OtherVersion:
	case e.Code == "":
		n.State, n.Code, n.Known = NodeUpdated, "", false
	case watchCode(e.Code):
		n.fall(NodeFailed, e.Code)
	}
}

// pin records the manifest of a device type, unless one is pinned.
func (r *Rollout) pin(e Pin) {
	if r.Manifests[e.DeviceType] != "" || e.SHA256 == "" {
		return
	}
	r.Manifests = maps.Clone(r.Manifests) // that of the rollout before is another value
	if r.Manifests == nil {
		r.Manifests = make(map[string]string)
	}
	r.Manifests[e.DeviceType] = e.SHA256
}

// recordUnproven records whether a node without an outcome is unproven. One that reached
// the time limit stays unproven until its outcome arrives, and is unproven again when it
// has run another version meanwhile.
func (n *Node) recordUnproven(e Unproven) {
	late := n.Code == TimeLimit
	switch {
	case e.Attempt != n.Attempt:
	case e.Is && n.State == NodeFailed && n.Code == OtherVersion:
		n.State, n.Code = NodeUnproven, "" // Step finds again that it has reached the limit
	case e.Is && (n.State == NodeCommanded || n.State == NodeFailed && late):
		n.State = NodeUnproven
	case !e.Is && n.State == NodeUnproven && !late:
		n.State = NodeCommanded
	}
}
