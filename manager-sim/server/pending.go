package server

import (
	"cmp"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/bilbycast/edge-agent/manager-sim/api"
	"github.com/bilbycast/edge-agent/manager-sim/store"
	"github.com/bilbycast/edge-agent/release"
	"github.com/bilbycast/edge-agent/wire"
	"github.com/google/uuid"
)

// Bounds of the nodes that wait to be accepted.
const (
	pendingInAll    = 1000
	pendingBySource = 100
	// pendingKept is how long a node stays in the list that does not try again;
	// pendingDismissed how long one is ignored that an operator removed from it.
	pendingKept      = 15 * time.Minute
	pendingDismissed = time.Hour
	maxPendingText   = 64 // bytes
)

// pendingNode is a node that waits, with what the API does not show.
type pendingNode struct {
	api.PendingNode
	hash      string // of its secret
	tries     int
	dismissed bool
}

// pendingNodes are nodes with credentials that the manager does not know. They are
// kept in memory only: each comes again within a minute.
type pendingNodes struct {
	mu sync.Mutex
	by map[string]*pendingNode
}

// add lists a node, and reports false if there is no room for it.
func (p *pendingNodes) add(n pendingNode) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.by == nil {
		p.by = make(map[string]*pendingNode)
	}
	p.expire(n.LastSeen)
	if old := p.by[n.ID]; old != nil {
		if old.hash != n.hash {
			old.OtherAddress = n.Address
			return true
		}
		n.FirstSeen, n.dismissed, n.OtherAddress, n.tries = old.FirstSeen, old.dismissed, old.OtherAddress, old.tries+1
		if n.dismissed {
			n.LastSeen = old.LastSeen // the hour does not begin again
		}
		*old = n
		return true
	}
	count, hidden := map[string]int{}, 0
	for _, o := range p.by {
		if o.dismissed {
			hidden++
		} else {
			count[o.Address]++
		}
	}
	if hidden >= pendingInAll {
		p.forget(func(o pendingNode) bool { return o.dismissed })
	}
	switch {
	case count[n.Address] >= pendingBySource:
		// A node that tries again and again stays; what came once makes room, so that a
		// device that makes up ids keeps nobody off the list.
		if !p.forget(func(o pendingNode) bool { return !o.dismissed && o.Address == n.Address && o.tries < 2 }) {
			return false
		}
	case len(p.by)-hidden >= pendingInAll:
		// The source that has the most gives way, if it has more than this one would.
		most := ""
		for address, k := range count {
			if k > count[most] {
				most = address
			}
		}
		if count[most] <= count[n.Address]+1 || !p.forget(func(o pendingNode) bool { return !o.dismissed && o.Address == most }) {
			return false
		}
	}
	n.tries = 1
	p.by[n.ID] = &n
	return true
}

// forget removes one of the nodes: of those that tried the least, the oldest.
func (p *pendingNodes) forget(of func(pendingNode) bool) bool {
	var found *pendingNode
	for _, o := range p.by {
		if of(*o) && (found == nil || o.tries < found.tries || o.tries == found.tries && o.LastSeen.Before(found.LastSeen)) {
			found = o
		}
	}
	if found == nil {
		return false
	}
	delete(p.by, found.ID)
	return true
}

func (p *pendingNodes) expire(now time.Time) {
	for id, n := range p.by {
		kept := pendingKept
		if n.dismissed {
			kept = pendingDismissed
		}
		if now.Sub(n.LastSeen) > kept {
			delete(p.by, id)
		}
	}
}

func (p *pendingNodes) list() []pendingNode {
	out := make([]pendingNode, 0, len(p.by))
	for _, n := range p.by {
		out = append(out, *n)
	}
	slices.SortFunc(out, func(a, b pendingNode) int { return cmp.Compare(a.ID, b.ID) })
	return out
}

// shown are those that an operator sees.
func (p *pendingNodes) shown() []pendingNode {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.expire(time.Now())
	return slices.DeleteFunc(p.list(), func(n pendingNode) bool { return n.dismissed })
}

// get returns a node that an operator sees.
func (p *pendingNodes) get(id string) (pendingNode, error) {
	for _, n := range p.shown() {
		if n.ID == id {
			return n, nil
		}
	}
	return pendingNode{}, fmt.Errorf("pending node %.80q: %w; a node that still tries is listed again within a minute", id, store.ErrNotFound)
}

func (p *pendingNodes) remove(id string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.by, id)
}

// dismiss hides a node for an hour.
func (p *pendingNodes) dismiss(id string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if n := p.by[id]; n != nil {
		n.dismissed, n.LastSeen = true, time.Now()
	}
}

// unknownNode lists a node that the manager does not know, and returns what it is
// told.
func (s *Server) unknownNode(source string, auth *wire.Auth) error {
	id, err := uuid.Parse(auth.NodeID)
	if err != nil || id.String() != auth.NodeID || auth.NodeSecret == "" {
		return &refusal{why: "not accepted: these are no credentials of a manager like this one"}
	}
	now := time.Now().UTC()
	added := s.pending.add(pendingNode{PendingNode: api.PendingNode{ID: auth.NodeID, Address: source, DeviceType: release.Foreign(auth.DeviceType, maxPendingText),
		Version: release.Foreign(auth.SoftwareVersion, maxPendingText), FirstSeen: now, LastSeen: now}, hash: Hash(auth.NodeSecret)})
	if !added {
		return &refusal{why: fmt.Sprintf("this manager does not know node %s, and its list of such nodes is full; an administrator can accept or dismiss those on the manager's page Nodes", auth.NodeID), pause: unknownPause}
	}
	return &refusal{why: fmt.Sprintf("this manager does not know node %s; an administrator can accept it on the manager's page Nodes", auth.NodeID), pause: unknownPause}
}

func (s *Server) listPending(w http.ResponseWriter, r *http.Request) {
	nodes := []api.PendingNode{}
	for _, n := range s.pending.shown() {
		nodes = append(nodes, n.PendingNode)
	}
	reply(w, http.StatusOK, api.PendingNodeList{Nodes: nodes})
}

// acceptPending adds a pending node, which then authenticates with the credentials
// that it has.
func (s *Server) acceptPending(w http.ResponseWriter, r *http.Request) {
	var body api.Acceptance
	if r.ContentLength != 0 && !readBody(w, r, &body) {
		return
	}
	p, err := s.pending.get(r.PathValue("id"))
	if err != nil {
		s.storeFailed(w, err)
		return
	}
	if p.OtherAddress != "" {
		fail(w, http.StatusConflict, api.CodeContested, "two devices claim node %s with different secrets, from %s and %s: stop the wrong one, then remove this entry and wait until the right one is listed again", p.ID, p.Address, p.OtherAddress)
		return
	}
	now := time.Now().UTC()
	n := store.Node{ID: p.ID, DeviceType: p.DeviceType, SecretHash: p.hash, Version: p.Version, RegisteredAt: now, LastSeen: p.LastSeen, GroupID: body.GroupID, Address: p.Address}
	err = s.Store.AcceptNode(r.Context(), n, audit(now, who(r).Name, "node.accept", n.ID, map[string]any{"address": p.Address, "group_id": body.GroupID}))
	if errors.Is(err, store.ErrExists) {
		s.pending.remove(n.ID)
	}
	if err != nil {
		s.storeFailed(w, err)
		return
	}
	s.pending.remove(n.ID)
	s.Log.Info().Str("node_id", n.ID).Str("address", p.Address).Str("actor", who(r).Name).Msg("node accepted with credentials of its own")
	s.stir(n.ID)
	reply(w, http.StatusCreated, api.NodeAccepted{ID: n.ID})
}

func (s *Server) dismissPending(w http.ResponseWriter, r *http.Request) {
	p, err := s.pending.get(r.PathValue("id"))
	if err == nil {
		err = s.Store.AddAudit(r.Context(), audit(time.Now().UTC(), who(r).Name, "node.dismiss", p.ID, map[string]any{"address": p.Address}))
	}
	if err != nil {
		s.storeFailed(w, err)
		return
	}
	if p.OtherAddress != "" { // whoever comes next is listed
		s.pending.remove(p.ID)
	} else {
		s.pending.dismiss(p.ID)
	}
	w.WriteHeader(http.StatusNoContent)
}
