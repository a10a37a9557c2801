package server

import (
	"context"
	"time"

	"github.com/bilbycast/edge-agent/manager-sim/api"
)

// came records that a node came, and makes ss its session, in one step: the record
// of its going, of the session before, is written earlier or not at all.
func (s *Server) came(ctx context.Context, ss *session, version string, now time.Time) error {
	s.presence.Lock()
	defer s.presence.Unlock()
	if err := s.Store.RecordConnect(ctx, ss.nodeID, version, ss.address, now); err != nil {
		return err
	}
	s.enter(ss)
	return nil
}

// enter makes ss the node's session, and ends the one before.
func (s *Server) enter(ss *session) {
	ss.lastFrame.Store(time.Now().Unix())
	s.mu.Lock()
	old := s.sessions[ss.nodeID]
	s.sessions[ss.nodeID] = ss
	s.mu.Unlock()
	if old == nil {
		return
	}
	old.replaced.Store(true)
	if time.Since(time.Unix(old.lastFrame.Load(), 0)) < aliveFor {
		s.mu.Lock()
		ss.displaced = &displaced{old.address, old.began}
		s.mu.Unlock()
	}
	old.cancel()
}

func (s *Server) leave(ss *session) {
	s.presence.Lock()
	s.mu.Lock()
	mine := s.sessions[ss.nodeID] == ss
	if mine {
		delete(s.sessions, ss.nodeID)
	}
	s.mu.Unlock()
	if mine {
		// The context of the session is done.
		if err := s.Store.RecordDisconnect(context.Background(), ss.nodeID, time.Now()); err != nil {
			s.Log.Error().Str("node_id", ss.nodeID).Err(err).Msg("disconnection is not recorded")
		}
	}
	s.presence.Unlock()
	if mine {
		s.stream.send(api.NodeRecord{Type: api.RecordDisconnected, Time: time.Now().UTC(), NodeID: ss.nodeID, Version: ""})
		s.stir(ss.nodeID)
	}
}

// online returns the node's session, or nil.
func (s *Server) online(nodeID string) *session {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.sessions[nodeID]
}
