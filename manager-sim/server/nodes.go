package server

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/bilbycast/edge-agent/manager-sim/api"
	"github.com/bilbycast/edge-agent/manager-sim/store"
	"github.com/bilbycast/edge-agent/release"
	"github.com/gorilla/websocket"
)

// groupNames returns the names of the groups by id.
func (s *Server) groupNames(ctx context.Context) (map[string]string, error) {
	gs, err := s.Store.Groups(ctx)
	names := make(map[string]string, len(gs))
	for _, g := range gs {
		names[g.ID] = g.Name
	}
	return names, err
}

func (s *Server) view(ctx context.Context, n store.Node, groups map[string]string) (api.Node, error) {
	st, err := s.standing(ctx, n)
	if err != nil {
		return api.Node{}, err
	}
	v := api.Node{
		ID: n.ID, DeviceType: n.DeviceType, GroupID: n.GroupID, GroupName: groups[n.GroupID], Online: s.online(n.ID) != nil, Address: n.Address,
		Health: n.Health, Version: n.Version, TargetVersion: st.command.Version, UpgradeState: st.state, ErrorCode: st.code, Error: st.message,
		CommandID: st.command.ID, RequestedBy: st.command.Actor, Capabilities: n.Capabilities, Upgrade: n.Upgrade,
		UpgradeUnavailable: n.Unavailable, RegisteredAt: n.RegisteredAt, LastSeen: n.LastSeen, RemovedAt: n.RemovedAt,
	}
	if !n.Duplicate.Since.IsZero() {
		v.Duplicate = &n.Duplicate
	}
	v.NotUpgradable = s.refuses(n, st)
	v.Upgradable = v.NotUpgradable == nil
	return v, nil
}

func (s *Server) views(w http.ResponseWriter, r *http.Request, nodes []store.Node) ([]api.Node, bool) {
	groups, err := s.groupNames(r.Context())
	views := make([]api.Node, len(nodes))
	for i := 0; i < len(nodes) && err == nil; i++ {
		views[i], err = s.view(r.Context(), nodes[i], groups)
	}
	if err != nil {
		s.storeFailed(w, err)
	}
	return views, err == nil
}

func (s *Server) listNodes(w http.ResponseWriter, r *http.Request) {
	list, removed := s.Store.Nodes, false
	q := query{r: r}
	if q.boolean("removed", &removed); q.failed(w) {
		return
	}
	if removed {
		list = s.Store.RemovedNodes
	}
	nodes, err := list(r.Context())
	if err != nil {
		s.storeFailed(w, err)
		return
	}
	prefix := strings.ToLower(r.URL.Query().Get("id_prefix"))
	nodes = slices.DeleteFunc(nodes, func(n store.Node) bool { return !who(r).In(n.GroupID) || !strings.HasPrefix(n.ID, prefix) })
	nodes, next, ok := cut(w, r, nodes, func(n store.Node) string { return n.ID })
	if !ok {
		return
	}
	if views, ok := s.views(w, r, nodes); ok {
		reply(w, http.StatusOK, api.NodeList{Nodes: views, Next: next})
	}
}

func (s *Server) getNode(w http.ResponseWriter, r *http.Request) {
	n, ok := s.node(w, r)
	if !ok {
		return
	}
	if views, ok := s.views(w, r, []store.Node{n}); ok {
		reply(w, http.StatusOK, views[0])
	}
}

// node returns the node of the path, or answers why not.
func (s *Server) node(w http.ResponseWriter, r *http.Request) (store.Node, bool) {
	n, err := s.Store.Node(r.Context(), r.PathValue("id"))
	if err != nil {
		s.storeFailed(w, err)
		return n, false
	}
	return n, s.inScope(w, r, n.GroupID)
}

// nodeByPrefix returns the node with an id, or the one of those that i sees whose id
// begins so; removed ones, too.
func (s *Server) nodeByPrefix(ctx context.Context, i Identity, prefix string) (store.Node, error) {
	n, err := s.Store.Node(ctx, prefix)
	if !errors.Is(err, store.ErrNotFound) || len(prefix) < api.MinPrefix {
		return n, err
	}
	var found []store.Node
	for _, list := range []func(context.Context) ([]store.Node, error){s.Store.Nodes, s.Store.RemovedNodes} {
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

func (s *Server) listCommands(w http.ResponseWriter, r *http.Request) {
	n, ok := s.node(w, r)
	if !ok {
		return
	}
	cs, err := s.Store.Commands(r.Context(), n.ID, -1)
	if err != nil {
		s.storeFailed(w, err)
		return
	}
	if cs, next, ok := cut(w, r, cs, func(c store.Command) string { return c.ID }); ok {
		commands := make([]api.Command, len(cs))
		for i, c := range cs {
			commands[i] = c.API()
		}
		reply(w, http.StatusOK, api.CommandList{Commands: commands, Next: next})
	}
}

func (s *Server) listConnections(w http.ResponseWriter, r *http.Request) {
	n, ok := s.node(w, r)
	if !ok {
		return
	}
	cs, err := s.Store.Connections(r.Context(), n.ID)
	if err != nil {
		s.storeFailed(w, err)
		return
	}
	reply(w, http.StatusOK, api.ConnectionList{Connections: cs})
}

// readReason reads the optional body of a call that cannot be undone, or answers what
// is wrong with it. The reason is one line.
func readReason(w http.ResponseWriter, r *http.Request) (string, bool) {
	var body api.Reason
	if r.ContentLength != 0 && !readBody(w, r, &body) {
		return "", false
	}
	if len(body.Reason) > api.MaxReason {
		fail(w, http.StatusBadRequest, api.CodeBadRequest, "reason has %d bytes, more than %d", len(body.Reason), api.MaxReason)
		return "", false
	}
	return release.Foreign(strings.TrimSpace(body.Reason), api.MaxReason), true
}

// removeNode revokes a node's secret and ends its session; the active rollouts skip it.
// Its history stays.
func (s *Server) removeNode(w http.ResponseWriter, r *http.Request) {
	reason, ok := readReason(w, r)
	if !ok {
		return
	}
	n, ok := s.node(w, r)
	if !ok {
		return
	}
	now := time.Now().UTC()
	err := s.Store.RemoveNode(r.Context(), n.ID, now, audit(now, who(r).Name, "node.remove", n.ID,
		map[string]any{"reason": reason, "device_type": n.DeviceType, "version": n.Version, "group_id": n.GroupID}))
	if err != nil {
		s.storeFailed(w, err)
		return
	}
	s.Log.Info().Str("node_id", n.ID).Str("actor", who(r).Name).Msg("node removed")
	s.presence.Lock() // a session that was let in before the removal is there by now
	ss := s.online(n.ID)
	s.presence.Unlock()
	if ss != nil {
		ss.close(websocket.ClosePolicyViolation, "this node was removed from the manager")
		ss.cancel()
	}
	s.look() // the rollouts skip it
	w.WriteHeader(http.StatusNoContent)
}
