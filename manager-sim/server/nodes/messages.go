package nodes

import (
	"context"
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/bilbycast/edge-agent/manager-sim/api"
	"github.com/bilbycast/edge-agent/manager-sim/server/answer"
	"github.com/bilbycast/edge-agent/manager-sim/store"
	"github.com/bilbycast/edge-agent/wire"
)

// resend queues withdrawals and what the node has not acknowledged, oldest first. It queues nothing for
// a node whose identity two devices use.
func (s *session) resend(ctx context.Context) error {
	h := s.hub
	h.CommandLock.Lock()
	defer h.CommandLock.Unlock()
	n, err := h.Store.Node(ctx, s.nodeID)
	unreadable := errors.Is(err, store.ErrUnreadable)
	if unreadable { // it gets withdrawals, which do no harm
		s.blocked.Store(true)
		h.Log.Error().Str("node_id", s.nodeID).Err(err).Msg("no command is sent to a node whose record cannot be read")
	} else if err != nil || !n.Duplicate.Since.IsZero() {
		return err
	}
	cs, err := h.Store.Commands(ctx, s.nodeID, queueLen/2)
	if err != nil {
		return err
	}
	for _, c := range slices.Backward(cs) { // withdrawals first: a node has one upgrade at a time
		if c.State == store.CommandWithdrawn { // until the node answers, however late it returns
			s.sendCommand(c)
		}
	}
	for _, c := range slices.Backward(cs) {
		if (c.State == store.CommandPending || c.State == store.CommandSent) && !unreadable {
			s.sendCommand(c)
		}
	}
	return resendActions(ctx, s)
}

// withdrawSuffix follows the id of a command in the id of its withdrawal.
const withdrawSuffix = "-withdraw"

// sendCommand queues a command. Of a withdrawn one it queues the withdrawal, if the command
// was sent, the node has not answered, and obeys withdrawals. It reports whether it queued
// something.
func (s *session) sendCommand(c store.Command) bool {
	m := &wire.Command{CommandID: c.ID}
	switch {
	case c.State == store.CommandWithdrawn:
		refused := !c.AckedAt.IsZero() && !c.Success
		if c.SentAt.IsZero() || refused || !c.WithdrawAckedAt.IsZero() || !s.withdraws {
			return false
		}
		m = &wire.Command{CommandID: c.ID + withdrawSuffix, Action: wire.Action{Type: wire.ActionWithdraw, CommandID: c.ID}}
	default:
		if err := json.Unmarshal(c.Action, &m.Action); err != nil {
			s.hub.Log.Error().Str("command_id", c.ID).Err(err).Msg("stored command is unreadable")
			return false
		}
	}
	s.send(m)
	return true
}

// answerProbe answers the only message of a probe that has an answer.
func answerProbe(s *session, env wire.Envelope) {
	if _, ping := env.Message.(*wire.Ping); ping {
		s.send(&wire.Pong{})
	}
}

// handle stores the content of a message. An error is the store's.
func (s *session) handle(ctx context.Context, a arrival) error {
	switch m := a.env.Message.(type) {
	case *wire.Health:
		return s.health(ctx, a.at, m)
	case *wire.Event:
		return s.event(ctx, a.env.Time, m)
	case *wire.CommandAck:
		return s.ack(ctx, m)
	case *wire.Ping:
		s.send(&wire.Pong{})
	default:
		s.hub.Log.Debug().Str("node_id", s.nodeID).Type("message", m).Msg("message ignored")
	}
	return nil
}

func (s *session) health(ctx context.Context, now time.Time, m *wire.Health) error {
	n := store.Node{ID: s.nodeID, Version: m.Version, LastSeen: now, Capabilities: append([]string{}, m.Capabilities...),
		Health: m.Status, Unavailable: m.UpgradeUnavailable, Warnings: m.Warnings, Trial: m.TrialState(), Manifest: m.ManifestSHA256}
	if m.Hold != nil {
		n.Hold = &api.Hold{Reason: m.Hold.Reason, Since: m.Hold.Since}
	}
	if m.Upgrade != nil {
		b, err := json.Marshal(m.Upgrade)
		if err != nil {
			return err
		}
		n.Upgrade = b
		if p := m.Upgrade.Progress; p != nil && *p != s.progress {
			if n.ProgressAt = now; s.beats == 0 { // it may have reported the same in the session before
				if n.ProgressAt, err = knownProgress(ctx, s, *p, now); err != nil {
					return err
				}
			}
			s.progress = *p
		}
	}
	if err := s.hub.Store.RecordHealth(ctx, n); err != nil {
		return err
	}
	s.reported.Store(true)
	if !slices.Contains(m.Capabilities, wire.CapabilityUpgrade) {
		s.offers.Store(false)
	} else if !s.offers.Swap(true) && s.waiting.Swap(false) {
		sendMissed(s)
	}
	if s.blocked.Swap(false) { // what could not be read may have been repaired
		sendMissed(s)
	}
	s.hub.checkUptime(s, m.UptimeSecs, now)
	report := [...]string{n.Version, n.Health, n.Trial, n.Manifest}
	if s.beats++; s.beats == 1 || !slices.Equal(s.caps, m.Capabilities) || report != s.report {
		s.hub.NodeChanged(s.nodeID)
		s.caps, s.report = m.Capabilities, report
		s.hub.Publish(api.CapabilityRecord{Type: api.RecordCapabilities, Time: now.UTC(), NodeID: s.nodeID, Version: m.Version, Capabilities: n.Capabilities})
	}
	return nil
}

func (s *session) event(ctx context.Context, at time.Time, m *wire.Event) error {
	h := s.hub
	details, err := answer.Encode(m.Details)
	if err != nil {
		return err
	}
	e := api.Event{
		EventID: m.EventID, NodeID: s.nodeID, Time: at, ReceivedAt: time.Now().UTC(), Severity: string(m.Severity), Category: m.Category,
		Message: m.Message, ErrorCode: string(m.Details.ErrorCode), CommandID: m.Details.CommandID, Details: details,
	}
	added, err := h.addEvent(ctx, &e)
	if err != nil {
		return err
	}
	if m.EventID != "" {
		s.send(&wire.EventAck{EventIDs: []string{m.EventID}})
	}
	if added {
		h.Metrics.EventStored(e.Severity) // one of release.Severities
		h.Log.Info().Str("node_id", s.nodeID).Str("command_id", e.CommandID).Str("error_code", e.ErrorCode).Msg(e.Message)
		h.NodeChanged(s.nodeID)
	}
	return nil
}

func (s *session) ack(ctx context.Context, m *wire.CommandAck) error {
	h := s.hub
	if id, ok := strings.CutSuffix(m.CommandID, withdrawSuffix); ok {
		changed, err := h.Store.RecordWithdrawAck(ctx, s.nodeID, id, m.Success, time.Now())
		if changed {
			h.Log.Info().Str("node_id", s.nodeID).Str("command_id", id).Bool("success", m.Success).Str("error", m.Error).Msg("withdrawal acknowledged")
			h.NodeChanged(s.nodeID)
		}
		if err == nil {
			select {
			case s.answers <- id:
			default:
			}
		}
		return err
	}
	c := store.Command{ID: m.CommandID, NodeID: s.nodeID, AckedAt: time.Now(), Success: m.Success, ErrorCode: string(m.ErrorCode), Error: m.Error}
	if m.Data != nil {
		b, err := json.Marshal(m.Data)
		if err != nil {
			return err
		}
		c.Data = b
	}
	first, err := h.Store.RecordAck(ctx, c)
	if err == nil && !first {
		return actionAck(ctx, s, m)
	}
	if err == nil {
		h.Metrics.CommandAcknowledged(c.Success)
		h.Log.Info().Str("node_id", s.nodeID).Str("command_id", c.ID).Bool("success", c.Success).Str("error_code", c.ErrorCode).Msg("command acknowledged")
		h.Publish(api.AckRecord{Type: api.RecordAck, Time: time.Now().UTC(), NodeID: s.nodeID, CommandID: c.ID, Success: c.Success, ErrorCode: c.ErrorCode})
		h.NodeChanged(s.nodeID)
	}
	return err
}

// knownProgress returns when a node reported progress of which this is the first report in a
// session: now, or the zero time if the session before reported the same.
func knownProgress(ctx context.Context, s *session, p wire.Progress, now time.Time) (time.Time, error) {
	n, err := s.hub.Store.Node(ctx, s.nodeID)
	if errors.Is(err, store.ErrUnreadable) {
		return now, nil
	}
	if err != nil {
		return now, err
	}
	var before struct{ Progress *wire.Progress }
	if json.Unmarshal(n.Upgrade, &before) == nil && before.Progress != nil && *before.Progress == p {
		return time.Time{}, nil
	}
	return now, nil
}
