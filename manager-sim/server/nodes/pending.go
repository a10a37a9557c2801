package nodes

import (
	"cmp"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/bilbycast/edge-agent/manager-sim/api"
	"github.com/bilbycast/edge-agent/manager-sim/server/secret"
	"github.com/bilbycast/edge-agent/manager-sim/store"
	"github.com/bilbycast/edge-agent/release"
	"github.com/bilbycast/edge-agent/wire"
	"github.com/google/uuid"
)

// Bounds of the pending nodes.
const (
	pendingInAll    = 1000
	pendingBySource = 100
	// pendingKept is how long a node stays in the list after its last attempt.
	// pendingDismissed is how long a node is ignored that an operator dismissed.
	pendingKept      = 15 * time.Minute
	pendingDismissed = time.Hour
	maxPendingText   = 64 // bytes
)

// PendingNode is a node whose credentials the manager does not know.
type PendingNode struct {
	api.PendingNode
	SecretHash string
	attempts   int
	dismissed  bool
}

// Pending is the list of pending nodes. It is in memory only, because each node tries
// again within a minute. The zero value is ready.
type Pending struct {
	mu sync.Mutex
	by map[string]*PendingNode
}

// refuse lists a node that the manager does not know, and returns the refusal.
func (p *Pending) refuse(source string, auth *wire.Auth) error {
	id, err := uuid.Parse(auth.NodeID)
	if err != nil || id.String() != auth.NodeID || auth.NodeSecret == "" {
		return &refusal{reason: "not accepted: these are no credentials of a manager like this one"}
	}
	now := time.Now().UTC()
	added := p.add(PendingNode{PendingNode: api.PendingNode{ID: auth.NodeID, Address: source, DeviceType: release.Foreign(auth.DeviceType, maxPendingText),
		Version: release.Foreign(auth.SoftwareVersion, maxPendingText), FirstSeen: now, LastSeen: now}, SecretHash: secret.Hash(auth.NodeSecret)})
	if !added {
		return &refusal{reason: fmt.Sprintf("this manager does not know node %s, and its list of such nodes is full; an administrator can accept or dismiss those on the manager's page Nodes", auth.NodeID), pause: unknownPause}
	}
	return &refusal{reason: fmt.Sprintf("this manager does not know node %s; an administrator can accept it on the manager's page Nodes", auth.NodeID), pause: unknownPause}
}

// add lists a node, and reports false if there is no room for it.
func (p *Pending) add(n PendingNode) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.by == nil {
		p.by = make(map[string]*PendingNode)
	}
	p.expire(n.LastSeen)
	if old := p.by[n.ID]; old != nil {
		if old.SecretHash != n.SecretHash {
			old.OtherAddress = n.Address
			return true
		}
		n.FirstSeen, n.dismissed, n.OtherAddress, n.attempts = old.FirstSeen, old.dismissed, old.OtherAddress, old.attempts+1
		if n.dismissed {
			n.LastSeen = old.LastSeen // the hour does not begin again
		}
		*old = n
		return true
	}
	if !p.makeRoom(n.Address) {
		return false
	}
	n.attempts = 1
	p.by[n.ID] = &n
	return true
}

// makeRoom removes a node if needed, and reports whether one of the address can be
// added.
func (p *Pending) makeRoom(address string) bool {
	count, hidden := map[string]int{}, 0
	for _, o := range p.by {
		if o.dismissed {
			hidden++
		} else {
			count[o.Address]++
		}
	}
	if hidden >= pendingInAll {
		p.removeOne(func(o PendingNode) bool { return o.dismissed })
	}
	switch {
	case count[address] >= pendingBySource:
		// A node that tries repeatedly stays. One that tried once makes room, so that a
		// device that makes up ids keeps no other off the list.
		return p.removeOne(func(o PendingNode) bool { return !o.dismissed && o.Address == address && o.attempts < 2 })
	case len(p.by)-hidden >= pendingInAll:
		// The source that has the most makes room, if it has more than this one would have.
		most := ""
		for a, k := range count {
			if k > count[most] {
				most = a
			}
		}
		return count[most] > count[address]+1 && p.removeOne(func(o PendingNode) bool { return !o.dismissed && o.Address == most })
	}
	return true
}

// removeOne removes one of the nodes that match: of those with the fewest attempts, the
// oldest. It reports whether there was one.
func (p *Pending) removeOne(match func(PendingNode) bool) bool {
	var found *PendingNode
	for _, o := range p.by {
		if match(*o) && (found == nil || o.attempts < found.attempts || o.attempts == found.attempts && o.LastSeen.Before(found.LastSeen)) {
			found = o
		}
	}
	if found == nil {
		return false
	}
	delete(p.by, found.ID)
	return true
}

func (p *Pending) expire(now time.Time) {
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

// List returns the nodes that were not dismissed, by id.
func (p *Pending) List() []PendingNode {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.expire(time.Now())
	list := make([]PendingNode, 0, len(p.by))
	for _, n := range p.by {
		if !n.dismissed {
			list = append(list, *n)
		}
	}
	slices.SortFunc(list, func(a, b PendingNode) int { return cmp.Compare(a.ID, b.ID) })
	return list
}

// Get returns a node of List. The error wraps store.ErrNotFound.
func (p *Pending) Get(id string) (PendingNode, error) {
	for _, n := range p.List() {
		if n.ID == id {
			return n, nil
		}
	}
	return PendingNode{}, fmt.Errorf("pending node %.80q: %w; a node that still tries is listed again within a minute", id, store.ErrNotFound)
}

// Remove removes a node that was accepted. If it tries again it is listed again.
func (p *Pending) Remove(id string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.by, id)
}

// Dismiss hides a node for an hour. A node that another device contests is removed:
// the next one that tries is listed.
func (p *Pending) Dismiss(n PendingNode) {
	if n.OtherAddress != "" {
		p.Remove(n.ID)
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if n := p.by[n.ID]; n != nil {
		n.dismissed, n.LastSeen = true, time.Now()
	}
}
