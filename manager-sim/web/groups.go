package web

import (
	"cmp"
	"slices"

	"github.com/bilbycast/edge-agent/manager-sim/api"
)

// share is a version in a group, and the number of nodes that run it.
type share struct {
	Version string
	Nodes   int
}

// groupDetail is a group as the pages show it.
type groupDetail struct {
	api.GroupDetail
	Nodes []node // of the group, in place of those of GroupDetail
}

// Shares are the versions of the nodes, the most frequent first.
func (g groupDetail) Shares() []share {
	var s []share
	for v, k := range g.Versions {
		s = append(s, share{v, k})
	}
	slices.SortFunc(s, func(a, b share) int { return cmp.Or(b.Nodes-a.Nodes, cmp.Compare(a.Version, b.Version)) })
	return s
}

// Degraded is the number of degraded nodes.
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
	g, err := r.api.Group(r.Context(), id)
	return groupDetail{g, nodesOf(g.Nodes)}, err
}

func (r *request) groups() error { return r.groupsPage(nil) }

func (r *request) groupsPage(refusal error) error {
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
	if refusal != nil {
		return r.refused(refusal, "groups", "Groups", "groups", details)
	}
	return r.show("groups", "Groups", "groups", true, details)
}

func (r *request) addGroup() error {
	g, err := r.api.CreateGroup(r.Context(), r.PostFormValue("name"))
	if err != nil {
		return r.groupsPage(err)
	}
	return r.to("/admin/groups/%s", g.ID)
}

func (r *request) group() error {
	g, err := r.groupDetail(r.PathValue("id"))
	if err != nil {
		return err
	}
	list, err := r.api.Rollouts(r.Context(), api.RolloutQuery{GroupID: g.ID})
	if err != nil {
		return err
	}
	return r.show("group", g.Name, "groups", true, map[string]any{"Group": g, "Rollouts": rolloutTable{rolloutsOf(list.Rollouts), map[string]string{g.ID: g.Name}},
		"Table": nodeTable{g.Nodes, nil, false, r.who.May(api.Operator)}})
}
