package server

import (
	"net/http"
	"regexp"
	"slices"
	"time"

	"github.com/bilbycast/edge-agent/manager-sim/store"
	"github.com/google/uuid"
)

// The bodies of the calls.
type (
	groupList struct {
		Groups []store.Group `json:"groups"`
	}
	groupNamed struct {
		Name string `json:"name"`
	}
)

// groupNames is what a group may be called.
var groupNames = regexp.MustCompile(`^[\pL\pN][\pL\pN ._-]{0,63}$`)

func (s *Server) listGroups(w http.ResponseWriter, r *http.Request) {
	gs, err := s.Store.Groups(r.Context())
	if err != nil {
		s.storeFailed(w, err)
		return
	}
	gs = slices.DeleteFunc(gs, func(g store.Group) bool { return !who(r).In(g.ID) })
	reply(w, http.StatusOK, groupList{gs})
}

func (s *Server) addGroup(w http.ResponseWriter, r *http.Request) {
	var body groupNamed
	if !readBody(w, r, &body) {
		return
	}
	if !groupNames.MatchString(body.Name) {
		fail(w, http.StatusBadRequest, "bad_request", "name %.80q is not 1 to 64 letters, digits, spaces and ._-, beginning with a letter or digit", body.Name)
		return
	}
	g := store.Group{ID: uuid.NewString(), Name: body.Name, CreatedAt: time.Now().UTC()}
	if err := s.Store.AddGroup(r.Context(), g, audit(g.CreatedAt, who(r).Name, "group.create", g.ID, map[string]any{"name": g.Name})); err != nil {
		s.storeFailed(w, err)
		return
	}
	reply(w, http.StatusCreated, g)
}

func (s *Server) setGroup(w http.ResponseWriter, r *http.Request) {
	var body membership
	if !readBody(w, r, &body) {
		return
	}
	id := r.PathValue("id")
	n, err := s.Store.Node(r.Context(), id)
	if err != nil {
		s.storeFailed(w, err)
		return
	}
	if !s.inScope(w, r, n.GroupID) || !s.inScope(w, r, body.GroupID) { // out of the one, into the other
		return
	}
	if err := s.Store.SetGroup(r.Context(), id, body.GroupID, audit(time.Now().UTC(), who(r).Name, "node.group.set", id, map[string]any{"group_id": body.GroupID})); err != nil {
		s.storeFailed(w, err)
		return
	}
	reply(w, http.StatusOK, body)
}

// groupView is a group with its members and its active rollout, if it has one.
type groupView struct {
	store.Group
	Nodes    []nodeView     `json:"nodes"`
	Versions map[string]int `json:"versions"` // version -> nodes
	Active   string         `json:"active_rollout,omitempty"`
}

func (s *Server) getGroup(w http.ResponseWriter, r *http.Request) {
	g, err := s.Store.Group(r.Context(), r.PathValue("id"))
	if err != nil {
		s.storeFailed(w, err)
		return
	}
	if !s.inScope(w, r, g.ID) {
		return
	}
	v := groupView{Group: g, Versions: map[string]int{}}
	nodes, err := s.Store.GroupNodes(r.Context(), g.ID)
	if err != nil {
		s.storeFailed(w, err)
		return
	}
	var ok bool
	if v.Nodes, ok = s.views(w, r, nodes); !ok {
		return
	}
	for _, n := range nodes {
		v.Versions[n.Version]++
	}
	active, err := s.Store.Rollouts(r.Context(), g.ID, true, 1)
	if err != nil {
		s.storeFailed(w, err)
		return
	}
	if len(active) > 0 {
		v.Active = active[0].ID
	}
	reply(w, http.StatusOK, v)
}
