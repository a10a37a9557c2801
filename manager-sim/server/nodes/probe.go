package nodes

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"

	"github.com/bilbycast/edge-agent/manager-sim/store"
	"github.com/bilbycast/edge-agent/wire"
	"github.com/gorilla/websocket"
)

// A probe is a connection by which a node finds out whether its link and its credentials
// are good, beside its session. It does not replace the session, and no record of the
// node, no event and no counter shows it. A node uses what it finds as evidence against
// its own version, so a probe succeeds only where a session would.

// probesByNode is how many probes of one node are kept; with more, its oldest one ends.
// Each of the 16 URLs that a node may have can be the same manager.
const probesByNode = 32

var errEnding = errors.New("sessions cannot be served now")

// probes are the authenticated probes, by node.
type probes struct {
	mu sync.Mutex
	by map[string][]*session // oldest first
}

// identify accepts a probe whose credentials are right, while sessions can be served.
func (p *probes) identify(ctx context.Context, s *session, auth *wire.Auth) error {
	if auth.NodeID == "" {
		return &refusal{reason: "not accepted: a probe needs the credentials of a node"}
	}
	err := checkCredentials(ctx, s.hub.Store, auth)
	if errors.Is(err, store.ErrNotFound) {
		return &refusal{reason: fmt.Sprintf("this manager does not know node %s", auth.NodeID)}
	}
	if err != nil {
		return err
	}
	s.nodeID = auth.NodeID
	if s.hub.ending.Load() {
		return errEnding
	}
	// What the store does for a session.
	if err := s.hub.Store.CheckConnect(ctx, s.nodeID); err != nil {
		return err
	}
	_, err = s.hub.Store.Commands(ctx, s.nodeID, 1)
	return err
}

// serve keeps an authenticated probe until the node or ctx ends it.
func (p *probes) serve(ctx context.Context, s *session) error {
	s.socket.conn.SetReadLimit(maxAuth)
	p.enter(s)
	defer p.leave(s)
	defer startWriter(ctx, s)()
	err := s.readAll(ctx)
	if websocket.IsCloseError(err, websocket.CloseNormalClosure) {
		return nil
	}
	return err
}

func (p *probes) enter(s *session) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.by == nil {
		p.by = make(map[string][]*session)
	}
	list := append(p.by[s.nodeID], s)
	if len(list) > probesByNode {
		list[0].end(websocket.CloseTryAgainLater, "this node has too many probes")
		list = slices.Delete(list, 0, 1)
	}
	p.by[s.nodeID] = list
}

func (p *probes) leave(s *session) {
	p.mu.Lock()
	defer p.mu.Unlock()
	list := slices.DeleteFunc(p.by[s.nodeID], func(o *session) bool { return o == s })
	if p.by[s.nodeID] = list; len(list) == 0 {
		delete(p.by, s.nodeID)
	}
}

// of returns the probes of a node.
func (p *probes) of(nodeID string) []*session {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.by[nodeID])
}

func (p *probes) all() (list []*session) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, some := range p.by {
		list = append(list, some...)
	}
	return list
}
