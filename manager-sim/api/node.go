package api

import (
	"encoding/json"
	"slices"
	"strings"
	"time"
)

// Node is a registered node.
type Node struct {
	ID         string `json:"id"`
	DeviceType string `json:"device_type"`
	GroupID    string `json:"group_id,omitempty"`
	GroupName  string `json:"group_name,omitempty"`
	Online     bool   `json:"online"`
	Address    string `json:"address,omitempty"` // of its last connection
	Health     string `json:"health,omitempty"`  // of its last health beat: ok or degraded
	Version    string `json:"version"`
	// ManifestSHA256 is that of the manifest of Version, as the node reports; "": it reports none.
	ManifestSHA256 string       `json:"manifest_sha256,omitempty"`
	TargetVersion  string       `json:"target_version,omitempty"`
	UpgradeState   UpgradeState `json:"upgrade_state"`
	ErrorCode      string       `json:"error_code,omitempty"`
	Error          string       `json:"error,omitempty"` // the node's message for ErrorCode
	CommandID      string       `json:"command_id,omitempty"`
	RequestedBy    string       `json:"requested_by,omitempty"`
	// MayStillRun is whether that command was withdrawn after it was sent, and the node may still
	// obey it.
	MayStillRun bool `json:"may_still_run,omitempty"`
	// Upgradable reports whether the manager would accept a request to upgrade now.
	// If not, NotUpgradable is the reason.
	Upgradable    bool           `json:"upgradable"`
	NotUpgradable *NotUpgradable `json:"not_upgradable,omitempty"`
	Capabilities  []string       `json:"capabilities"`
	// Actions are those that the node's service, not its agent, carries out: see Action.
	Actions []string        `json:"actions,omitempty"`
	Upgrade json.RawMessage `json:"upgrade,omitempty"` // of its last health beat
	// UpgradeUnavailable is the reason that the node itself reports for offering no
	// upgrades.
	UpgradeUnavailable string     `json:"upgrade_unavailable,omitempty"`
	Warnings           []string   `json:"warnings,omitempty"`  // of its last health beat, with their remedies: ignored keys, modes, owners
	Duplicate          *Duplicate `json:"duplicate,omitempty"` // set while two devices use its identity
	// Trial is how far the trial of the running version is: trial, guard or unproven; ""
	// without one.
	Trial string `json:"trial,omitempty"`
	// Hold is what the node waits for: an unproven version, or a download.
	Hold *Hold `json:"hold,omitempty"`
	// Dependency is whether the last upgrade was rolled back, and probably a dependency of the
	// node is down: the check of the previous version failed afterwards as well.
	Dependency bool `json:"dependency,omitempty"`
	// ManagerAwaySecs is how long no manager ran since it sent the command of an upgrade
	// that has not ended. The time limit did not run meanwhile.
	ManagerAwaySecs int64     `json:"manager_away_secs,omitempty"`
	RegisteredAt    time.Time `json:"registered_at"`
	LastSeen        time.Time `json:"last_seen"`
	RemovedAt       time.Time `json:"removed_at,omitzero"`
}

// Trials of a Node.
const (
	TrialOpen     = "trial"    // no result yet
	TrialGuard    = "guard"    // completed; a failure until the guard ends still rolls back
	TrialUnproven = "unproven" // its own check has held; its link to the manager is not proven
)

// Hold is what a node waits for, in its words.
type Hold struct {
	Reason string    `json:"reason"` // a noun phrase
	Since  time.Time `json:"since,omitzero"`
}

// String describes what an unproven version waits for, and since when: "waits for REASON,
// since TIME".
func (h *Hold) String() string {
	const unknown = "waits for a proof of its link to the manager"
	if h == nil || h.Reason == "" {
		return unknown
	}
	text := "waits for " + h.Reason
	if !h.Since.IsZero() {
		text += ", since " + h.Since.UTC().Format("2006-01-02 15:04:05 UTC")
	}
	return text
}

// TrialText describes the trial of the running version; "" without one.
func (n Node) TrialText() string {
	kept := n.UpgradeState == Updated && n.TargetVersion == n.Version // the report is from before
	switch {
	case n.Trial == TrialUnproven:
		return "unproven: " + n.Hold.String()
	case n.Trial == TrialGuard:
		return "under guard"
	case n.UpgradeState == Proving || n.UpgradeState == Staged && n.ManagerAwaySecs > 0 || n.Trial == TrialOpen && !kept:
		if n.ManagerAwaySecs > 0 {
			return "on trial (manager was away)"
		}
		return "on trial"
	}
	return ""
}

// Progress returns how many bytes of a release the node has downloaded, and how
// many there are. ok is false if the node reports no progress.
func (n Node) Progress() (done, total int64, ok bool) {
	var u struct {
		Progress struct {
			BytesDone  int64 `json:"bytes_done"`
			BytesTotal int64 `json:"bytes_total"`
		} `json:"progress"`
	}
	if json.Unmarshal(n.Upgrade, &u) != nil || u.Progress.BytesTotal <= 0 || u.Progress.BytesDone < 0 {
		return 0, 0, false
	}
	return u.Progress.BytesDone, u.Progress.BytesTotal, true
}

// NodeList is a page of nodes.
type NodeList struct {
	Nodes []Node `json:"nodes"`
	Next  string `json:"next,omitempty"` // After of the next page; "": this is the last one
	// Unreadable is how many entries were left out because the manager cannot read them.
	Unreadable int `json:"unreadable,omitempty"`
}

// NotUpgradable is the reason why the manager accepts no request to upgrade a node.
// Reason and Remedy are whole sentences for an operator.
type NotUpgradable struct {
	Code   string `json:"code"`
	Reason string `json:"reason"`
	Remedy string `json:"remedy"`
}

// Detail returns Reason and Remedy, as the Detail of a Problem has them.
func (n NotUpgradable) Detail() string { return n.Reason + " " + n.Remedy }

// Duplicate reports that two devices use the identity of one node.
type Duplicate struct {
	Addresses []string  `json:"addresses"` // of both devices, the latest last
	Since     time.Time `json:"since"`
}

// From describes the addresses from which the two devices connect.
func (d Duplicate) From() string {
	distinct := slices.Compact(slices.Sorted(slices.Values(d.Addresses)))
	if len(distinct) == 1 {
		return "both connect from " + distinct[0]
	}
	return "they connect from " + strings.Join(distinct, " and ")
}

// Command is a command that the manager gave to a node.
type Command struct {
	ID        string          `json:"command_id"`
	NodeID    string          `json:"node_id"`
	Version   string          `json:"version"`
	Channel   string          `json:"channel"`
	Action    json.RawMessage `json:"action"` // as it is sent
	CreatedAt time.Time       `json:"created_at"`
	SentAt    time.Time       `json:"sent_at,omitzero"`  // the last time
	AckedAt   time.Time       `json:"acked_at,omitzero"` // zero: not acknowledged
	Success   bool            `json:"success"`
	ErrorCode string          `json:"error_code,omitempty"`
	Error     string          `json:"error,omitempty"`
	Data      json.RawMessage `json:"data,omitempty"`
	// Actor is who requested it; "" for a command of an earlier version.
	Actor string `json:"requested_by,omitempty"`
	// State is whether it may be sent: pending, held, sent, withdrawn, superseded or ended.
	State     string `json:"state,omitempty"`
	RolloutID string `json:"rollout_id,omitempty"` // absent: requested for this node
	// WithdrawnAt is when it was withdrawn, or zero; WithdrawnBy and WithdrawReason are who
	// withdrew or held it, and why. WithdrawAckedAt is when the node answered.
	WithdrawnAt     time.Time `json:"withdrawn_at,omitzero"`
	WithdrawnBy     string    `json:"withdrawn_by,omitempty"`
	WithdrawReason  string    `json:"withdraw_reason,omitempty"`
	WithdrawAckedAt time.Time `json:"withdraw_acked_at,omitzero"`
	// MayStillRun is whether it was sent before it was withdrawn, and the node may still obey it.
	MayStillRun bool `json:"may_still_run,omitempty"`
}

// CommandList is a page of commands.
type CommandList struct {
	Commands []Command `json:"commands"`
	Next     string    `json:"next,omitempty"`
	// Unreadable is how many entries were left out because the manager cannot read them.
	Unreadable int `json:"unreadable,omitempty"`
}

// CommandCreated is the answer to a node's upgrade.
type CommandCreated struct {
	CommandID string `json:"command_id"`
}

// NodeUpgrade is the body of a node's upgrade.
type NodeUpgrade struct {
	Version    string `json:"version"`
	Channel    string `json:"channel,omitempty"` // default stable
	TargetArch string `json:"target_arch,omitempty"`
	Variant    string `json:"variant,omitempty"`
	// AllowUnlisted requests a version even if the manager does not find it published.
	AllowUnlisted bool `json:"allow_unlisted,omitempty"`
	// Replace does not name a command, so it replaces none: while the node has one that has not
	// ended, the request is refused, and the answer has the id for Replaces. It remains for
	// earlier programs.
	Replace bool `json:"replace,omitempty"`
	// Replaces is the id of the node's newest command, which this one supersedes if it was
	// never sent. If the node has another one by now, the request is refused.
	Replaces string `json:"replaces,omitempty"`
	// Repair declares the version the repair of a node whose own check fails: the node does
	// not look at the check of the version that it runs.
	Repair bool `json:"repair,omitempty"`
	// LimitSecs is the time limit: 60 to 86400; default 3600. It begins when the command is
	// sent, and again whenever the progress that the node reports changes.
	LimitSecs int `json:"limit_secs,omitempty"`
}

// Withdrawal is the body that withdraws a node's command.
type Withdrawal struct {
	CommandID string `json:"command_id"`       // the one that the operator saw
	Reason    string `json:"reason,omitempty"` // kept in the audit trail
}

// States of a Connection.
const (
	Authenticated = "authenticated"
	Disconnected  = "disconnected"
)

// Connection is the beginning or the end of a node's session. A manager that is
// killed records no end.
type Connection struct {
	Time    time.Time `json:"time"`
	State   string    `json:"state" jsonschema:"enum=authenticated,enum=disconnected"`
	Version string    `json:"version,omitempty"` // at which it authenticated
}

// ConnectionList is the newest of a node's connections.
type ConnectionList struct {
	Connections []Connection `json:"connections"`
}

// Reason is the optional body of an act that cannot be undone.
type Reason struct {
	Reason string `json:"reason,omitempty"` // kept in the audit trail
}

// PendingNode is a node whose credentials the manager does not know.
type PendingNode struct {
	ID         string    `json:"id"`
	Address    string    `json:"address"` // for IPv6, its network of 56 bits
	DeviceType string    `json:"device_type"`
	Version    string    `json:"version"`
	FirstSeen  time.Time `json:"first_seen"`
	LastSeen   time.Time `json:"last_seen"`
	// OtherAddress is of another device that claims the id with another secret.
	// While it is set the node cannot be accepted.
	OtherAddress string `json:"other_address,omitempty"`
}

// PendingNodeList is the list of pending nodes.
type PendingNodeList struct {
	Nodes []PendingNode `json:"nodes"`
}

// Acceptance is the optional body that accepts a pending node.
type Acceptance struct {
	GroupID string `json:"group_id,omitempty"`
}

// NodeAccepted is the answer to an Acceptance.
type NodeAccepted struct {
	ID string `json:"id"`
}

// Release is one that an operator can choose.
type Release struct {
	Version    string    `json:"version"`
	Channel    string    `json:"channel"`
	DeviceType string    `json:"device_type"`
	Sequence   uint64    `json:"sequence"`
	ReleasedAt time.Time `json:"released_at"`
}

// ReleaseList is the newest releases of a device type, newest first.
type ReleaseList struct {
	Releases []Release `json:"releases"`
}
