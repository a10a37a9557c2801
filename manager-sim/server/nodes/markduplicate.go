package nodes

import (
	"time"

	"github.com/bilbycast/edge-agent/manager-sim/api"
	"github.com/bilbycast/edge-agent/release"
)

// answeredReplaced counts that the device of a replaced session answered the close
// frame.
func (h *Hub) answeredReplaced(s *session) {
	other := s.address
	if by := h.presence.session(s.nodeID); by != nil {
		other = by.address
	}
	if h.duplicates.answered(s.nodeID, time.Now()) {
		h.markDuplicate(s.nodeID, s.address, other)
	}
}

// checkUptime counts what the uptime in a health beat shows.
func (h *Hub) checkUptime(s *session, secs int64, now time.Time) {
	if other, proved := h.duplicates.uptime(s, secs, now); proved {
		h.markDuplicate(s.nodeID, other, s.address)
	}
}

// markDuplicate records that two devices, with the addresses a and b, use a node's
// identity. It reports that as an event, once until an operator resolves it.
func (h *Hub) markDuplicate(nodeID, a, b string) {
	now := time.Now().UTC()
	ctx := h.ctx // the session that proves it may have ended
	d := api.Duplicate{Addresses: []string{a, b}, Since: now}
	marked, err := h.Store.MarkDuplicate(ctx, nodeID, d)
	if err != nil {
		h.Log.Error().Str("node_id", nodeID).Err(err).Msg("duplicate identity not recorded")
		return
	}
	if !marked {
		return
	}
	e := api.Event{NodeID: nodeID, Time: now, ReceivedAt: now, Severity: string(release.Critical), Category: "identity", ErrorCode: api.CodeDuplicateIdentity,
		Message: "two devices use the identity of this node; " + d.From() + ". No command is sent to either until an operator resolves it",
		Details: []byte("{}")}
	h.Log.Error().Str("node_id", nodeID).Str("error_code", api.CodeDuplicateIdentity).Strs("addresses", []string{a, b}).Msg(e.Message)
	if _, err := h.addEvent(ctx, &e); err != nil {
		h.Log.Error().Str("node_id", nodeID).Err(err).Msg("event not stored")
	}
	h.NodeChanged(nodeID)
}
