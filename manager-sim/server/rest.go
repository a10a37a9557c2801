package server

import (
	"context"
	"encoding/json"
	"net/http"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/bilbycast/edge-agent/manager-sim/store"
	"github.com/bilbycast/edge-agent/release"
	"github.com/bilbycast/edge-agent/wire"
	"github.com/google/uuid"
)

const releasesKept = 5 * time.Minute

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
	eventList struct {
		Events  []store.Event `json:"events"`
		Total   int           `json:"total"`
		Page    int           `json:"page"`
		PerPage int           `json:"per_page"`
		Next    string        `json:"next,omitempty"`
	}
	auditList struct {
		Entries []store.Audit `json:"entries"`
		Total   int           `json:"total"`
		Next    string        `json:"next,omitempty"`
	}
	releaseList struct {
		Releases []Release `json:"releases"`
	}
	nodeUpgrade struct {
		Version    string `json:"version"`
		Channel    string `json:"channel,omitempty"` // default stable
		TargetArch string `json:"target_arch,omitempty"`
		Variant    string `json:"variant,omitempty"`
	}
	commandMade struct {
		CommandID string `json:"command_id"`
	}
	membership struct {
		GroupID string `json:"group_id"` // "": none
	}
)

// nodeView is a node as the API shows it.
type nodeView struct {
	ID            string          `json:"id"`
	DeviceType    string          `json:"device_type"`
	GroupID       string          `json:"group_id,omitempty"`
	Online        bool            `json:"online"`
	Version       string          `json:"version"`
	TargetVersion string          `json:"target_version,omitempty"`
	UpgradeState  UpgradeState    `json:"upgrade_state"`
	ErrorCode     string          `json:"error_code,omitempty"`
	CommandID     string          `json:"command_id,omitempty"`
	Capabilities  []string        `json:"capabilities"`
	Upgrade       json.RawMessage `json:"upgrade,omitempty"`
	// UpgradeUnavailable says why an online node whose configuration enables
	// upgrades does not offer them.
	UpgradeUnavailable string    `json:"upgrade_unavailable,omitempty"`
	RegisteredAt       time.Time `json:"registered_at"`
	LastSeen           time.Time `json:"last_seen"`
}

func (s *Server) view(r *http.Request, n store.Node) (nodeView, error) {
	ss := s.online(n.ID)
	v := nodeView{
		ID: n.ID, DeviceType: n.DeviceType, GroupID: n.GroupID, Online: ss != nil, UpgradeUnavailable: ss.unavailable(), Version: n.Version, UpgradeState: Idle,
		Capabilities: n.Capabilities, Upgrade: n.Upgrade, RegisteredAt: n.RegisteredAt, LastSeen: n.LastSeen,
	}
	cs, err := s.Store.Commands(r.Context(), n.ID, 1)
	if err != nil || len(cs) == 0 {
		return v, err
	}
	v.CommandID, v.TargetVersion = cs[0].ID, cs[0].Version
	v.UpgradeState, v.ErrorCode, err = s.stateOf(r.Context(), cs[0], n.Version)
	return v, err
}

// stateOf is StateOf with the command's events from the store.
func (s *Server) stateOf(ctx context.Context, c store.Command, version string) (UpgradeState, string, error) {
	events, _, err := s.Store.Events(ctx, store.EventFilter{NodeID: c.NodeID, CommandID: c.ID, Page: 1, PerPage: store.MaxPerPage})
	if err != nil {
		return "", "", err
	}
	codes := make([]string, len(events))
	for i, e := range events {
		codes[len(events)-1-i] = e.ErrorCode
	}
	state, code := StateOf(c, codes, version, time.Now())
	return state, code, nil
}

func (s *Server) listNodes(w http.ResponseWriter, r *http.Request) {
	nodes, err := s.Store.Nodes(r.Context())
	if err != nil {
		s.storeFailed(w, err)
		return
	}
	nodes = slices.DeleteFunc(nodes, func(n store.Node) bool { return !who(r).In(n.GroupID) })
	nodes, next, ok := cut(w, r, nodes, func(n store.Node) string { return n.ID })
	if !ok {
		return
	}
	views := make([]nodeView, len(nodes))
	for i, n := range nodes {
		v, err := s.view(r, n)
		if err != nil {
			s.storeFailed(w, err)
			return
		}
		views[i] = v
	}
	reply(w, http.StatusOK, nodeList{views, next})
}

func (s *Server) getNode(w http.ResponseWriter, r *http.Request) {
	n, ok := s.node(w, r)
	if !ok {
		return
	}
	v, err := s.view(r, n)
	if err != nil {
		s.storeFailed(w, err)
		return
	}
	reply(w, http.StatusOK, v)
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

func (s *Server) upgradeNode(w http.ResponseWriter, r *http.Request) {
	var body nodeUpgrade
	if !readBody(w, r, &body) {
		return
	}
	if _, err := release.ParseVersion(body.Version); err != nil {
		fail(w, http.StatusBadRequest, string(release.VersionInvalid), "%v", err)
		return
	}
	if body.Channel == "" {
		body.Channel = release.DefaultChannel
	}
	for what, name := range map[string]string{"channel": body.Channel, "target_arch": body.TargetArch, "variant": body.Variant} {
		if err := release.CheckName(what, name); name != "" && err != nil {
			fail(w, http.StatusBadRequest, "bad_request", "%v", err)
			return
		}
	}
	n, ok := s.node(w, r)
	if !ok {
		return
	}
	if !slices.Contains(n.Capabilities, wire.CapabilityUpgrade) {
		why := "are upgrades enabled in its config.toml?"
		if reported := s.online(n.ID).unavailable(); reported != "" {
			why = "it reports: " + reported
		}
		fail(w, http.StatusConflict, "no_capability", "node %s does not advertise the capability %q; %s", n.ID, wire.CapabilityUpgrade, why)
		return
	}
	now := time.Now().UTC()
	c := store.Command{ID: uuid.NewString(), NodeID: n.ID, Version: body.Version, Channel: body.Channel, CreatedAt: now}
	var err error
	c.Action, err = json.Marshal(wire.Action{Type: wire.ActionUpgrade, Version: body.Version, Channel: body.Channel, TargetArch: body.TargetArch, Variant: body.Variant})
	if err != nil {
		s.storeFailed(w, err)
		return
	}
	details, err := json.Marshal(map[string]string{"version": body.Version, "channel": body.Channel})
	if err != nil {
		s.storeFailed(w, err)
		return
	}
	err = s.Store.AddCommand(r.Context(), c, store.Audit{Time: now, Actor: who(r).Name, Action: "node.upgrade.request", Target: n.ID, Details: details})
	if err != nil {
		s.storeFailed(w, err)
		return
	}
	s.Log.Info().Str("node_id", n.ID).Str("command_id", c.ID).Str("to", c.Version).Msg("upgrade requested")
	if ss := s.online(n.ID); ss != nil {
		ss.sendCommand(c)
	}
	reply(w, http.StatusAccepted, commandMade{c.ID})
}

func (s *Server) listEvents(w http.ResponseWriter, r *http.Request) {
	v := r.URL.Query()
	f := store.EventFilter{NodeID: v.Get("node_id"), Severity: v.Get("severity"), Category: v.Get("category"),
		CommandID: v.Get("command_id"), Search: v.Get("search"), Groups: who(r).scope(), Page: 1, PerPage: 50}
	q := query{r: r}
	q.number("page", &f.Page, 1_000_000)
	q.number("per_page", &f.PerPage, store.MaxPerPage)
	q.instant("from", &f.From)
	q.instant("to", &f.To)
	q.sequence("after", &f.Before)
	if q.failed(w) {
		return
	}
	events, total, err := s.Store.Events(r.Context(), f)
	if err != nil {
		s.storeFailed(w, err)
		return
	}
	list := eventList{events, total, f.Page, f.PerPage, ""}
	if len(events) == f.PerPage {
		list.Next = strconv.FormatInt(events[len(events)-1].Seq, 10)
	}
	reply(w, http.StatusOK, list)
}

func (s *Server) listAudit(w http.ResponseWriter, r *http.Request) {
	v := r.URL.Query()
	f := store.AuditFilter{Actor: v.Get("actor"), Action: v.Get("action"), Target: v.Get("target"), Limit: listed}
	q := query{r: r}
	q.number("limit", &f.Limit, maxListed)
	q.sequence("after", &f.Before)
	if q.failed(w) {
		return
	}
	entries, total, err := s.Store.AuditLog(r.Context(), f)
	if err != nil {
		s.storeFailed(w, err)
		return
	}
	list := auditList{entries, total, ""}
	if len(entries) == f.Limit {
		list.Next = strconv.FormatInt(entries[len(entries)-1].Seq, 10)
	}
	reply(w, http.StatusOK, list)
}

// releaseCache keeps answers of Config.Releases.
type releaseCache struct {
	mu   sync.Mutex
	kept map[[2]string]cached
}

type cached struct {
	at   time.Time
	list []Release
}

const maxCached = 1000

func (s *Server) listReleases(w http.ResponseWriter, r *http.Request) {
	key := [2]string{r.PathValue("device_type"), r.URL.Query().Get("channel")}
	if key[1] == "" {
		key[1] = release.DefaultChannel
	}
	s.cache.mu.Lock()
	c, ok := s.cache.kept[key]
	s.cache.mu.Unlock()
	if !ok || time.Since(c.at) > releasesKept {
		c = cached{at: time.Now(), list: []Release{}}
		if s.Releases != nil {
			list, err := s.Releases(r.Context(), key[0], key[1])
			if err != nil {
				s.Log.Error().Err(err).Msg("releases")
				fail(w, http.StatusBadGateway, "releases_unavailable", "the list of releases cannot be had now; see the manager's log")
				return
			}
			c.list = append(c.list, list...)
		}
		s.cache.mu.Lock()
		if len(s.cache.kept) >= maxCached {
			clear(s.cache.kept)
		}
		s.cache.kept[key] = c
		s.cache.mu.Unlock()
	}
	reply(w, http.StatusOK, releaseList{c.list})
}
