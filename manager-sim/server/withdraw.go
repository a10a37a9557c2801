package server

import (
	"net/http"

	"github.com/bilbycast/edge-agent/manager-sim/api"
	"github.com/bilbycast/edge-agent/manager-sim/server/answer"
)

// withdraw withdraws a node's command.
func withdraw(h *nodeRoutes, w http.ResponseWriter, r *http.Request) {
	var body api.Withdrawal
	if !readBody(w, r, &body) {
		return
	}
	reason, ok := checkReason(w, body.Reason)
	if !ok {
		return
	}
	n, ok := h.views.fromPath(w, r)
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
		h.get(w, r)
	}
}
