package web

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/bilbycast/edge-agent/manager-sim/api"
)

type group struct {
	ID        string    `json:"id"`
	Name      string    `json:"name"`
	CreatedAt time.Time `json:"created_at"`
}

// groupList returns the groups, and their names by id.
func (r *request) groupList() ([]group, map[string]string, error) {
	var list struct {
		Groups []group `json:"groups"`
	}
	err := r.api(http.MethodGet, "/api/v1/groups", nil, &list)
	names := map[string]string{}
	for _, g := range list.Groups {
		names[g.ID] = g.Name
	}
	return list.Groups, names, err
}

// node is a node as the API shows it.
type node struct {
	ID            string          `json:"id"`
	DeviceType    string          `json:"device_type"`
	GroupID       string          `json:"group_id"`
	GroupName     string          `json:"group_name"`
	Online        bool            `json:"online"`
	Address       string          `json:"address"`
	Health        string          `json:"health"`
	Version       string          `json:"version"`
	TargetVersion string          `json:"target_version"`
	UpgradeState  string          `json:"upgrade_state"`
	ErrorCode     string          `json:"error_code"`
	Error         string          `json:"error"`
	CommandID     string          `json:"command_id"`
	RequestedBy   string          `json:"requested_by"`
	Capabilities  []string        `json:"capabilities"`
	Upgrade       json.RawMessage `json:"upgrade"`
	Upgradable    bool            `json:"upgradable"`
	NotUpgradable *struct {
		Code   string `json:"code"`
		Reason string `json:"reason"`
		Remedy string `json:"remedy"`
	} `json:"not_upgradable"`
	Duplicate    *duplicate `json:"duplicate"`
	RegisteredAt time.Time  `json:"registered_at"`
	LastSeen     time.Time  `json:"last_seen"`
	RemovedAt    time.Time  `json:"removed_at"`
}

// duplicate marks a node whose identity two devices use.
type duplicate struct {
	Addresses []string  `json:"addresses"`
	Since     time.Time `json:"since"`
}

// OneAddress reports whether both devices connect from the same address, as
// behind one router.
func (d duplicate) OneAddress() bool { return len(slices.Compact(slices.Clone(d.Addresses))) == 1 }

// settled reports whether the last upgrade has ended.
func (n node) settled() bool {
	switch api.UpgradeState(n.UpgradeState) {
	case api.Idle, api.Updated, api.Failed, api.RolledBack, api.Changed:
		return true
	}
	return false
}

// Chip is the state of the node's last upgrade.
func (n node) Chip() chip {
	busy := func(word string) chip { return chip{word, "◔", "busy"} }
	switch api.UpgradeState(n.UpgradeState) {
	case api.Queued, api.Sent:
		return busy("queued")
	case api.Staging:
		var u struct {
			Progress struct {
				Phase      string `json:"phase"`
				BytesDone  int64  `json:"bytes_done"`
				BytesTotal int64  `json:"bytes_total"`
			} `json:"progress"`
		}
		if p := &u.Progress; json.Unmarshal(n.Upgrade, &u) == nil && p.BytesTotal > 0 && p.BytesDone >= 0 {
			return busy(fmt.Sprintf("staging %d %%", int(100*min(1, float64(p.BytesDone)/float64(p.BytesTotal)))))
		}
		return busy("staging")
	case api.Staged:
		return busy("restarting")
	case api.Proving:
		return busy("proving")
	case api.Updated:
		return chip{"updated", "✓", "good"}
	case api.Failed:
		return chip{"upgrade failed", "✕", "bad"}
	case api.RolledBack:
		return chip{"rolled back", "✕", "bad"}
	case api.Changed:
		return chip{"runs another version", "≠", "warn"}
	}
	if !n.Online {
		return chip{"offline", "○", "plain"}
	}
	return chip{"idle", "·", "plain"}
}

// Target is the version of the last upgrade in words that continue the chip:
// "upgrade to 1.2.0", "from 1.2.0". It is empty if the chip and the version of the
// node say all.
func (n node) Target() string {
	switch api.UpgradeState(n.UpgradeState) {
	case api.Queued, api.Sent, api.Staging, api.Staged, api.Proving:
		return "upgrade to " + n.TargetVersion
	case api.Failed:
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

// Outcome is what runs after a version was rolled back, or was replaced later;
// empty in every other state.
func (n node) Outcome() string {
	switch api.UpgradeState(n.UpgradeState) {
	case api.RolledBack:
		if n.TargetVersion != n.Version {
			return fmt.Sprintf("Running %s. Version %s was rolled back.", n.Version, n.TargetVersion)
		}
	case api.Changed:
		return fmt.Sprintf("The last upgrade, to %s, completed. The device now runs %s.", n.TargetVersion, n.Version)
	}
	return ""
}

// Report is the node's own message of a change that was no upgrade of this
// manager.
func (n node) Report() string {
	if n.Changed() {
		return n.Error
	}
	return ""
}

// Failure says why the node's last upgrade failed; nil if it did not.
func (n node) Failure() *failure {
	switch api.UpgradeState(n.UpgradeState) {
	case api.Failed, api.RolledBack:
		return failureOf(n.ErrorCode, n.Error)
	}
	return nil
}

// CanUpgrade reports whether the manager would accept an upgrade now. An API
// that does not say so leaves it to the capability.
func (n node) CanUpgrade() bool {
	return n.Upgradable || n.NotUpgradable == nil && slices.Contains(n.Capabilities, "upgrade")
}

// MayReplace reports whether the node is offline and has not received its last
// command, so that the manager accepts another one in its place.
func (n node) MayReplace() bool {
	return n.NotUpgradable != nil && n.NotUpgradable.Code == "upgrade_in_progress" && !n.Online && api.UpgradeState(n.UpgradeState) == api.Queued
}

// Degraded reports whether the node said so in its last health message.
func (n node) Degraded() bool { return n.Health == "degraded" }

// Changed reports whether the device left the version of its last upgrade.
func (n node) Changed() bool { return api.UpgradeState(n.UpgradeState) == api.Changed }

// Removed reports whether an operator removed the node.
func (n node) Removed() bool { return !n.RemovedAt.IsZero() }

// nodeTable is a list of nodes.
type nodeTable struct {
	Nodes      []node
	Names      map[string]string // of groups, by id
	Groups     bool              // it has a column for the group
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

// states are the words of chips, for the filter.
var states = []string{"idle", "offline", "queued", "staging", "restarting", "proving", "updated", "upgrade failed", "rolled back", "runs another version"}

// pendingNode has credentials that this manager does not know.
type pendingNode struct {
	ID         string `json:"id"`
	Address    string `json:"address"`
	DeviceType string `json:"device_type"`
	Version    string `json:"version"`
	// OtherAddress is of another device that claims the id. While there is one,
	// the node cannot be accepted.
	OtherAddress string    `json:"other_address"`
	FirstSeen    time.Time `json:"first_seen"`
	LastSeen     time.Time `json:"last_seen"`
}

// nodesView is what the page of nodes shows.
type nodesView struct {
	Table   nodeTable
	All     int // without the filter
	Filter  nodeFilter
	States  []string
	Groups  []group
	Pending []pendingNode
	InNone  bool // the user has no group, and sees no node
	Gone    bool // there were nodes, and all were removed
}

// Filtered reports whether the list is not the one of all managed nodes.
func (v nodesView) Filtered() bool { return v.Filter != nodeFilter{} }

func (r *request) nodes() error { return r.nodesPage(nil) }

func (r *request) nodesPage(problem error) error {
	q := r.URL.Query()
	f := nodeFilter{q.Get("q"), q.Get("state"), q.Get("group"), q.Get("online"), q.Get("health"), q.Get("removed") == "yes"}
	path := "/api/v1/nodes"
	if f.Removed {
		path += "?removed=true"
	}
	list, err := all[node](r, path, "nodes")
	if err != nil {
		return err
	}
	groups, names, err := r.groupList()
	if err != nil {
		return err
	}
	v := nodesView{All: len(list), Filter: f, States: states, Groups: groups,
		InNone: !r.who.May(api.SuperAdmin) && len(r.who.Groups) == 0}
	if len(list) == 0 && !f.Removed {
		removed, err := all[node](r, "/api/v1/nodes?removed=true", "nodes")
		if err != nil {
			return err
		}
		v.Gone = len(removed) > 0
	}
	list = slices.DeleteFunc(list, func(n node) bool { return !f.matches(n) })
	v.Table = nodeTable{list, names, true, r.who.May(api.Operator)}
	if r.who.May(api.SuperAdmin) {
		if v.Pending, err = r.pending(); err != nil {
			return err
		}
	}
	if problem != nil {
		return r.refused(problem, "nodes", "Managed nodes", "nodes", v)
	}
	return r.show("nodes", "Managed nodes", "nodes", true, v)
}

func (r *request) pending() ([]pendingNode, error) {
	var list struct {
		Nodes []pendingNode `json:"nodes"`
	}
	err := r.api(http.MethodGet, "/api/v1/pending-nodes", nil, &list)
	return list.Nodes, err
}

func (r *request) acceptNode() error {
	body := map[string]any{}
	if g := r.PostFormValue("group_id"); g != "" {
		body["group_id"] = g
	}
	var accepted struct {
		ID string `json:"id"`
	}
	if err := r.api(http.MethodPost, "/api/v1/pending-nodes/"+url.PathEscape(r.PathValue("id"))+"/accept", body, &accepted); err != nil {
		return r.nodesPage(err)
	}
	return r.to("/admin/nodes/%s", url.PathEscape(accepted.ID))
}

func (r *request) dismissNode() error {
	if err := r.api(http.MethodDelete, "/api/v1/pending-nodes/"+url.PathEscape(r.PathValue("id")), nil, nil); err != nil {
		return r.nodesPage(err)
	}
	return r.to("/admin/nodes")
}
