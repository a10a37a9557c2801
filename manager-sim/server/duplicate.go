package server

import (
	"net/http"
	"time"

	"github.com/bilbycast/edge-agent/manager-sim/api"
	"github.com/bilbycast/edge-agent/release"
)

// Two devices with one identity (a cloned disk image) end each other's sessions
// without end. A single device does that, too: when its network changes, its new
// connection comes before the manager sees the end of the old one. What tells the
// two cases apart is whether the device of the old connection is still there.
const (
	// closePatience is how long the device of a session that was replaced may take to
	// answer the close frame. Only a process that is still connected answers.
	closePatience   = 3 * time.Second
	duplicateProofs = 2 // within duplicateWindow
	// A device whose network changes may look alive for aliveFor after its last frame,
	// but its sessions replace each other rarely.
	aliveFor        = 20 * time.Second
	displacedLive   = 4 // sessions that looked alive, within displacedWindow
	displacedWindow = 2 * time.Minute
	duplicateWindow = 10 * time.Minute
	// uptimeSlack is more than a health beat may be late. A process started when its
	// uptime says; that moment only moves forward, unless there are two processes.
	uptimeSlack = time.Minute
	maxUptime   = 100 * 365 * 24 * time.Hour
)

// suspicion is what suggests that two devices use one node's identity.
type suspicion struct {
	replaced []time.Time // sessions that looked alive were replaced
	proofs   []time.Time // and their devices answered, or an older process came
	// The latest start of a process of the node, the session that showed it, and its
	// address.
	began   startTime
	serial  uint64
	address string
}

// displaced is a session that looked alive and was replaced.
type displaced struct {
	address string
	began   startTime // of its device's process; zero: not known
}

const maxSuspicions = 10_000 // nodes remembered; beyond, the memory is cleared

// suspect returns the suspicion of a node. s.mu is held.
func (s *Server) suspect(nodeID string) *suspicion {
	d := s.suspicions[nodeID]
	if d == nil {
		if len(s.suspicions) >= maxSuspicions {
			clear(s.suspicions)
		}
		d = &suspicion{}
		s.suspicions[nodeID] = d
	}
	return d
}

// within appends now to times, without what is older than the window.
func within(times []time.Time, now time.Time, window time.Duration) []time.Time {
	for len(times) > 0 && now.Sub(times[0]) >= window {
		times = times[1:]
	}
	return append(times, now)
}

// startTime is when a process started, by the manager's monotonic clock and by its wall
// clock. Neither is right always: the first stands still while the manager's host is
// suspended, the second is set. What both say counts.
type startTime struct{ mono, wall time.Time }

// before reports whether t is before u by more than slack.
func (t startTime) before(u startTime, slack time.Duration) bool {
	return t.mono.Before(u.mono.Add(-slack)) && t.wall.Before(u.wall.Add(-slack))
}

// displacedAlive counts that ss took the place of a session that looked alive, at the
// first beat of ss: if that shows the same process, one device has reconnected.
// s.mu is held.
func (s *Server) displacedAlive(d *suspicion, ss *session, now time.Time) (sure bool) {
	old := ss.displaced
	if ss.displaced = nil; old == nil {
		return false
	}
	if !ss.began.mono.IsZero() && !old.began.mono.IsZero() && !ss.began.before(old.began, uptimeSlack) && !old.began.before(ss.began, uptimeSlack) {
		d.replaced = nil
		return false
	}
	d.replaced = within(d.replaced, now, displacedWindow)
	return len(d.replaced) >= displacedLive
}

// answeredReplaced counts that the device of a session that was replaced answered
// the close frame.
func (s *Server) answeredReplaced(ss *session) {
	now := time.Now()
	other := ss.address
	if by := s.online(ss.nodeID); by != nil {
		other = by.address
	}
	s.mu.Lock()
	d := s.suspect(ss.nodeID)
	d.proofs = within(d.proofs, now, duplicateWindow)
	sure := len(d.proofs) >= duplicateProofs
	s.mu.Unlock()
	if sure {
		s.markDuplicate(ss.nodeID, ss.address, other)
	}
}

// sawUptime compares when the process of ss started with the latest start known of
// the node. A beat may arrive late, which makes a start look later than it was; so
// the earliest of a session counts, and one contradiction is not enough.
func (s *Server) sawUptime(ss *session, secs int64, now time.Time) {
	s.mu.Lock()
	d := s.suspect(ss.nodeID)
	other, sure := d.address, false
	if uptime := time.Duration(secs) * time.Second; secs > 0 && secs < int64(maxUptime/time.Second) {
		began := startTime{now.Add(-uptime), now.Round(0).Add(-uptime)}
		if ss.began.mono.IsZero() || began.mono.Before(ss.began.mono) {
			ss.began = began
		}
		switch {
		case d.serial == ss.serial:
			d.began = ss.began
		case ss.began.before(d.began, uptimeSlack) && !ss.older:
			ss.older = true
			d.proofs = within(d.proofs, now, duplicateWindow)
			sure = len(d.proofs) >= duplicateProofs
		case ss.began.mono.After(d.began.mono):
			d.serial, d.began, d.address = ss.serial, ss.began, ss.address
		}
	}
	if ss.displaced != nil {
		other = ss.displaced.address
	}
	sure = s.displacedAlive(d, ss, now) || sure
	s.mu.Unlock()
	if sure {
		s.markDuplicate(ss.nodeID, other, ss.address)
	}
}

// markDuplicate records that two devices use a node's identity, and reports it as an
// event, once until an operator resolves it.
func (s *Server) markDuplicate(nodeID, a, b string) {
	now := time.Now().UTC()
	ctx := s.ctx
	d := api.Duplicate{Addresses: []string{a, b}, Since: now}
	marked, err := s.Store.MarkDuplicate(ctx, nodeID, d)
	if err != nil {
		s.Log.Error().Str("node_id", nodeID).Err(err).Msg("duplicate identity is not recorded")
		return
	}
	if !marked {
		return
	}
	e := api.Event{NodeID: nodeID, Time: now, ReceivedAt: now, Severity: string(release.Critical), Category: "identity", ErrorCode: api.CodeDuplicateIdentity,
		Message: "two devices use the identity of this node; " + d.From() + ". No command is sent to either until an operator resolves it",
		Details: []byte("{}")}
	s.Log.Error().Str("node_id", nodeID).Str("error_code", api.CodeDuplicateIdentity).Strs("addresses", []string{a, b}).Msg(e.Message)
	if _, err := s.addEvent(ctx, &e); err != nil {
		s.Log.Error().Str("node_id", nodeID).Err(err).Msg("event is not stored")
	}
	s.stir(nodeID)
}

// resolveNode ends the mark of two devices with one identity.
func (s *Server) resolveNode(w http.ResponseWriter, r *http.Request) {
	n, ok := s.node(w, r)
	if !ok {
		return
	}
	s.mu.Lock()
	delete(s.suspicions, n.ID) // first: what comes late is the first of a new suspicion
	s.mu.Unlock()
	if err := s.Store.ClearDuplicate(r.Context(), n.ID, audit(time.Now().UTC(), who(r).Name, "node.duplicate.resolve", n.ID, map[string]any{"addresses": n.Duplicate.Addresses})); err != nil {
		s.storeFailed(w, err)
		return
	}
	if ss := s.online(n.ID); ss != nil { // what waited meanwhile
		if err := ss.resend(r.Context()); err != nil {
			s.storeFailed(w, err)
			return
		}
	}
	s.stir(n.ID)
	s.getNode(w, r)
}
