package server

import (
	"errors"
	"net/http"

	"github.com/bilbycast/edge-agent/manager-sim/api"
	"github.com/bilbycast/edge-agent/manager-sim/server/answer"
	"github.com/bilbycast/edge-agent/manager-sim/store"
)

// withdraw withdraws a node's command. The record of the node need not be readable.
func withdraw(h *nodeRoutes, w http.ResponseWriter, r *http.Request) {
	var body api.Withdrawal
	if !readBody(w, r, &body) {
		return
	}
	reason, ok := checkReason(w, body.Reason)
	if !ok {
		return
	}
	n, ok := h.views.scopeFromPath(w, r)
	if !ok {
		return
	}
	details := map[string]any{"command_id": body.CommandID}
	if reason != "" {
		details["reason"] = reason
	}
	f, err := h.views.engine.Commands.Withdraw(r.Context(), n.ID, body.CommandID, requester(r).Name, entry(r, "node.upgrade.withdraw", n.ID, details))
	switch {
	case err != nil:
		h.storeFailed(w, err)
	case f != nil:
		answer.Problem(w, http.StatusConflict, f.Code, "%s", f.Detail())
	default:
		h.log.Info().Str("node_id", n.ID).Str("command_id", body.CommandID).Str("actor", requester(r).Name).Msg("upgrade withdrawn")
		h.views.engine.NodeChanged(n.ID)
		h.getReadable(w, r)
	}
}

// getReadable is get, with what can be read of the node's record.
func (h *nodeRoutes) getReadable(w http.ResponseWriter, r *http.Request) {
	n, err := h.store.Node(r.Context(), r.PathValue("id"))
	if !errors.Is(err, store.ErrUnreadable) {
		h.get(w, r)
		return
	}
	s, ok := h.views.scopeFromPath(w, r)
	if !ok {
		return
	}
	n.ID, n.GroupID, n.Capabilities, n.Upgrade = s.ID, s.GroupID, []string{}, nil
	if views, ok := h.views.list(w, r, []store.Node{n}); ok {
		answer.JSON(w, http.StatusOK, views[0])
	}
}
