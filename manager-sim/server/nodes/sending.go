package nodes

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/bilbycast/edge-agent/manager-sim/store"
	"github.com/bilbycast/edge-agent/wire"
)

// recordSent records, within bounded time, that a command or a withdrawal is sent now. The wait
// for CommandLock, behind the commands of all other nodes, does not count. It returns
// store.ErrNotSendable if that was decided otherwise since it was queued, or if MaySend does not
// allow it any more. Then it queues the withdrawal, if there is one.
func recordSent(ctx context.Context, s *session, m *wire.Command) error {
	h, withdrawal := s.hub, m.Action.Type == wire.ActionWithdraw
	if !withdrawal {
		h.CommandLock.Lock()
		defer h.CommandLock.Unlock()
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), storeTime)
	defer cancel()
	if withdrawal {
		return h.Store.RecordWithdrawSent(ctx, m.Action.CommandID, time.Now())
	}
	if m.Action.Type != wire.ActionUpgrade {
		return recordActionSent(ctx, s, m.CommandID)
	}
	if err := checkSending(ctx, s, m.CommandID); err != nil {
		return err
	}
	return h.Store.RecordSent(ctx, m.CommandID, time.Now())
}

// withdrawLast sends the withdrawals of a node whose session is about to end, and waits, within
// bounded time, for the answers. The node is removed, so it never connects again.
func withdrawLast(ctx context.Context, s *session) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), answersTime)
	defer cancel()
	cs, err := s.hub.Store.Commands(ctx, s.nodeID, queueLen/2)
	if err != nil {
		s.hub.Log.Error().Str("node_id", s.nodeID).Err(err).Msg("withdrawals not sent before the end of the session")
		return
	}
	waiting := map[string]bool{}
	for _, c := range slices.Backward(cs) {
		if c.State == store.CommandWithdrawn && s.sendCommand(c) {
			waiting[c.ID] = true
		}
	}
	for len(waiting) > 0 {
		select {
		case id := <-s.answers:
			delete(waiting, id)
		case <-s.ended:
			return
		case <-ctx.Done():
			return
		}
	}
}

// checkSending returns an error unless MaySend allows that a command is sent now. What may not
// be sent because the node offers no upgrades, or has not reported its health in this session,
// is sent when it offers them. CommandLock is held.
func checkSending(ctx context.Context, s *session, id string) error {
	h := s.hub
	if h.MaySend == nil {
		return nil
	}
	n, err := h.Store.Node(ctx, s.nodeID)
	if err != nil {
		return blockedBy(s, err)
	}
	c, err := h.Store.Command(ctx, id)
	if err != nil {
		return blockedBy(s, err)
	}
	another := s.waiting.Swap(true) // before offers is read; see health
	if !s.offers.Load() {
		n.Capabilities = nil // the store may have those of an earlier session
	}
	ok, err := h.MaySend(ctx, c, n)
	if ok && !another {
		s.waiting.Store(false)
	}
	if ok {
		return nil
	}
	h.NodeChanged(s.nodeID) // its rollout may have to pause
	if err != nil {
		return blockedBy(s, err)
	}
	if c, err = h.Store.Command(ctx, id); err != nil {
		return blockedBy(s, err)
	}
	if c.State == store.CommandWithdrawn {
		s.sendCommand(c)
	}
	return fmt.Errorf("command %q: %w", id, store.ErrNotSendable)
}

// blockedBy returns why a command is not sent. An error that is about one record, of the node,
// the command or its requester, is store.ErrNotSendable: the session stays, and tries again at the
// next health beat.
func blockedBy(s *session, err error) error {
	if !errors.Is(err, store.ErrUnreadable) && !errors.Is(err, store.ErrNotFound) {
		return err
	}
	s.blocked.Store(true)
	s.hub.Log.Error().Str("node_id", s.nodeID).Err(err).Msg("command waits: a record cannot be read")
	return fmt.Errorf("%w: %w", store.ErrNotSendable, err)
}
