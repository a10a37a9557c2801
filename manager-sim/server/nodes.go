package server

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/bilbycast/edge-agent/manager-sim/api"
	"github.com/bilbycast/edge-agent/manager-sim/server/answer"
	"github.com/bilbycast/edge-agent/manager-sim/server/nodes"
	"github.com/bilbycast/edge-agent/manager-sim/store"
	"github.com/bilbycast/edge-agent/release"
	"github.com/bilbycast/edge-agent/wire"
	"github.com/google/uuid"
)

// nodeRoutes are the routes under /api/v1/nodes.
type nodeRoutes struct {
	*gate
	views *nodeViews
	hub   *nodes.Hub
	lock  *sync.Mutex // engine.Config.CommandLock
}

func (h *nodeRoutes) list(w http.ResponseWriter, r *http.Request) {
	list, removed := h.store.Nodes, false
	q := query{r: r}
	if q.boolean("removed", &removed); q.failed(w) {
		return
	}
	if removed {
		list = h.store.RemovedNodes
	}
	ctx, unreadable := store.CountUnreadable(r.Context())
	all, err := list(ctx)
	if err != nil {
		h.storeFailed(w, err)
		return
	}
	prefix := strings.ToLower(q.text("id_prefix"))
	all = slices.DeleteFunc(all, func(n store.Node) bool { return !requester(r).In(n.GroupID) || !strings.HasPrefix(n.ID, prefix) })
	page, next, ok := pageOf(w, r, all, func(n store.Node) string { return n.ID })
	if !ok {
		return
	}
	if views, ok := h.views.list(w, r, page); ok {
		answer.JSON(w, http.StatusOK, api.NodeList{Nodes: views, Next: next, Unreadable: *unreadable})
	}
}

func (h *nodeRoutes) get(w http.ResponseWriter, r *http.Request) {
	n, ok := h.views.fromPath(w, r)
	if !ok {
		return
	}
	if views, ok := h.views.list(w, r, []store.Node{n}); ok {
		answer.JSON(w, http.StatusOK, views[0])
	}
}

func (h *nodeRoutes) commands(w http.ResponseWriter, r *http.Request) {
	n, ok := h.views.scopeFromPath(w, r) // the record of the node need not be readable
	if !ok {
		return
	}
	ctx, unreadable := store.CountUnreadable(r.Context())
	all, err := h.store.Commands(ctx, n.ID, -1)
	if err != nil {
		h.storeFailed(w, err)
		return
	}
	page, next, ok := pageOf(w, r, all, func(c store.Command) string { return c.ID })
	if !ok {
		return
	}
	list := api.CommandList{Commands: make([]api.Command, len(page)), Next: next, Unreadable: *unreadable}
	for i, c := range page {
		list.Commands[i] = c.API()
	}
	answer.JSON(w, http.StatusOK, list)
}

func (h *nodeRoutes) connections(w http.ResponseWriter, r *http.Request) {
	n, ok := h.views.fromPath(w, r)
	if !ok {
		return
	}
	cs, err := h.store.Connections(r.Context(), n.ID)
	if err != nil {
		h.storeFailed(w, err)
		return
	}
	answer.JSON(w, http.StatusOK, api.ConnectionList{Connections: cs})
}

func (h *nodeRoutes) upgrade(w http.ResponseWriter, r *http.Request) {
	var body api.NodeUpgrade
	if !readBody(w, r, &body) {
		return
	}
	if _, err := release.ParseVersion(body.Version); err != nil {
		answer.Problem(w, http.StatusBadRequest, string(release.VersionInvalid), "%v", err)
		return
	}
	body.Channel = cmp.Or(body.Channel, release.DefaultChannel)
	for what, name := range map[string]string{"channel": body.Channel, "target_arch": body.TargetArch, "variant": body.Variant} {
		if err := release.CheckName(what, name); name != "" && err != nil {
			badRequest(w, err)
			return
		}
	}
	if body.LimitSecs != 0 && (body.LimitSecs < api.MinLimitSecs || body.LimitSecs > api.MaxLimitSecs) {
		badRequest(w, fmt.Errorf("limit_secs is not %d to %d", api.MinLimitSecs, api.MaxLimitSecs))
		return
	}
	n, ok := h.views.fromPath(w, r)
	if !ok {
		return
	}
	if !body.AllowUnlisted {
		if f := h.views.engine.Catalogue.Refusal(r.Context(), n.DeviceType, body.Channel, body.Version); f != nil {
			answer.Problem(w, http.StatusConflict, f.Code, "%s", f.Detail())
			return
		}
	}
	c := store.Command{ID: uuid.NewString(), NodeID: n.ID, Version: body.Version, Channel: body.Channel, CreatedAt: time.Now().UTC(), Actor: requester(r).Name, Acting: requester(r).Key(), Repair: body.Repair, Replaces: body.Replaces,
		Limit: time.Duration(body.LimitSecs) * time.Second}
	var err error
	c.Action, err = json.Marshal(wire.Action{Type: wire.ActionUpgrade, Version: body.Version, Channel: body.Channel, TargetArch: body.TargetArch, Variant: body.Variant, Repair: body.Repair})
	if err != nil {
		h.storeFailed(w, err)
		return
	}
	f, err := h.views.engine.Commands.Request(r.Context(), c, body.Replace)
	switch {
	case err != nil:
		h.storeFailed(w, err)
	case f != nil:
		answer.Problem(w, http.StatusConflict, f.Code, "%s", f.Detail())
	default:
		h.log.Info().Str("node_id", n.ID).Str("command_id", c.ID).Str("to", c.Version).Str("actor", c.Actor).Bool("repair", c.Repair).Msg("upgrade requested")
		answer.JSON(w, http.StatusAccepted, api.CommandCreated{CommandID: c.ID})
	}
}

// remove revokes a node's secret and ends its session. Active rollouts skip the node.
// Its history stays. A node whose record cannot be read can be removed, too.
func (h *nodeRoutes) remove(w http.ResponseWriter, r *http.Request) {
	reason, ok := readReason(w, r)
	if !ok {
		return
	}
	scope, ok := h.views.scopeFromPath(w, r)
	if !ok {
		return
	}
	n, err := h.store.Node(r.Context(), scope.ID)
	if err != nil && !errors.Is(err, store.ErrUnreadable) { // then the record has what could be read
		h.storeFailed(w, err)
		return
	}
	err = h.store.RemoveNode(r.Context(), scope.ID, time.Now().UTC(), entry(r, "node.remove", scope.ID,
		map[string]any{"reason": reason, "device_type": n.DeviceType, "version": n.Version, "group_id": scope.GroupID}))
	if err != nil {
		h.storeFailed(w, err)
		return
	}
	h.log.Info().Str("node_id", scope.ID).Str("actor", requester(r).Name).Msg("node removed")
	h.hub.Disconnect(r.Context(), scope.ID)
	h.views.engine.Wake() // so that rollouts skip it
	w.WriteHeader(http.StatusNoContent)
}

// resolve ends a node's mark as a duplicate, and sends it the commands that waited.
func (h *nodeRoutes) resolve(w http.ResponseWriter, r *http.Request) {
	n, ok := h.views.fromPath(w, r)
	if !ok {
		return
	}
	h.hub.ForgetDuplicate(n.ID) // first, so that later evidence counts as new
	if err := h.store.ClearDuplicate(r.Context(), n.ID, entry(r, "node.duplicate.resolve", n.ID, map[string]any{"addresses": n.Duplicate.Addresses})); err != nil {
		h.storeFailed(w, err)
		return
	}
	if err := nodes.Resend(r.Context(), h.hub, n.ID); err != nil {
		h.storeFailed(w, err)
		return
	}
	h.views.engine.NodeChanged(n.ID)
	h.get(w, r)
}

func (h *nodeRoutes) setGroup(w http.ResponseWriter, r *http.Request) {
	var body api.Membership
	if !readBody(w, r, &body) {
		return
	}
	id := r.PathValue("id")
	if _, ok := h.views.scopeFromPath(w, r); !ok || !h.inScope(w, r, body.GroupID) { // the old group and the new one
		return
	}
	if err := move(h, r, id, body.GroupID); err != nil {
		h.storeFailed(w, err)
		return
	}
	h.views.engine.NodeChanged(id) // so that the rollout of its previous group leaves it out
	answer.JSON(w, http.StatusOK, body)
}

// move moves a node, and withdraws its command if that has lost its reason.
func move(h *nodeRoutes, r *http.Request, id, groupID string) error {
	h.lock.Lock()
	defer h.lock.Unlock()
	return h.views.engine.Commands.Move(r.Context(), id, groupID, requester(r).Name, entry(r, "node.group.set", id, map[string]any{"group_id": groupID}))
}
