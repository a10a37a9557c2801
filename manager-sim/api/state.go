package api

// UpgradeState is how far a node's last upgrade is, as an operator sees it.
type UpgradeState string

// The states, in the order in which a successful upgrade passes through them.
const (
	Idle       UpgradeState = "idle"
	Queued     UpgradeState = "queued"  // not sent: the node is offline
	Sent       UpgradeState = "sent"    // sent; the node has not answered
	Staging    UpgradeState = "staging" // the node accepted the command
	Staged     UpgradeState = "staged"  // the node restarts, or has not come back
	Proving    UpgradeState = "proving" // the new version has authenticated
	Updated    UpgradeState = "updated" // the new version has proved healthy
	Failed     UpgradeState = "failed"  // the node or the manager refused the release
	RolledBack UpgradeState = "rolled_back"
	Changed    UpgradeState = "changed"    // updated; the device has run another version since
	Superseded UpgradeState = "superseded" // it was unproven, and a newer version took its place
	Withdrawn  UpgradeState = "withdrawn"  // withdrawn, and no outcome is known
)

// RolledBackDependency describes a node that rolled back for what is probably a dependency.
const RolledBackDependency = "rolled back, probably a dependency"

// Ended reports whether the upgrade has ended.
func (u UpgradeState) Ended() bool {
	switch u {
	case Queued, Sent, Staging, Staged, Proving:
		return false
	}
	return true
}
