package server

import (
	"net/http"
	"slices"
	"time"

	"github.com/bilbycast/edge-agent/manager-sim/api"
	"github.com/google/uuid"
)

func (s *Server) listGroups(w http.ResponseWriter, r *http.Request) {
	gs, err := s.Store.Groups(r.Context())
	if err != nil {
		s.storeFailed(w, err)
		return
	}
	gs = slices.DeleteFunc(gs, func(g api.Group) bool { return !who(r).In(g.ID) })
	reply(w, http.StatusOK, api.GroupList{Groups: gs})
}

func (s *Server) addGroup(w http.ResponseWriter, r *http.Request) {
	var body api.NewGroup
	if !readBody(w, r, &body) {
		return
	}
	if err := api.CheckGroupName(body.Name); err != nil {
		fail(w, http.StatusBadRequest, api.CodeBadRequest, "%v", err)
		return
	}
	g := api.Group{ID: uuid.NewString(), Name: body.Name, CreatedAt: time.Now().UTC()}
	if err := s.Store.AddGroup(r.Context(), g, audit(g.CreatedAt, who(r).Name, "group.create", g.ID, map[string]any{"name": g.Name})); err != nil {
		s.storeFailed(w, err)
		return
	}
	reply(w, http.StatusCreated, g)
}

func (s *Server) setGroup(w http.ResponseWriter, r *http.Request) {
	var body api.Membership
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

func (s *Server) getGroup(w http.ResponseWriter, r *http.Request) {
	g, err := s.Store.Group(r.Context(), r.PathValue("id"))
	if err != nil {
		s.storeFailed(w, err)
		return
	}
	if !s.inScope(w, r, g.ID) {
		return
	}
	v := api.GroupDetail{Group: g, Versions: map[string]int{}}
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
