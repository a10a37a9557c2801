package server

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/bilbycast/edge-agent/manager-sim/store"
	"github.com/bilbycast/edge-agent/release"
	"github.com/gorilla/websocket"
)

// The bodies of the calls.
type (
	nodeList struct {
		Nodes []nodeView `json:"nodes"`
		Next  string     `json:"next,omitempty"`
	}
	commandList struct {
		Commands []store.Command `json:"commands"`
		Next     string          `json:"next,omitempty"`
	}
	connectionList struct {
		Connections []store.Connection `json:"connections"`
	}
	// because is the optional body of what cannot be undone.
	because struct {
		Reason string `json:"reason,omitempty"`
	}
)

// nodeView is a node as the API shows it.
type nodeView struct {
	ID            string       `json:"id"`
	DeviceType    string       `json:"device_type"`
	GroupID       string       `json:"group_id,omitempty"`
	GroupName     string       `json:"group_name,omitempty"`
	Online        bool         `json:"online"`
	Address       string       `json:"address,omitempty"` // from which it connected last
	Health        string       `json:"health,omitempty"`  // of its last beat: ok or degraded
	Version       string       `json:"version"`
	TargetVersion string       `json:"target_version,omitempty"`
	UpgradeState  UpgradeState `json:"upgrade_state"`
	ErrorCode     string       `json:"error_code,omitempty"`
	Error         string       `json:"error,omitempty"` // the node's message to ErrorCode
	CommandID     string       `json:"command_id,omitempty"`
	RequestedBy   string       `json:"requested_by,omitempty"`
	// Upgradable reports whether a command to upgrade would be accepted now;
	// NotUpgradable, why not.
	Upgradable    bool            `json:"upgradable"`
	NotUpgradable *notUpgradable  `json:"not_upgradable,omitempty"`
	Capabilities  []string        `json:"capabilities"`
	Upgrade       json.RawMessage `json:"upgrade,omitempty"`
	// UpgradeUnavailable is what the node itself reports as the cause that it offers no
	// upgrades.
	UpgradeUnavailable string           `json:"upgrade_unavailable,omitempty"`
	Duplicate          *store.Duplicate `json:"duplicate,omitempty"` // two devices use its identity
	RegisteredAt       time.Time        `json:"registered_at"`
	LastSeen           time.Time        `json:"last_seen"`
	RemovedAt          time.Time        `json:"removed_at,omitzero"`
}

// groupNames returns the names of the groups by id.
func (s *Server) groupNames(ctx context.Context) (map[string]string, error) {
	gs, err := s.Store.Groups(ctx)
	names := make(map[string]string, len(gs))
	for _, g := range gs {
		names[g.ID] = g.Name
	}
	return names, err
}

func (s *Server) view(ctx context.Context, n store.Node, groups map[string]string) (nodeView, error) {
	st, err := s.standing(ctx, n)
	if err != nil {
		return nodeView{}, err
	}
	v := nodeView{
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

func (s *Server) views(w http.ResponseWriter, r *http.Request, nodes []store.Node) ([]nodeView, bool) {
	groups, err := s.groupNames(r.Context())
	views := make([]nodeView, len(nodes))
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
		reply(w, http.StatusOK, nodeList{views, next})
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

// minPrefix is how many characters of a node's id are enough, if no other id begins so.
const minPrefix = 4

// nodeByPrefix returns the node with an id, or the one of those that i sees whose id
// begins so; removed ones, too.
func (s *Server) nodeByPrefix(ctx context.Context, i Identity, prefix string) (store.Node, error) {
	n, err := s.Store.Node(ctx, prefix)
	if !errors.Is(err, store.ErrNotFound) || len(prefix) < minPrefix {
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
		reply(w, http.StatusOK, commandList{cs, next})
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
	reply(w, http.StatusOK, connectionList{cs})
}

// maxReason bounds what an operator gives as a reason.
const maxReason = 500

// readReason reads the optional body of a call that cannot be undone, or answers what
// is wrong with it. The reason is one line.
func readReason(w http.ResponseWriter, r *http.Request) (string, bool) {
	var body because
	if r.ContentLength != 0 && !readBody(w, r, &body) {
		return "", false
	}
	if len(body.Reason) > maxReason {
		fail(w, http.StatusBadRequest, "bad_request", "reason has %d bytes, more than %d", len(body.Reason), maxReason)
		return "", false
	}
	return release.Foreign(strings.TrimSpace(body.Reason), maxReason), true
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
