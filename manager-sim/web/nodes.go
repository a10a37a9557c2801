package web

import (
	"fmt"
	"net/url"
	"slices"
	"strings"

	"github.com/bilbycast/edge-agent/manager-sim/api"
	"github.com/bilbycast/edge-agent/manager-sim/rollout"
	"github.com/bilbycast/edge-agent/wire"
)

// groupList returns the groups, and their names by id.
func (r *request) groupList() ([]api.Group, map[string]string, error) {
	list, err := r.api.Groups(r.Context())
	names := map[string]string{}
	for _, g := range list {
		names[g.ID] = g.Name
	}
	return list, names, err
}

// node is a node as the pages show it.
type node struct{ api.Node }

func nodesOf(list []api.Node) []node {
	nodes := make([]node, len(list))
	for i, n := range list {
		nodes[i] = node{n}
	}
	return nodes
}

// OneAddress reports whether two devices with one identity connect from the same
// address, as behind one router.
func (n node) OneAddress() bool {
	return n.Duplicate != nil && len(slices.Compact(slices.Clone(n.Duplicate.Addresses))) == 1
}

// Chip is the state of the node's last upgrade.
func (n node) Chip() chip {
	busy := func(word string) chip { return chip{word, "◔", "busy"} }
	switch trial := n.TrialText(); n.UpgradeState {
	case api.Queued, api.Sent, api.Staging, api.Failed, api.RolledBack:
	default:
		switch {
		case n.Trial == api.TrialUnproven:
			return chip{"unproven", "?", "warn"}
		case strings.HasPrefix(trial, "on trial"):
			return busy("on trial")
		}
	}
	switch n.UpgradeState {
	case api.Queued, api.Sent:
		return busy("queued")
	case api.Staging:
		if done, total, ok := n.Progress(); ok {
			return busy(fmt.Sprintf("staging %d %%", int(100*min(1, float64(done)/float64(total)))))
		}
		return busy("staging")
	case api.Staged:
		return busy("restarting")
	case api.Proving:
		return busy("on trial")
	case api.Updated:
		return chip{"updated", "✓", "good"}
	case api.Failed:
		return chip{"upgrade failed", "✕", "bad"}
	case api.RolledBack:
		if n.Dependency {
			return chip{api.RolledBackDependency, "?", "warn"}
		}
		return chip{"rolled back", "✕", "bad"}
	case api.Changed:
		return chip{"runs another version", "≠", "warn"}
	case api.Superseded:
		return chip{"superseded", "»", "plain"}
	case api.Withdrawn:
		return chip{"withdrawn", "–", "plain"}
	}
	if !n.Online {
		return chip{"offline", "○", "plain"}
	}
	return chip{"idle", "·", "plain"}
}

// TrialLine is what the page says about the trial beside the chip.
func (n node) TrialLine() string {
	if text := n.TrialText(); text != n.Chip().Word {
		return text
	}
	return ""
}

// Target is the version of the last upgrade, as a text that continues the chip: "upgrade
// to 1.2.0", "from 1.2.0". It is empty if the chip and the node's version suffice.
func (n node) Target() string {
	switch n.UpgradeState {
	case api.Queued, api.Sent, api.Staging, api.Staged, api.Proving:
		return "upgrade to " + n.TargetVersion
	case api.Failed, api.Superseded, api.Withdrawn:
		return "version " + n.TargetVersion
	case api.RolledBack:
		return "from " + n.TargetVersion
	case api.Updated:
		if n.TargetVersion != n.Version {
			return "to " + n.TargetVersion
		}
	}
	return ""
}

// Outcome describes which version runs after a rollback, or after a later change on the
// device. It is empty in every other state.
func (n node) Outcome() string {
	switch n.UpgradeState {
	case api.RolledBack:
		if n.TargetVersion != n.Version {
			return fmt.Sprintf("Running %s. Version %s was rolled back.", n.Version, n.TargetVersion)
		}
	case api.Withdrawn:
		if n.MayStillRun {
			return fmt.Sprintf("The upgrade to %s was sent before it was withdrawn, and the node has not confirmed the withdrawal. It may still carry it out.", n.TargetVersion)
		}
	case api.Changed:
		return fmt.Sprintf("The last upgrade, to %s, completed. The device now runs %s.", n.TargetVersion, n.Version)
	}
	return ""
}

// Report is the node's own message about a change that this manager did not request.
func (n node) Report() string {
	if n.Changed() {
		return n.Error
	}
	return ""
}

// Failure is why the node's last upgrade failed; nil if it did not fail.
func (n node) Failure() *failure {
	switch n.UpgradeState {
	case api.Failed, api.RolledBack:
		if n.Dependency {
			return failureOf(rollout.Dependency, n.Error)
		}
		return failureOf(n.ErrorCode, n.Error)
	}
	return nil
}

// CanUpgrade reports whether the manager would accept an upgrade now. If the API does not
// report that, the capability decides.
func (n node) CanUpgrade() bool {
	return n.Upgradable || n.NotUpgradable == nil && slices.Contains(n.Capabilities, wire.CapabilityUpgrade)
}

// MayReplace reports whether the manager accepts a command in place of the last one: the
// node is offline and has not received it.
func (n node) MayReplace() bool {
	return n.NotUpgradable != nil && n.NotUpgradable.Code == api.CodeUpgradeInProgress && !n.Online && n.UpgradeState == api.Queued
}

// MayWithdraw reports whether the node's last upgrade can be withdrawn: it has not ended.
func (n node) MayWithdraw() bool {
	return n.UpgradeState == api.Queued || n.UpgradeState == api.Sent || n.UpgradeState == api.Staging
}

// Degraded reports whether the node's last health message is degraded.
func (n node) Degraded() bool { return n.Health == wire.StatusDegraded }

// Changed reports whether the device runs another version than its last upgrade
// installed.
func (n node) Changed() bool { return n.UpgradeState == api.Changed }

// Removed reports whether an operator removed the node.
func (n node) Removed() bool { return !n.RemovedAt.IsZero() }

// nodeTable is a list of nodes.
type nodeTable struct {
	Nodes      []node
	Names      map[string]string // of groups, by id
	Groups     bool              // show a column for the group
	MayOperate bool
}

// nodeFilter is the query of the page of nodes.
type nodeFilter struct {
	Search, State, Group, Online, Health string
	Removed                              bool
}

func (f nodeFilter) matches(n node) bool {
	word := n.Chip().Word
	if strings.HasPrefix(word, "staging ") {
		word = "staging"
	}
	return (f.Search == "" || strings.Contains(strings.ToLower(n.ID+" "+n.Version+" "+n.DeviceType), strings.ToLower(strings.TrimSpace(f.Search)))) &&
		(f.State == "" || f.State == word) && (f.Group == "" || f.Group == n.GroupID) &&
		(f.Online == "" || (f.Online == "yes") == n.Online) && (f.Health == "" || f.Health == n.Health)
}

// states are the states of chips, for the filter.
var states = []string{"idle", "offline", "queued", "staging", "restarting", "on trial", "unproven", "updated", "upgrade failed", "rolled back", api.RolledBackDependency, "runs another version", "superseded", "withdrawn"}

// nodesView is the data of the page of nodes.
type nodesView struct {
	Table   nodeTable
	All     int // number of nodes without the filter
	Filter  nodeFilter
	States  []string
	Groups  []api.Group
	Pending []api.PendingNode
	InNone  bool // the user has no group, and so sees no node
	Gone    bool // all nodes were removed
}

// Filtered reports whether the list can lack managed nodes.
func (v nodesView) Filtered() bool { return v.Filter != nodeFilter{} }

func (r *request) nodes() error { return r.nodesPage(nil) }

func (r *request) nodesPage(refusal error) error {
	q := r.URL.Query()
	f := nodeFilter{q.Get("q"), q.Get("state"), q.Get("group"), q.Get("online"), q.Get("health"), q.Get("removed") == "yes"}
	all, err := r.api.AllNodes(r.Context(), api.NodeQuery{Removed: f.Removed})
	if err != nil {
		return err
	}
	list := nodesOf(all)
	groups, names, err := r.groupList()
	if err != nil {
		return err
	}
	v := nodesView{All: len(list), Filter: f, States: states, Groups: groups,
		InNone: !r.who.May(api.SuperAdmin) && len(r.who.Groups) == 0}
	if len(list) == 0 && !f.Removed {
		removed, err := r.api.Nodes(r.Context(), api.NodeQuery{Removed: true, Limit: 1})
		if err != nil {
			return err
		}
		v.Gone = len(removed.Nodes) > 0
	}
	list = slices.DeleteFunc(list, func(n node) bool { return !f.matches(n) })
	v.Table = nodeTable{list, names, true, r.who.May(api.Operator)}
	if r.who.May(api.SuperAdmin) {
		if v.Pending, err = r.api.PendingNodes(r.Context()); err != nil {
			return err
		}
	}
	if refusal != nil {
		return r.refused(refusal, "nodes", "Managed nodes", "nodes", v)
	}
	return r.show("nodes", "Managed nodes", "nodes", true, v)
}

func (r *request) acceptNode() error {
	id, err := r.api.AcceptPendingNode(r.Context(), r.PathValue("id"), r.PostFormValue("group_id"))
	if err != nil {
		return r.nodesPage(err)
	}
	return r.to("/admin/nodes/%s", url.PathEscape(id))
}

func (r *request) dismissNode() error {
	if err := r.api.DismissPendingNode(r.Context(), r.PathValue("id")); err != nil {
		return r.nodesPage(err)
	}
	return r.to("/admin/nodes")
}
