package server

import (
	"errors"
	"fmt"
	"net/http"
	"slices"
	"time"

	"github.com/bilbycast/edge-agent/manager-sim/api"
	"github.com/bilbycast/edge-agent/manager-sim/server/answer"
	"github.com/bilbycast/edge-agent/manager-sim/server/engine"
	"github.com/bilbycast/edge-agent/manager-sim/store"
	"github.com/bilbycast/edge-agent/release"
	"github.com/google/uuid"
)

// groupRoutes are the routes under /api/v1/groups.
type groupRoutes struct {
	*gate
	views *nodeViews
}

func (h *groupRoutes) list(w http.ResponseWriter, r *http.Request) {
	gs, err := h.store.Groups(r.Context())
	if err != nil {
		h.storeFailed(w, err)
		return
	}
	gs = slices.DeleteFunc(gs, func(g api.Group) bool { return !requester(r).In(g.ID) })
	answer.JSON(w, http.StatusOK, api.GroupList{Groups: gs})
}

func (h *groupRoutes) create(w http.ResponseWriter, r *http.Request) {
	var body api.NewGroup
	if !readBody(w, r, &body) {
		return
	}
	if err := api.CheckGroupName(body.Name); err != nil {
		badRequest(w, err)
		return
	}
	g := api.Group{ID: uuid.NewString(), Name: body.Name, CreatedAt: time.Now().UTC()}
	if err := h.store.AddGroup(r.Context(), g, entry(r, "group.create", g.ID, map[string]any{"name": g.Name})); err != nil {
		h.storeFailed(w, err)
		return
	}
	answer.JSON(w, http.StatusCreated, g)
}

// fromPath returns the group that the path names, and its nodes. If the requester may
// not see it, or it does not exist, it answers, and returns false.
func (h *groupRoutes) fromPath(w http.ResponseWriter, r *http.Request) (api.Group, []store.Node, bool) {
	g, err := h.store.Group(r.Context(), r.PathValue("id"))
	if err != nil {
		h.storeFailed(w, err)
		return g, nil, false
	}
	if !h.inScope(w, r, g.ID) {
		return g, nil, false
	}
	nodes, err := h.store.GroupNodes(r.Context(), g.ID)
	if err != nil {
		h.storeFailed(w, err)
	}
	return g, nodes, err == nil
}

func (h *groupRoutes) get(w http.ResponseWriter, r *http.Request) {
	g, nodes, ok := h.fromPath(w, r)
	if !ok {
		return
	}
	detail := api.GroupDetail{Group: g, Versions: map[string]int{}}
	if detail.Nodes, ok = h.views.list(w, r, nodes); !ok {
		return
	}
	for _, n := range nodes {
		detail.Versions[n.Version]++
	}
	active, err := h.store.Rollouts(r.Context(), g.ID, true, 1)
	if err != nil {
		h.storeFailed(w, err)
		return
	}
	if len(active) > 0 {
		detail.Active = active[0].ID
	}
	answer.JSON(w, http.StatusOK, detail)
}

func (h *groupRoutes) upgrade(w http.ResponseWriter, r *http.Request) {
	var body api.RolloutRequest
	if !readBody(w, r, &body) {
		return
	}
	if err := checkRollout(body); err != nil {
		badRequest(w, err)
		return
	}
	g, nodes, ok := h.fromPath(w, r)
	if !ok {
		return
	}
	plan, err := h.views.engine.Schedule(r.Context(), g, nodes, body, person(r))
	var refused *engine.NotSchedulableError
	switch {
	case errors.As(err, &refused):
		answer.Problem(w, http.StatusConflict, api.CodeNotSchedulable, "%v", refused)
	case errors.Is(err, store.ErrExists):
		answer.Problem(w, http.StatusConflict, api.CodeRolloutActive, "group %q has an active rollout; abort it, or wait for its end", g.Name)
	case err != nil:
		h.storeFailed(w, err)
	case body.DryRun:
		answer.JSON(w, http.StatusOK, plan)
	default:
		answer.JSON(w, http.StatusAccepted, plan)
	}
}

// checkRollout returns an error unless a request is within its bounds.
func checkRollout(b api.RolloutRequest) error {
	if _, err := release.ParseVersion(b.Version); err != nil {
		return err
	}
	if b.Channel != "" {
		if err := release.CheckName("channel", b.Channel); err != nil {
			return err
		}
	}
	if b.SettleSecs != nil && (*b.SettleSecs < 0 || *b.SettleSecs > api.MaxSettleSecs) {
		return fmt.Errorf("settle_secs is not 0 to %d", api.MaxSettleSecs)
	}
	if b.LimitSecs != 0 && (b.LimitSecs < api.MinLimitSecs || b.LimitSecs > api.MaxLimitSecs) {
		return fmt.Errorf("limit_secs is not %d to %d", api.MinLimitSecs, api.MaxLimitSecs)
	}
	if b.LifeSecs != 0 && (b.LifeSecs < api.MinLifeSecs || b.LifeSecs > api.MaxLifeSecs) {
		return fmt.Errorf("life_secs is not %d to %d", api.MinLifeSecs, api.MaxLifeSecs)
	}
	if b.Threshold < 0 || b.Threshold > api.MaxThreshold {
		return fmt.Errorf("threshold is not 1 to %d", api.MaxThreshold)
	}
	return api.CheckReason(b.Reason)
}
