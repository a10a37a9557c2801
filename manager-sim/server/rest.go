package server

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
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

const (
	maxBody      = 64 << 10
	commandsKept = 100 // newest of a node that are listed
	auditListed  = 1000
	releasesKept = 5 * time.Minute
)

func (s *Server) routes() {
	s.mux = http.NewServeMux()
	s.mux.HandleFunc("GET "+wire.Path, s.serveNode)
	s.mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, r *http.Request) {
		reply(w, http.StatusOK, map[string]string{"status": "ok"})
	})
	for _, route := range []struct {
		pattern string
		least   Role
		h       http.HandlerFunc
	}{
		{"GET /api/v1/nodes", Viewer, s.listNodes},
		{"GET /api/v1/nodes/{id}", Viewer, s.getNode},
		{"GET /api/v1/nodes/{id}/commands", Viewer, s.listCommands},
		{"POST /api/v1/nodes/{id}/upgrade", Operator, s.upgradeNode},
		{"PUT /api/v1/nodes/{id}/group", GroupAdmin, s.setGroup},
		{"GET /api/v1/events", Viewer, s.listEvents},
		{"GET /api/v1/events/stream", Viewer, s.streamEvents},
		{"GET /api/v1/releases/{device_type}", Viewer, s.listReleases},
		{"GET /api/v1/groups", Viewer, s.listGroups},
		{"POST /api/v1/groups", SuperAdmin, s.addGroup},
		{"GET /api/v1/groups/{id}", Viewer, s.getGroup},
		{"POST /api/v1/groups/{id}/upgrade", GroupAdmin, s.upgradeGroup},
		{"GET /api/v1/rollouts", Viewer, s.listRollouts},
		{"GET /api/v1/rollouts/{id}", Viewer, s.getRollout},
		{"POST /api/v1/rollouts/{id}/{act}", GroupAdmin, s.actOnRollout},
		{"GET /api/v1/audit-log", SuperAdmin, s.listAudit},
		{"GET /api/v1/users", SuperAdmin, s.listUsers},
		{"POST /api/v1/users", SuperAdmin, s.createUser},
		{"DELETE /api/v1/users/{name}", SuperAdmin, s.removeUser},
		{"POST /api/v1/tokens", SuperAdmin, s.createToken},
	} {
		s.mux.HandleFunc(route.pattern, s.auth(route.least, route.h))
	}
}

func reply(w http.ResponseWriter, code int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(code)
	json.NewEncoder(w).Encode(v)
}

func fail(w http.ResponseWriter, status int, code, format string, args ...any) {
	reply(w, status, map[string]string{"error": fmt.Sprintf(format, args...), "code": code})
}

// storeFailed answers an error of the store.
func (s *Server) storeFailed(w http.ResponseWriter, err error) {
	switch {
	case errors.Is(err, store.ErrNotFound):
		fail(w, http.StatusNotFound, "not_found", "%v", err)
		return
	case errors.Is(err, store.ErrExists), errors.Is(err, store.ErrConflict):
		fail(w, http.StatusConflict, "conflict", "%v", err)
		return
	}
	s.Log.Error().Err(err).Msg("store")
	fail(w, http.StatusInternalServerError, "internal", "the manager's store failed; see its log")
}

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
	RegisteredAt  time.Time       `json:"registered_at"`
	LastSeen      time.Time       `json:"last_seen"`
}

func (s *Server) view(r *http.Request, n store.Node) (nodeView, error) {
	v := nodeView{
		ID: n.ID, DeviceType: n.DeviceType, GroupID: n.GroupID, Online: s.online(n.ID) != nil, Version: n.Version, UpgradeState: Idle,
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
	state, code := StateOf(c, codes, version)
	return state, code, nil
}

// readBody decodes a body of JSON without unknown fields, or answers why not.
func readBody(w http.ResponseWriter, r *http.Request, to any) bool {
	d := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxBody))
	d.DisallowUnknownFields()
	if err := d.Decode(to); err != nil {
		fail(w, http.StatusBadRequest, "bad_request", "the body is not what this call takes: %v", err)
		return false
	}
	return true
}

func (s *Server) listNodes(w http.ResponseWriter, r *http.Request) {
	nodes, err := s.Store.Nodes(r.Context())
	if err != nil {
		s.storeFailed(w, err)
		return
	}
	views := []nodeView{}
	for _, n := range nodes {
		if !who(r).In(n.GroupID) {
			continue
		}
		v, err := s.view(r, n)
		if err != nil {
			s.storeFailed(w, err)
			return
		}
		views = append(views, v)
	}
	reply(w, http.StatusOK, map[string]any{"nodes": views})
}

func (s *Server) getNode(w http.ResponseWriter, r *http.Request) {
	n, err := s.Store.Node(r.Context(), r.PathValue("id"))
	if err == nil {
		if !s.inScope(w, r, n.GroupID) {
			return
		}
		var v nodeView
		if v, err = s.view(r, n); err == nil {
			reply(w, http.StatusOK, v)
			return
		}
	}
	s.storeFailed(w, err)
}

func (s *Server) listCommands(w http.ResponseWriter, r *http.Request) {
	n, err := s.Store.Node(r.Context(), r.PathValue("id"))
	if err != nil {
		s.storeFailed(w, err)
		return
	}
	if !s.inScope(w, r, n.GroupID) {
		return
	}
	cs, err := s.Store.Commands(r.Context(), r.PathValue("id"), commandsKept)
	if err != nil {
		s.storeFailed(w, err)
		return
	}
	reply(w, http.StatusOK, map[string]any{"commands": cs})
}

func (s *Server) upgradeNode(w http.ResponseWriter, r *http.Request) {
	var body struct {
		Version    string `json:"version"`
		Channel    string `json:"channel"`
		TargetArch string `json:"target_arch"`
		Variant    string `json:"variant"`
	}
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
	n, err := s.Store.Node(r.Context(), r.PathValue("id"))
	if err != nil {
		s.storeFailed(w, err)
		return
	}
	if !s.inScope(w, r, n.GroupID) {
		return
	}
	if !slices.Contains(n.Capabilities, wire.CapabilityUpgrade) {
		fail(w, http.StatusConflict, "no_capability", "node %s does not advertise the capability %q; are upgrades enabled in its config.toml?", n.ID, wire.CapabilityUpgrade)
		return
	}
	now := time.Now().UTC()
	c := store.Command{ID: uuid.NewString(), NodeID: n.ID, Version: body.Version, Channel: body.Channel, CreatedAt: now}
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
	reply(w, http.StatusAccepted, map[string]string{"command_id": c.ID})
}

func (s *Server) listEvents(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	f := store.EventFilter{NodeID: q.Get("node_id"), Severity: q.Get("severity"), Category: q.Get("category"),
		CommandID: q.Get("command_id"), Search: q.Get("search"), Groups: who(r).scope(), Page: 1, PerPage: 50}
	var bad error
	number := func(key string, to *int, most int) {
		if v := q.Get(key); v != "" {
			n, err := strconv.Atoi(v)
			if err != nil || n < 1 || n > most {
				bad = fmt.Errorf("%s=%q is not a number from 1 to %d", key, v, most)
				return
			}
			*to = n
		}
	}
	instant := func(key string, to *time.Time) {
		if v := q.Get(key); v != "" {
			t, err := time.Parse(time.RFC3339, v)
			if err != nil {
				bad = fmt.Errorf("%s=%q is not a time as RFC 3339 has it", key, v)
				return
			}
			*to = t
		}
	}
	number("page", &f.Page, 1_000_000)
	number("per_page", &f.PerPage, store.MaxPerPage)
	instant("from", &f.From)
	instant("to", &f.To)
	if bad != nil {
		fail(w, http.StatusBadRequest, "bad_request", "%v", bad)
		return
	}
	events, total, err := s.Store.Events(r.Context(), f)
	if err != nil {
		s.storeFailed(w, err)
		return
	}
	reply(w, http.StatusOK, map[string]any{"events": events, "total": total, "page": f.Page, "per_page": f.PerPage})
}

func (s *Server) listAudit(w http.ResponseWriter, r *http.Request) {
	entries, err := s.Store.AuditLog(r.Context(), auditListed)
	if err != nil {
		s.storeFailed(w, err)
		return
	}
	reply(w, http.StatusOK, map[string]any{"entries": entries})
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
	reply(w, http.StatusOK, map[string]any{"releases": c.list})
}
