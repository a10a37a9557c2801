package nodes

import (
	"bytes"
	"context"
	"errors"
	"time"

	"github.com/bilbycast/edge-agent/manager-sim/api"
	"github.com/bilbycast/edge-agent/manager-sim/store"
	"github.com/bilbycast/edge-agent/wire"
)

// SendAction sends a stored command to an author's action, if its node is online. Otherwise the
// node gets it when it authenticates. The caller holds CommandLock.
func SendAction(h *Hub, a store.Action) {
	if s := h.presence.session(a.NodeID); s != nil {
		sendAction(s, a)
	}
}

func sendAction(s *session, a store.Action) {
	s.send(&wire.Command{CommandID: a.ID, Action: wire.Action{Type: a.Action, Params: a.Params}})
}

// resendActions queues the commands to author's actions that the node has not answered, oldest
// first. CommandLock is held.
func resendActions(ctx context.Context, s *session) error {
	open, err := s.hub.Store.OpenActions(ctx, s.nodeID)
	if err != nil {
		return err
	}
	for _, a := range open {
		if s.hub.Age(a.CreatedAt) < a.Life {
			sendAction(s, a)
		} else if err := s.hub.Store.ExpireAction(ctx, a.ID); err != nil {
			return err
		}
	}
	return nil
}

// recordActionSent is recordSent for a command to an author's action. CommandLock is held.
func recordActionSent(ctx context.Context, s *session, id string) error {
	h := s.hub
	a, err := h.Store.Action(ctx, s.nodeID, id)
	if err != nil {
		return blockedBy(s, err)
	}
	if h.Age(a.CreatedAt) >= a.Life {
		return errors.Join(store.ErrNotSendable, h.Store.ExpireAction(ctx, id))
	}
	if a.SentAt.IsZero() && h.MayAct != nil {
		n, err := h.Store.NodeScope(ctx, s.nodeID)
		if err != nil {
			return blockedBy(s, err)
		}
		may, err := h.MayAct(ctx, a.Acting, n.GroupID)
		if err != nil { // also of a requester whose record cannot be read: the command waits
			return blockedBy(s, err)
		}
		if !may {
			entry := store.NewAuditEntry(time.Now(), "manager", "node.action.withdraw", s.nodeID, map[string]any{"command_id": id, "reason": store.ReasonRights})
			return errors.Join(store.ErrNotSendable, h.Store.WithdrawAction(ctx, id, "manager", store.ReasonRights, entry))
		}
	}
	return h.Store.RecordActionSent(ctx, id, time.Now())
}

// actionAck stores the answer to a command to an author's action, if m is one.
func actionAck(ctx context.Context, s *session, m *wire.CommandAck) error {
	h := s.hub
	a := store.Action{ID: m.CommandID, NodeID: s.nodeID, AckedAt: time.Now(), Success: m.Success, ErrorCode: string(m.ErrorCode), Error: m.Error}
	if m.Result != nil { // JSON of Go allows what no database does
		a.Result = bytes.ToValidUTF8(m.Result, []byte("\uFFFD"))
	}
	first, err := h.Store.RecordActionAck(ctx, a)
	if err == nil && first {
		h.Metrics.CommandAcknowledged(a.Success)
		h.Log.Info().Str("node_id", s.nodeID).Str("command_id", a.ID).Bool("success", a.Success).Str("error_code", a.ErrorCode).Int("result_bytes", len(a.Result)).Msg("action answered")
		h.Publish(api.AckRecord{Type: api.RecordAck, Time: time.Now().UTC(), NodeID: s.nodeID, CommandID: a.ID, Success: a.Success, ErrorCode: a.ErrorCode})
	}
	return err
}
