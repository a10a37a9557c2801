package web

import (
	"cmp"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/bilbycast/edge-agent/manager-sim/api"
	"github.com/bilbycast/edge-agent/manager-sim/rollout"
	"github.com/bilbycast/edge-agent/release"
)

// plan describes what a rollout would do.
type plan struct{ api.RolloutPlan }

// Waiting is the least time that waiting between the waves adds.
func (p plan) Waiting() string { return duration(time.Duration(p.EstimatedSecs) * time.Second) }

// rolloutForm is the data of the form of a group's upgrade, which is shown first without
// and then with a plan.
type rolloutForm struct {
	Group                      groupDetail
	Versions                   []choice
	Published                  published
	Version, Channel, Strategy string
	SettleSecs, Threshold      int
	RollBack                   bool   // the rollout sets the group back to an earlier version
	Reason                     string // of rolling back
	Unlisted                   bool   // offer to override that the version is not published
	AllowUnlisted              bool
	Repair                     bool // the version is the repair of nodes whose own check fails
	Plan                       *plan
}

// Title is the title of the page.
func (f rolloutForm) Title() string {
	if f.RollBack {
		return "Roll back group " + f.Group.Name
	}
	return "Upgrade group " + f.Group.Name
}

// Settle is the window between waves, in words.
func (f rolloutForm) Settle() string { return duration(time.Duration(f.SettleSecs) * time.Second) }

// number returns a number in the form, or def if the form has none.
func (r *request) number(name, what string, def int) (int, error) {
	text := strings.TrimSpace(r.FormValue(name))
	if text == "" {
		return def, nil
	}
	n, err := strconv.Atoi(text)
	if err != nil {
		return def, problem(http.StatusBadRequest, fmt.Sprintf("%s must be a whole number, not %.40q.", what, text))
	}
	return n, nil
}

// rolloutForm returns the form with its values. mistake is an error in the values, which
// the form shows.
func (r *request) rolloutForm() (f rolloutForm, mistake, err error) {
	g, err := r.groupDetail(r.PathValue("id"))
	if err != nil {
		return f, nil, err
	}
	f = rolloutForm{Group: g, Version: strings.TrimSpace(r.FormValue("version")), Channel: cmp.Or(r.FormValue("channel"), release.DefaultChannel),
		Strategy: cmp.Or(r.FormValue("strategy"), rollout.Staged), RollBack: r.FormValue("rollback") == "yes",
		Reason: r.FormValue("reason"), AllowUnlisted: r.FormValue("allow_unlisted") == "yes", Repair: r.FormValue("repair") == "yes"}
	var wrong [2]error
	f.SettleSecs, wrong[0] = r.number("settle_secs", "The settle window", int(rollout.DefaultSettle/time.Second))
	f.Threshold, wrong[1] = r.number("threshold", "The number of failures", rollout.DefaultThreshold)
	if len(g.Nodes) > 0 {
		f.Published, err = r.releases(g.Nodes[0].DeviceType, f.Channel)
		f.Versions = f.Published.choices("", f.Version)
	}
	return f, cmp.Or(wrong[0], wrong[1]), err
}

func (r *request) upgradeGroupPage() error {
	f, mistake, err := r.rolloutForm()
	switch {
	case err != nil:
		return err
	case mistake != nil:
		return r.refused(mistake, "group_upgrade", f.Title(), "groups", f)
	}
	return r.show("group_upgrade", f.Title(), "groups", false, f)
}

// upgradeGroup shows the plan, and starts the rollout once the plan is confirmed.
func (r *request) upgradeGroup() error {
	f, mistake, err := r.rolloutForm()
	if err != nil {
		return err
	}
	confirmed := r.PostFormValue("confirm") == "yes"
	var p api.RolloutPlan
	if err = mistake; err == nil {
		p, err = r.api.UpgradeGroup(r.Context(), f.Group.ID, api.RolloutRequest{Version: f.Version, Channel: f.Channel, Strategy: f.Strategy,
			SettleSecs: &f.SettleSecs, Threshold: f.Threshold, DryRun: !confirmed, AllowUnlisted: f.AllowUnlisted, Repair: f.Repair, Reason: r.reason()})
	}
	switch {
	case err != nil:
		f.Unlisted = api.IsCode(err, api.CodeNotPublished) || api.IsCode(err, api.CodeNotSchedulable) && len(f.Published.Versions) > 0 && !slices.Contains(f.Published.Versions, f.Version)
		return r.refused(err, "group_upgrade", f.Title(), "groups", f)
	case confirmed:
		return r.to("/admin/rollouts/%s", p.RolloutID)
	}
	f.Plan = &plan{p}
	return r.show("group_upgrade", f.Title(), "groups", false, f)
}
