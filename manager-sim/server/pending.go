package server

import (
	"errors"
	"net/http"
	"time"

	"github.com/bilbycast/edge-agent/manager-sim/api"
	"github.com/bilbycast/edge-agent/manager-sim/server/answer"
	"github.com/bilbycast/edge-agent/manager-sim/server/nodes"
	"github.com/bilbycast/edge-agent/manager-sim/store"
)

// pendingRoutes are the routes under /api/v1/pending-nodes.
type pendingRoutes struct {
	*gate
	hub         *nodes.Hub
	nodeChanged func(nodeID string)
}

func (h *pendingRoutes) list(w http.ResponseWriter, r *http.Request) {
	list := api.PendingNodeList{Nodes: []api.PendingNode{}}
	for _, n := range h.hub.Pending.List() {
		list.Nodes = append(list.Nodes, n.PendingNode)
	}
	answer.JSON(w, http.StatusOK, list)
}

// accept adds a pending node, which then authenticates with the credentials that it has.
func (h *pendingRoutes) accept(w http.ResponseWriter, r *http.Request) {
	var body api.Acceptance
	if !readOptional(w, r, &body) {
		return
	}
	p, err := h.hub.Pending.Get(r.PathValue("id"))
	if err != nil {
		h.storeFailed(w, err)
		return
	}
	if p.OtherAddress != "" {
		answer.Problem(w, http.StatusConflict, api.CodeContested, "two devices claim node %s with different secrets, from %s and %s: stop the wrong one, then remove this entry and wait until the right one is listed again", p.ID, p.Address, p.OtherAddress)
		return
	}
	n := store.Node{ID: p.ID, DeviceType: p.DeviceType, SecretHash: p.SecretHash, Version: p.Version, RegisteredAt: time.Now().UTC(), LastSeen: p.LastSeen, GroupID: body.GroupID, Address: p.Address}
	err = h.store.AcceptNode(r.Context(), n, entry(r, "node.accept", n.ID, map[string]any{"address": p.Address, "group_id": body.GroupID}))
	if err == nil || errors.Is(err, store.ErrExists) {
		h.hub.Pending.Remove(n.ID)
	}
	if err != nil {
		h.storeFailed(w, err)
		return
	}
	h.log.Info().Str("node_id", n.ID).Str("address", p.Address).Str("actor", requester(r).Name).Msg("node accepted with its own credentials")
	h.nodeChanged(n.ID)
	answer.JSON(w, http.StatusCreated, api.NodeAccepted{ID: n.ID})
}

func (h *pendingRoutes) dismiss(w http.ResponseWriter, r *http.Request) {
	p, err := h.hub.Pending.Get(r.PathValue("id"))
	if err == nil {
		err = h.store.AddAudit(r.Context(), entry(r, "node.dismiss", p.ID, map[string]any{"address": p.Address}))
	}
	if err != nil {
		h.storeFailed(w, err)
		return
	}
	h.hub.Pending.Dismiss(p)
	w.WriteHeader(http.StatusNoContent)
}
