package nodes

import (
	"context"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/bilbycast/edge-agent/manager-sim/api"
	"github.com/bilbycast/edge-agent/manager-sim/store"
	"github.com/bilbycast/edge-agent/wire"
)

// presence knows the session of each node that is online, and records when nodes
// connect and disconnect.
type presence struct {
	Config
	duplicates *duplicates
	changing   sync.Mutex           // makes one step of a change of a node's session and its record
	unrecorded map[string]time.Time // when sessions ended that the store did not take, by node; guarded by changing

	mu       sync.Mutex
	sessions map[string]*session // by node
}

// session returns the node's session, or nil.
func (p *presence) session(nodeID string) *session {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.sessions[nodeID]
}

// sessionAfterChange is session, after a change that is being recorded.
func (p *presence) sessionAfterChange(nodeID string) *session {
	p.changing.Lock()
	defer p.changing.Unlock()
	return p.session(nodeID)
}

func (p *presence) all() []*session {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Collect(maps.Values(p.sessions))
}

// connect records that a node authenticated, and makes s its session, in one step: the
// end of the session before is recorded earlier, or not at all.
func (p *presence) connect(ctx context.Context, s *session, auth *wire.Auth, now time.Time) error {
	p.changing.Lock()
	defer p.changing.Unlock()
	if at, ok := p.unrecorded[s.nodeID]; ok { // first, or its absence would not be known
		if err := p.Store.RecordDisconnect(ctx, s.nodeID, at); err != nil {
			return err
		}
		delete(p.unrecorded, s.nodeID)
	}
	if err := p.Store.RecordConnect(ctx, s.nodeID, auth.SoftwareVersion, s.address, now, auth.Features...); err != nil {
		return err
	}
	p.takeOver(s)
	return nil
}

// register adds a new node, and makes s its session, in one step.
func (p *presence) register(ctx context.Context, s *session, tokenHash string, n store.Node) error {
	p.changing.Lock()
	defer p.changing.Unlock()
	if err := p.Store.Register(ctx, tokenHash, n); err != nil {
		return err
	}
	s.nodeID = n.ID
	p.takeOver(s)
	return nil
}

// takeOver makes s the node's session, and ends the one before.
func (p *presence) takeOver(s *session) {
	s.lastFrame.Store(time.Now().Unix())
	p.mu.Lock()
	old := p.sessions[s.nodeID]
	p.sessions[s.nodeID] = s
	p.mu.Unlock()
	if old == nil {
		return
	}
	old.replaced.Store(true)
	if time.Since(time.Unix(old.lastFrame.Load(), 0)) < aliveFor {
		p.duplicates.replacedAlive(s, old)
	}
	old.cancel()
}

// disconnect ends s, unless another session has taken its place. The context of the
// session may be done.
func (p *presence) disconnect(ctx context.Context, s *session) {
	p.changing.Lock()
	p.mu.Lock()
	current := p.sessions[s.nodeID] == s
	if current {
		delete(p.sessions, s.nodeID)
	}
	p.mu.Unlock()
	if current {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), storeTime)
		err := p.Store.RecordDisconnect(ctx, s.nodeID, time.Now())
		cancel()
		if err != nil {
			p.unrecorded[s.nodeID] = time.Now()
			p.Log.Error().Str("node_id", s.nodeID).Err(err).Msg("end of a session not recorded; it is recorded when the node is back")
		}
	}
	p.changing.Unlock()
	if current {
		p.Publish(api.NodeRecord{Type: api.RecordDisconnected, Time: time.Now().UTC(), NodeID: s.nodeID})
		p.NodeChanged(s.nodeID)
	}
}
