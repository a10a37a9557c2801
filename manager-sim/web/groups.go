package web

import (
	"cmp"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"time"

	"github.com/bilbycast/edge-agent/manager-sim/rollout"
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
	return r.show("group", g.Name, "groups", true, map[string]any{"Group": g, "Rollouts": list.Rollouts})
}

// plan is what the API says that a rollout would do.
type plan struct {
	RolloutID     string     `json:"rollout_id"`
	NodeCount     int        `json:"node_count"`
	Offline       int        `json:"offline"`
	Waves         [][]string `json:"waves"`
	EstimatedSecs int        `json:"estimated_secs"`
	LeftOut       []struct {
		NodeID string `json:"node_id"`
		Reason string `json:"reason"`
	} `json:"left_out"`
}

// Estimated is the least that the rollout takes, besides its upgrades.
func (p plan) Estimated() string { return (time.Duration(p.EstimatedSecs) * time.Second).String() }

// rolloutForm is the form of a group's upgrade: filled in, then with its plan.
type rolloutForm struct {
	Group                      groupDetail
	Versions                   []choice
	Version, Channel, Strategy string
	SettleSecs, Threshold      int
	Plan                       *plan
}

func (r *request) rolloutForm() (rolloutForm, error) {
	g, err := r.groupDetail(r.PathValue("id"))
	if err != nil {
		return rolloutForm{}, err
	}
	f := rolloutForm{Group: g, Version: r.FormValue("version"), Channel: cmp.Or(r.FormValue("channel"), "stable"),
		Strategy: cmp.Or(r.FormValue("strategy"), rollout.Staged), SettleSecs: int(rollout.DefaultSettle / time.Second), Threshold: 1}
	if n, err := strconv.Atoi(r.FormValue("settle_secs")); err == nil {
		f.SettleSecs = n
	}
	if n, err := strconv.Atoi(r.FormValue("threshold")); err == nil {
		f.Threshold = n
	}
	if len(g.Nodes) > 0 {
		var versions []string
		versions, err = r.releases(g.Nodes[0].DeviceType, f.Channel)
		f.Versions = choices(versions, "")
	}
	return f, err
}

func (r *request) upgradeGroupPage() error {
	f, err := r.rolloutForm()
	if err != nil {
		return err
	}
	return r.show("group_upgrade", "Upgrade group "+f.Group.Name, "groups", false, f)
}

// upgradeGroup shows the plan first, and schedules it when that is confirmed.
func (r *request) upgradeGroup() error {
	f, err := r.rolloutForm()
	if err != nil {
		return err
	}
	confirmed := r.PostFormValue("confirm") == "yes"
	var p plan
	err = r.api(http.MethodPost, "/api/v1/groups/"+url.PathEscape(f.Group.ID)+"/upgrade", map[string]any{
		"version": f.Version, "channel": f.Channel, "strategy": f.Strategy, "settle_secs": f.SettleSecs, "threshold": f.Threshold, "dry_run": !confirmed}, &p)
	title := "Upgrade group " + f.Group.Name
	switch {
	case err != nil:
		return r.refused(err, "group_upgrade", title, "groups", f)
	case confirmed:
		return r.to("/admin/rollouts/%s", p.RolloutID)
	}
	f.Plan = &p
	return r.show("group_upgrade", title, "groups", false, f)
}

type rolloutDetail struct {
	rollout.Rollout
	Counts map[string]int `json:"counts"`
}

type rolloutList struct {
	Rollouts []rolloutDetail `json:"rollouts"`
	Next     string          `json:"next"`
}

// Done is how many nodes have ended, and Bad how many of those badly.
func (d rolloutDetail) Done() int {
	return len(d.Nodes) - d.Count(rollout.NodeWaiting) - d.Count(rollout.NodeCommanded)
}

// Bad is how many nodes failed or went back.
func (d rolloutDetail) Bad() int {
	return d.Count(rollout.NodeFailed) + d.Count(rollout.NodeRolledBack)
}

// Final reports whether it has ended.
func (d rolloutDetail) Final() bool { return d.Status.Final() }

// wave is one wave of a rollout.
type wave struct {
	Number  int
	Nodes   []rollout.Node
	Updated int
	State   string // "done", "running" or "not begun"
}

// WaveList splits the nodes by wave.
func (d rolloutDetail) WaveList() []wave {
	var ws []wave
	first := 0
	for i, k := range d.Waves {
		w := wave{Number: i + 1, Nodes: d.Nodes[first:k], State: "not begun"}
		for _, n := range w.Nodes {
			if n.State == rollout.NodeUpdated {
				w.Updated++
			}
		}
		switch {
		case i < d.Wave || d.Status == rollout.Completed:
			w.State = "done"
		case i == d.Wave:
			w.State = string(d.Status)
		}
		first = k
		ws = append(ws, w)
	}
	return ws
}

// SettleLeft is how long the settle window still is.
func (d rolloutDetail) SettleLeft() string {
	return max(0, time.Until(d.SettleUntil)).Round(time.Second).String()
}

func (r *request) rollouts() error {
	var list rolloutList
	path := "/api/v1/rollouts"
	if after := r.URL.Query().Get("after"); after != "" {
		path += "?after=" + url.QueryEscape(after)
	}
	if err := r.api(http.MethodGet, path, nil, &list); err != nil {
		return err
	}
	_, names, err := r.groupList()
	if err != nil {
		return err
	}
	return r.show("rollouts", "Rollouts", "rollouts", true, map[string]any{"Rollouts": list.Rollouts, "Names": names, "Next": list.Next})
}

func (r *request) rollout() error { return r.rolloutPage(nil) }

func (r *request) rolloutPage(problem error) error {
	var d rolloutDetail
	if err := r.api(http.MethodGet, "/api/v1/rollouts/"+url.PathEscape(r.PathValue("id")), nil, &d); err != nil {
		return err
	}
	_, names, err := r.groupList()
	if err != nil {
		return err
	}
	data := map[string]any{"Rollout": d, "Names": names}
	if problem != nil {
		return r.refused(problem, "rollout", "Rollout of "+d.Version, "rollouts", data)
	}
	return r.show("rollout", "Rollout of "+d.Version, "rollouts", true, data)
}

func (r *request) actOnRollout() error {
	id := url.PathEscape(r.PathValue("id"))
	var body any
	if node := r.PostFormValue("node_id"); node != "" {
		body = map[string]string{"node_id": node}
	}
	if err := r.api(http.MethodPost, "/api/v1/rollouts/"+id+"/"+url.PathEscape(r.PathValue("act")), body, nil); err != nil {
		return r.rolloutPage(err)
	}
	return r.to("/admin/rollouts/%s", id)
}
