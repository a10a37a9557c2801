package server

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"time"

	"github.com/bilbycast/edge-agent/manager-sim/api"
	"github.com/bilbycast/edge-agent/manager-sim/rollout"
	"github.com/bilbycast/edge-agent/manager-sim/server/answer"
	"github.com/bilbycast/edge-agent/manager-sim/server/engine"
	"github.com/bilbycast/edge-agent/manager-sim/store"
)

// rolloutRoutes are the routes under /api/v1/rollouts.
type rolloutRoutes struct {
	*gate
	engine *engine.Engine
}

func (h *rolloutRoutes) list(w http.ResponseWriter, r *http.Request) {
	active := false
	q := query{r: r}
	if q.boolean("active", &active); q.failed(w) {
		return
	}
	groups, err := groupNames(r.Context(), h.store)
	if err != nil {
		h.storeFailed(w, err)
		return
	}
	ctx, unreadable := store.CountUnreadable(r.Context())
	all, err := h.store.Rollouts(ctx, q.text("group_id"), active, -1)
	if err != nil {
		h.storeFailed(w, err)
		return
	}
	all = slices.DeleteFunc(all, func(ro store.Rollout) bool { return !requester(r).In(ro.GroupID) })
	page, next, ok := pageOf(w, r, all, func(ro store.Rollout) string { return ro.ID })
	if !ok {
		return
	}
	list := api.RolloutList{Rollouts: make([]api.Rollout, len(page)), Next: next}
	for i, stored := range page {
		_, list.Rollouts[i] = h.view(stored, groups)
	}
	list.Unreadable = *unreadable
	answer.JSON(w, http.StatusOK, list)
}

// fromPath returns the rollout that the path names. If the requester may not see it, or
// it does not exist, it answers, and returns false.
func (h *rolloutRoutes) fromPath(w http.ResponseWriter, r *http.Request) (store.Rollout, bool) {
	stored, err := h.store.Rollout(r.Context(), r.PathValue("id"))
	if err != nil {
		h.storeFailed(w, err)
		return stored, false
	}
	return stored, h.inScope(w, r, stored.GroupID)
}

func (h *rolloutRoutes) get(w http.ResponseWriter, r *http.Request) {
	stored, ok := h.fromPath(w, r)
	if !ok {
		return
	}
	groups, err := groupNames(r.Context(), h.store)
	if err != nil {
		h.storeFailed(w, err)
		return
	}
	ro, view := h.view(stored, groups)
	if err := errors.Join(h.addMessages(r.Context(), ro, &view), h.addWaiting(r.Context(), ro, &view)); err != nil {
		h.storeFailed(w, err)
		return
	}
	w.Header().Set("ETag", `"`+view.Decision+`"`)
	answer.JSON(w, http.StatusOK, view)
}

// act pauses, resumes, retries or aborts a rollout, or skips a node of it.
func (h *rolloutRoutes) act(w http.ResponseWriter, r *http.Request) {
	var body api.RolloutAct
	if !readOptional(w, r, &body) {
		return
	}
	reason, ok := checkReason(w, body.Reason)
	if !ok {
		return
	}
	act := r.PathValue("act")
	event, ok := map[string]rollout.Event{
		api.ActPause: rollout.Pause{Reason: "paused by " + requester(r).Name}, api.ActResume: rollout.Resume{By: person(r)}, api.ActRetry: rollout.Retry{By: person(r)},
		api.ActSkip: rollout.Skip{NodeID: body.NodeID}, api.ActAbort: rollout.Abort{},
	}[act]
	if !ok {
		answer.Problem(w, http.StatusNotFound, api.CodeNotFound, "there is no action %.40q; there are pause, resume, retry, skip and abort", act)
		return
	}
	stored, ok := h.fromPath(w, r)
	if !ok {
		return
	}
	_, view := h.view(stored, nil)
	if event, ok = onSeen(w, r, event, body.Revision, view.Decision); !ok {
		return
	}
	details := map[string]any{"rollout_id": stored.ID}
	if body.NodeID != "" {
		details["node_id"] = body.NodeID
	}
	if reason != "" {
		details["reason"] = reason
	}
	err := h.engine.Act(r.Context(), stored.ID, event, requester(r).Name, entry(r, "group.upgrade."+act, stored.GroupID, details))
	var changed *rollout.ChangedError
	switch {
	case err == nil:
		h.get(w, r)
	case errors.As(err, &changed):
		answer.Problem(w, http.StatusPreconditionFailed, api.CodePreconditionFailed, "%v. Look at it again, and repeat the request with its present revision", err)
	case errors.Is(err, rollout.ErrUnseen):
		unseen(w, err.Error()+", and ")
	case errors.Is(err, engine.ErrNoRight): // which was lost since the gate
		h.denied(w, r, err.Error())
	case errors.Is(err, rollout.ErrBroken), errors.Is(err, rollout.ErrFinal), errors.Is(err, rollout.ErrNotPaused), errors.Is(err, rollout.ErrNoFailure), errors.Is(err, rollout.ErrOver), errors.Is(err, rollout.ErrNoSuchNode):
		answer.Problem(w, http.StatusConflict, api.CodeNotNow, "%v", err)
	default:
		h.storeFailed(w, err)
	}
}

// maxMessages is how many failed nodes of a rollout are shown with their messages.
const maxMessages = 100

// addMessages adds to the view of a rollout the messages of the nodes that failed, and what
// the unproven nodes wait for.
func (h *rolloutRoutes) addMessages(ctx context.Context, ro rollout.Rollout, v *api.Rollout) error {
	remaining := maxMessages
	for i, n := range ro.Nodes {
		if n.Code == rollout.Moved && n.Group != "" {
			v.Nodes[i].Message = "it is in the group " + n.Group + " now"
		}
		if (n.Code == "" || n.Code == rollout.TimeLimit || n.State == rollout.NodeSkipped) && n.State != rollout.NodeUnproven || remaining == 0 {
			continue
		}
		remaining--
		err := h.addMessage(ctx, ro, n, &v.Nodes[i])
		if errors.Is(err, store.ErrNotFound) || errors.Is(err, store.ErrUnreadable) {
			v.Nodes[i].Message = err.Error()
		} else if err != nil {
			return err
		}
	}
	return nil
}

func (h *rolloutRoutes) addMessage(ctx context.Context, ro rollout.Rollout, n rollout.Node, v *api.RolloutNode) error {
	c, err := h.store.Command(ctx, ro.CommandID(n))
	if err != nil {
		return err
	}
	rec, err := h.store.Node(ctx, n.ID)
	if err != nil {
		return err
	}
	switch {
	case n.State == rollout.NodeUnproven:
		v.Hold = rec.Hold
		return nil
	case n.Code == rollout.Vanished:
		longest, err := h.engine.Watch.LongestAbsence(ctx, n.ID, c.CreatedAt)
		v.Message = fmt.Sprintf("offline, last seen %s; its longest known absence before the upgrade was %v", rec.LastSeen.Format(time.RFC3339), longest.Round(time.Second))
		return err
	}
	if n.Code == rollout.OtherManifest {
		v.Message = engine.OtherManifest(ro, rec)
		return nil
	}
	st, err := h.engine.Statuses.OfCommand(ctx, c, rec)
	if st.Code == n.Code || n.Code == rollout.OtherVersion || n.Code == rollout.Dependency {
		v.Message = st.Message
	}
	if n.Code == rollout.OtherVersion && v.Message == "" {
		v.Message = "it runs " + rec.Version
	}
	return err
}

// view returns a stored rollout, and how the API shows it. A rollout that cannot be read is
// shown as paused, and broken.
func (h *rolloutRoutes) view(stored store.Rollout, groups map[string]string) (rollout.Rollout, api.Rollout) {
	r, err := engine.Decode(stored)
	if err != nil {
		r = rollout.Rollout{Plan: rollout.Plan{ID: stored.ID, GroupID: stored.GroupID}, CreatedAt: stored.CreatedAt, Waves: []int{}}
	} else if err = r.Check(); err != nil {
		r.Waves, r.Wave = []int{len(r.Nodes)}, 0
	}
	if err != nil && r.Broken == "" {
		r.Broken = err.Error()
		r.Reason = "broken: " + r.Broken
	}
	if err != nil && !r.Status.Final() {
		r.Status = rollout.Paused
	}
	if !stored.Active && !r.Status.Final() {
		r.Status, r.Reason = rollout.Aborted, ""
	}
	now := time.Now()
	r.Outages, r.Uptime = h.engine.Clock.Outages(now), h.engine.Clock.Uptime(now)
	v := api.Rollout{
		ID: r.ID, GroupID: r.GroupID, Version: r.Version, Channel: r.Channel, Strategy: r.Strategy, From: r.From, CreatedBy: r.By, Acting: r.Acting.Name,
		Settle: r.Settle, Limit: r.Limit, Life: r.Life, Threshold: r.Threshold, Repair: r.Repair, Manifests: r.Manifests, Status: r.Status, Result: r.Result(), Reason: r.PauseReason(), Broken: r.Broken,
		Waves: r.Waves, Wave: r.Wave, SettleUntil: r.SettleEnd().UTC().Round(0), CreatedAt: r.CreatedAt, EndedAt: r.EndedAt,
		GroupName: groups[stored.GroupID], Counts: map[rollout.NodeState]int{}, Revision: stored.Revision, Decision: r.Decision(), Nodes: []api.RolloutNode{},
	}
	for _, n := range r.Nodes {
		v.Nodes = append(v.Nodes, api.RolloutNode{ID: n.ID, State: n.State, Attempt: n.Attempt, Since: n.Since, Code: n.Code, Known: n.Known, Held: n.Hold})
		v.Counts[n.State]++
	}
	return r, v
}
