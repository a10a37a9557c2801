package nodes

import (
	"sync"
	"time"
)

// Two devices with one identity (a cloned disk image) end each other's sessions again
// and again. A single device does that, too, when its network changes: its new
// connection arrives before the manager notices the end of the old one. The difference
// is whether the device of the old connection is still connected.
const (
	// closePatience is how long the device of a replaced session may take to answer the
	// close frame. Only a process that is still connected answers.
	closePatience   = 3 * time.Second
	duplicateProofs = 2 // within duplicateWindow
	// A device whose network changes may look alive for aliveFor after its last frame,
	// but its sessions replace each other rarely.
	aliveFor        = 20 * time.Second
	maxReplaced     = 4 // sessions that looked alive, within replacedWindow
	replacedWindow  = 2 * time.Minute
	duplicateWindow = 10 * time.Minute
	// uptimeTolerance is more than a health beat may be late. A process started when its
	// uptime says. For one process that moment only moves forward.
	uptimeTolerance = time.Minute
	maxUptime       = 100 * 365 * 24 * time.Hour
	maxSuspicions   = 10_000 // nodes that are remembered; beyond it all are forgotten
)

// evidence is what a session shows about its device.
type evidence struct {
	started     startTime        // earliest start of the process that a health beat showed
	contradicts bool             // the start contradicts another session
	replaced    *replacedSession // that this session replaced, until the first health beat
}

// replacedSession is a session that was replaced while it looked alive.
type replacedSession struct {
	address string
	started startTime // of its process; zero: not known
}

// suspicion is what suggests that two devices use the identity of one node.
type suspicion struct {
	replaced []time.Time // sessions were replaced while they looked alive
	proofs   []time.Time // their devices answered, or an older process connected
	// The latest start of a process of the node, the session that showed it, and the
	// address of that session.
	started startTime
	serial  uint64
	address string
}

// duplicates collects evidence that two devices use one identity. It decides; the Hub
// records.
type duplicates struct {
	mu sync.Mutex // also guards the evidence of all sessions
	by map[string]*suspicion
}

// of returns the suspicion about a node. mu is held.
func (d *duplicates) of(nodeID string) *suspicion {
	p := d.by[nodeID]
	if p == nil {
		if d.by == nil || len(d.by) >= maxSuspicions {
			d.by = make(map[string]*suspicion)
		}
		p = &suspicion{}
		d.by[nodeID] = p
	}
	return p
}

func (d *duplicates) forget(nodeID string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.by, nodeID)
}

// replacedAlive notes that s replaced old, which looked alive.
func (d *duplicates) replacedAlive(s, old *session) {
	d.mu.Lock()
	defer d.mu.Unlock()
	s.evidence.replaced = &replacedSession{old.address, old.evidence.started}
}

// answered counts that the device of a replaced session answered the close frame. It
// reports whether that proves two devices.
func (d *duplicates) answered(nodeID string, now time.Time) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	p := d.of(nodeID)
	p.proofs = within(p.proofs, now, duplicateWindow)
	return len(p.proofs) >= duplicateProofs
}

// uptime compares when the process of s started with the latest known start of the
// node. It reports whether that proves two devices, and the address of the other one.
//
// A health beat may arrive late, which makes a start look later than it was. So the
// earliest start of a session counts, and one contradiction is not enough.
func (d *duplicates) uptime(s *session, secs int64, now time.Time) (other string, proved bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	p, e := d.of(s.nodeID), &s.evidence
	other = p.address
	if uptime := time.Duration(secs) * time.Second; secs > 0 && secs < int64(maxUptime/time.Second) {
		started := startTime{now.Add(-uptime), now.Round(0).Add(-uptime)}
		if e.started.mono.IsZero() || started.mono.Before(e.started.mono) {
			e.started = started
		}
		switch {
		case p.serial == s.serial:
			p.started = e.started
		case e.started.before(p.started, uptimeTolerance) && !e.contradicts:
			e.contradicts = true
			p.proofs = within(p.proofs, now, duplicateWindow)
			proved = len(p.proofs) >= duplicateProofs
		case e.started.mono.After(p.started.mono):
			p.serial, p.started, p.address = s.serial, e.started, s.address
		}
	}
	if e.replaced != nil {
		other = e.replaced.address
	}
	return other, p.countReplaced(e, now) || proved
}

// countReplaced counts, at the first health beat of a session, that it replaced one that
// looked alive, and reports whether that proves two devices. If both sessions show the
// same process, one device has reconnected.
func (p *suspicion) countReplaced(e *evidence, now time.Time) (proved bool) {
	old := e.replaced
	if e.replaced = nil; old == nil {
		return false
	}
	if !e.started.mono.IsZero() && !old.started.mono.IsZero() && !e.started.before(old.started, uptimeTolerance) && !old.started.before(e.started, uptimeTolerance) {
		p.replaced = nil
		return false
	}
	p.replaced = within(p.replaced, now, replacedWindow)
	return len(p.replaced) >= maxReplaced
}

// within appends now to times, and removes what is older than the window.
func within(times []time.Time, now time.Time, window time.Duration) []time.Time {
	for len(times) > 0 && now.Sub(times[0]) >= window {
		times = times[1:]
	}
	return append(times, now)
}

// startTime is when a process started, by the manager's monotonic clock and by its wall
// clock. Each can be wrong: the first stands still while the manager's host is
// suspended, and the second can be set. Only what both show counts.
type startTime struct{ mono, wall time.Time }

// before reports whether t is before u by more than the tolerance.
func (t startTime) before(u startTime, tolerance time.Duration) bool {
	return t.mono.Before(u.mono.Add(-tolerance)) && t.wall.Before(u.wall.Add(-tolerance))
}
