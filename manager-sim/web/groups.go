package web

import (
	"cmp"
	"net/http"
	"net/url"
	"slices"

	"github.com/bilbycast/edge-agent/manager-sim/api"
)

// share is one version of a group, and how many nodes run it.
type share struct {
	Version string
	Nodes   int
}

type groupDetail struct {
	group
	Nodes    []node         `json:"nodes"`
	Versions map[string]int `json:"versions"`
	Active   string         `json:"active_rollout"`
}

// Shares are the versions, most nodes first.
func (g groupDetail) Shares() []share {
	var s []share
	for v, k := range g.Versions {
		s = append(s, share{v, k})
	}
	slices.SortFunc(s, func(a, b share) int { return cmp.Or(b.Nodes-a.Nodes, cmp.Compare(a.Version, b.Version)) })
	return s
}

// Degraded is how many of its nodes reported so.
func (g groupDetail) Degraded() int {
	k := 0
	for _, n := range g.Nodes {
		if n.Degraded() {
			k++
		}
	}
	return k
}

func (r *request) groupDetail(id string) (groupDetail, error) {
	var g groupDetail
	return g, r.api(http.MethodGet, "/api/v1/groups/"+url.PathEscape(id), nil, &g)
}

func (r *request) groups() error { return r.groupsPage(nil) }

func (r *request) groupsPage(problem error) error {
	groups, _, err := r.groupList()
	if err != nil {
		return err
	}
	details := []groupDetail{}
	for _, g := range groups {
		d, err := r.groupDetail(g.ID)
		if err != nil {
			return err
		}
		details = append(details, d)
	}
	if problem != nil {
		return r.refused(problem, "groups", "Groups", "groups", details)
	}
	return r.show("groups", "Groups", "groups", true, details)
}

func (r *request) addGroup() error {
	var g group
	if err := r.api(http.MethodPost, "/api/v1/groups", map[string]string{"name": r.PostFormValue("name")}, &g); err != nil {
		return r.groupsPage(err)
	}
	return r.to("/admin/groups/%s", g.ID)
}

func (r *request) group() error {
	g, err := r.groupDetail(r.PathValue("id"))
	if err != nil {
		return err
	}
	var list rolloutList
	if err := r.api(http.MethodGet, "/api/v1/rollouts?group_id="+url.QueryEscape(g.ID), nil, &list); err != nil {
		return err
	}
	return r.show("group", g.Name, "groups", true, map[string]any{"Group": g, "Rollouts": rolloutTable{list.Rollouts, map[string]string{g.ID: g.Name}},
		"Table": nodeTable{g.Nodes, nil, false, r.who.May(api.Operator)}})
}
