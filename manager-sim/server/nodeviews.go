package server

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/bilbycast/edge-agent/manager-sim/api"
	"github.com/bilbycast/edge-agent/manager-sim/rollout"
	"github.com/bilbycast/edge-agent/manager-sim/server/answer"
	"github.com/bilbycast/edge-agent/manager-sim/server/engine"
	"github.com/bilbycast/edge-agent/manager-sim/server/identity"
	"github.com/bilbycast/edge-agent/manager-sim/store"
)

// nodeViews finds nodes, and shows them as the API does.
type nodeViews struct {
	*gate
	engine *engine.Engine
	online func(nodeID string) bool
}

// groupNames returns the names of the groups by id.
func groupNames(ctx context.Context, st *store.Store) (map[string]string, error) {
	gs, err := st.Groups(ctx)
	names := make(map[string]string, len(gs))
	for _, g := range gs {
		names[g.ID] = g.Name
	}
	return names, err
}

func (v *nodeViews) view(ctx context.Context, n store.Node, groups map[string]string) (api.Node, error) {
	st, err := v.engine.Statuses.OfNode(ctx, n)
	if err != nil {
		return api.Node{}, err
	}
	node := api.Node{
		ID: n.ID, DeviceType: n.DeviceType, GroupID: n.GroupID, GroupName: groups[n.GroupID], Online: v.online(n.ID), Address: n.Address,
		Health: n.Health, Version: n.Version, ManifestSHA256: n.Manifest, TargetVersion: st.Command.Version, UpgradeState: st.State, ErrorCode: st.Code, Error: st.Message,
		CommandID: st.Command.ID, RequestedBy: st.Command.Actor, MayStillRun: st.Command.MayStillRun() && (st.State == api.Withdrawn || st.Code == rollout.TimeLimit), Capabilities: n.Capabilities, Actions: n.Actions, Upgrade: n.Upgrade,
		UpgradeUnavailable: n.Unavailable, Warnings: n.Warnings, RegisteredAt: n.RegisteredAt, LastSeen: n.LastSeen, RemovedAt: n.RemovedAt,
		Trial: n.Trial, Hold: n.Hold, ManagerAwaySecs: int64(st.Away / time.Second), Dependency: st.Dependency,
	}
	if !n.Duplicate.Since.IsZero() {
		node.Duplicate = &n.Duplicate
	}
	node.NotUpgradable = v.engine.Commands.Refusal(n, st)
	node.Upgradable = node.NotUpgradable == nil
	return node, nil
}

// list returns the views of nodes. If that fails, it answers, and returns false.
func (v *nodeViews) list(w http.ResponseWriter, r *http.Request, nodes []store.Node) ([]api.Node, bool) {
	groups, err := groupNames(r.Context(), v.store)
	list := make([]api.Node, len(nodes))
	for i := 0; i < len(nodes) && err == nil; i++ {
		list[i], err = v.view(r.Context(), nodes[i], groups)
	}
	if err != nil {
		v.storeFailed(w, err)
	}
	return list, err == nil
}

// fromPath returns the node that the path names. If the requester may not see it, or it
// does not exist, it answers, and returns false.
func (v *nodeViews) fromPath(w http.ResponseWriter, r *http.Request) (store.Node, bool) {
	n, err := v.store.Node(r.Context(), r.PathValue("id"))
	if errors.Is(err, store.ErrUnreadable) {
		if s, ok := v.scopeFromPath(w, r); ok {
			v.log.Error().Str("node_id", s.ID).Err(err).Msg("node cannot be read")
			answer.Problem(w, http.StatusInternalServerError, api.CodeInternal, "%v. Remove the node, or repair its record in the manager's database", err)
		}
		return n, false
	}
	if err != nil {
		v.storeFailed(w, err)
		return n, false
	}
	return n, v.inScope(w, r, n.GroupID)
}

// scopeFromPath is fromPath for a node whose record need not be readable.
func (v *nodeViews) scopeFromPath(w http.ResponseWriter, r *http.Request) (store.NodeScope, bool) {
	s, err := v.store.NodeScope(r.Context(), r.PathValue("id"))
	if err != nil {
		v.storeFailed(w, err)
		return s, false
	}
	return s, v.inScope(w, r, s.GroupID)
}

// nodeByPrefix returns the node with an id, or the only node that i sees whose id begins
// with prefix, also a removed one.
func nodeByPrefix(ctx context.Context, st *store.Store, i identity.Identity, prefix string) (store.Node, error) {
	n, err := st.Node(ctx, prefix)
	if !errors.Is(err, store.ErrNotFound) || len(prefix) < api.MinPrefix {
		return n, err
	}
	var found []store.Node
	for _, list := range []func(context.Context) ([]store.Node, error){st.Nodes, st.RemovedNodes} {
		nodes, err := list(ctx)
		if err != nil {
			return n, err
		}
		for _, n := range nodes {
			if i.In(n.GroupID) && strings.HasPrefix(n.ID, strings.ToLower(prefix)) {
				found = append(found, n)
			}
		}
	}
	switch len(found) {
	case 0:
		return n, err
	case 1:
		return found[0], nil
	}
	return n, fmt.Errorf("node %q: %d ids begin so, %s and %s for instance; give more of the id: %w", prefix, len(found), found[0].ID, found[1].ID, store.ErrNotFound)
}
