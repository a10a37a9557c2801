package engine

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/bilbycast/edge-agent/manager-sim/api"
	"github.com/bilbycast/edge-agent/manager-sim/rollout"
	"github.com/bilbycast/edge-agent/manager-sim/store"
	"github.com/bilbycast/edge-agent/release"
	"github.com/google/uuid"
)

// NotSchedulableError is the reason why a rollout cannot begin.
type NotSchedulableError struct{ Reason string }

// Error returns Reason.
func (e *NotSchedulableError) Error() string { return e.Reason }

// Schedule begins a rollout to the eligible nodes of a group. With DryRun it changes
// nothing. It returns a *NotSchedulableError, or store.ErrExists if the group has an
// active rollout. The request has been checked.
func (e *Engine) Schedule(ctx context.Context, group api.Group, nodes []store.Node, req api.RolloutRequest, by rollout.Person) (api.RolloutPlan, error) {
	actor := by.Name
	p := rollout.Plan{ID: uuid.NewString(), GroupID: group.ID, Version: req.Version, Channel: cmp.Or(req.Channel, release.DefaultChannel),
		Strategy: cmp.Or(req.Strategy, rollout.Staged), Threshold: req.Threshold, From: mostCommonVersion(nodes), By: actor, Repair: req.Repair,
		Limit: time.Duration(req.LimitSecs) * time.Second, Life: time.Duration(req.LifeSecs) * time.Second}
	if req.SettleSecs != nil { // 0 would mean the default there
		p.Settle = max(time.Duration(*req.SettleSecs)*time.Second, 1)
	}
	p.Manifests = e.Catalogue.manifests(ctx, nodes, p)
	ids, online, leftOut := e.eligible(ctx, nodes, req)
	leftOut = nameOtherReleases(leftOut, nodes, p)
	e.CommandLock.Lock()
	defer e.CommandLock.Unlock()
	ids, leftOut, err := scopeOf(e).leaveOutWanted(ctx, group.ID, ids, leftOut)
	if err != nil {
		return api.RolloutPlan{}, err
	}
	now := time.Now().UTC()
	var ro rollout.Rollout
	var actions []rollout.Action
	var refused error
	err = e.Commands.avoidBusy(ctx, func(busy map[string]bool) ([]string, error) {
		for id := range busy {
			online[id] = false
		}
		ro, actions, refused = rollout.New(p, ids, online, now)
		return commanded(actions), nil
	})
	if err != nil {
		return api.RolloutPlan{}, err
	}
	if refused != nil {
		reason := refused.Error()
		if len(leftOut) > 0 && len(ids) == 0 {
			reason += ". " + summarize(leftOut)
		}
		return api.RolloutPlan{}, &NotSchedulableError{reason}
	}
	ro.Begin(e.Clock.Uptime(time.Now()))
	plan := planOf(ro, leftOut)
	if req.DryRun {
		return plan, nil
	}
	details := map[string]any{"version": p.Version, "channel": p.Channel, "strategy": p.Strategy, "node_count": len(ids)}
	if p.Repair {
		details["repair"] = true
	}
	if reason := strings.TrimSpace(req.Reason); reason != "" {
		details["reason"] = release.Foreign(reason, api.MaxReason)
	}
	ro.Acting = by
	scheduled := store.NewAuditEntry(now, actor, "group.upgrade.schedule", group.ID, details)
	if err := e.save(ctx, store.Rollout{ID: ro.ID, GroupID: group.ID, CreatedAt: now}, ro, actions, "manager", "", []api.AuditEntry{scheduled}); err != nil {
		return api.RolloutPlan{}, err
	}
	for _, id := range ids { // a node may have connected or disconnected since
		e.NodeChanged(id)
	}
	plan.RolloutID = ro.ID
	return plan, nil
}

// leaveOutWanted leaves out the nodes that another active rollout still upgrades: nodes that
// were moved, and of which that rollout waits for an outcome.
func (e scope) leaveOutWanted(ctx context.Context, groupID string, ids []string, leftOut []api.NodeLeftOut) ([]string, []api.NodeLeftOut, error) {
	set := make(map[string]bool, len(ids))
	for _, id := range ids {
		set[id] = true
	}
	wants, err := e.otherWants(ctx, groupID, set)
	if err != nil {
		return nil, nil, err
	}
	kept := slices.DeleteFunc(slices.Clone(ids), func(id string) bool { return wants[id] != "" })
	for _, id := range ids {
		if v := wants[id]; v != "" {
			leftOut = append(leftOut, api.NodeLeftOut{NodeID: id, Reason: "The rollout to " + v + " of its previous group still upgrades it."})
		}
	}
	return kept, leftOut, nil
}

// planOf describes a rollout that has just begun.
func planOf(ro rollout.Rollout, leftOut []api.NodeLeftOut) api.RolloutPlan {
	plan := api.RolloutPlan{Version: ro.Version, Channel: ro.Channel, Strategy: ro.Strategy, NodeCount: len(ro.Nodes), LeftOut: leftOut, Waves: [][]string{},
		EstimatedSecs: int64(ro.Settle.Seconds()) * int64(len(ro.Waves)-1)}
	for i, first := 0, 0; i < len(ro.Waves); i++ {
		var wave []string
		for _, n := range ro.Nodes[first:ro.Waves[i]] {
			wave = append(wave, n.ID)
			if !n.Online {
				plan.Offline++
			}
		}
		first = ro.Waves[i]
		plan.Waves = append(plan.Waves, wave)
	}
	return plan
}

// eligible returns the nodes that a rollout can upgrade, which of them are online, and
// the other nodes with the reason.
func (e *Engine) eligible(ctx context.Context, nodes []store.Node, req api.RolloutRequest) (ids []string, online map[string]bool, leftOut []api.NodeLeftOut) {
	online, leftOut = map[string]bool{}, []api.NodeLeftOut{}
	unpublished := map[string]*api.NotUpgradable{} // by device type
	for _, n := range nodes {
		if _, known := unpublished[n.DeviceType]; !known && !req.AllowUnlisted {
			unpublished[n.DeviceType] = e.Catalogue.Refusal(ctx, n.DeviceType, cmp.Or(req.Channel, release.DefaultChannel), req.Version)
		}
		present := e.Nodes.Online(n.ID)
		if f := cmp.Or(incapable(n, present), unpublished[n.DeviceType]); f != nil {
			reason := f.Reason
			if f.Code == api.CodeNotPublished {
				reason = f.Detail() // with what is published
			}
			leftOut = append(leftOut, api.NodeLeftOut{NodeID: n.ID, Reason: reason})
			continue
		}
		if n.Version == req.Version {
			leftOut = append(leftOut, api.NodeLeftOut{NodeID: n.ID, Reason: "It runs " + req.Version + " already."})
			continue
		}
		ids = append(ids, n.ID)
		online[n.ID] = e.Nodes.Reported(n.ID) // another one may offer no upgrades in this session
	}
	return ids, online, leftOut
}

// summarize counts the reasons for which nodes are left out.
func summarize(leftOut []api.NodeLeftOut) string {
	count := map[string]int{}
	for _, l := range leftOut {
		count[l.Reason]++
	}
	var parts []string
	for _, reason := range slices.Sorted(maps.Keys(count)) {
		nodes := "1 node"
		if count[reason] > 1 {
			nodes = fmt.Sprintf("%d nodes", count[reason])
		}
		parts = append(parts, nodes+": "+reason)
	}
	const most = 3
	if len(parts) > most {
		parts = append(parts[:most], "...")
	}
	return strings.Join(parts, " ")
}

// mostCommonVersion returns the version that most nodes run, of those that run one.
func mostCommonVersion(nodes []store.Node) string {
	count, most := map[string]int{}, ""
	for _, n := range nodes {
		if n.Version == "" {
			continue
		}
		if count[n.Version]++; most == "" || count[n.Version] > count[most] {
			most = n.Version
		}
	}
	return most
}
