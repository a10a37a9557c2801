package trial

// What may be on trial, what the previous version can do, and what the manager's side
// does. One search has one of each, and tries every order of events.

// version is how the version on trial behaves.
type version uint8

const (
	good           version = iota
	crashesAtStart         // or exits, hangs, is OOM-killed, or its check fails
	crashesSoon            // after 30 s, its check having passed before
	crashesHeld            // after its check held, before ten minutes
	crashesLate            // after more than ten minutes
	panicsAtStart          // takes the machine down at once
	panicsHeld             // takes the machine down after its check held
	rebootsHeld            // reboots the machine cleanly after its check held
	linkFailsEarly         // before TLS: DNS, proxy
	linkFailsTLS           // rejects the manager's certificate
	linkFailsAuth          // is not authenticated: wire version, wrong answer
	losesCredentials
	sessionFails // is authenticated, but its session does not last
	noFiles      // cannot open a socket, cannot start a child; its check is well
	versions
)

func (v version) String() string {
	return [...]string{"good", "crashes at its start", "crashes after 30 s", "crashes after its check held", "crashes late", "panics the machine at once",
		"panics the machine after its check held", "reboots the machine after its check held", "its link fails early", "rejects the manager's CA",
		"is not authenticated", "destroys its credentials", "its session does not last", "has no file descriptors"}[v]
}

func (v version) ownFault() bool {
	return v >= crashesAtStart && v <= rebootsHeld && v != crashesLate || v == noFiles
}
func (v version) linkFault() bool { return v >= linkFailsEarly && v <= sessionFails }

// oldProbe is the probe of the previous version.
type oldProbe uint8

const (
	probeWorks  oldProbe = iota
	probeAbsent          // a build without a probe; its watchdog counts every start
	probeBroken          // crashes, or hangs without a word
	probeBlind           // works, but that version itself cannot connect
	oldProbes
)

func (p oldProbe) String() string {
	return [...]string{"probe works", "no probe", "probe broken", "the previous version cannot connect"}[p]
}

// manager is the manager's side, while the line is up.
type manager uint8

const (
	fair       manager = iota
	noManager          // urls = []
	refusesNew         // refuses the new version, and accepts the old one
	refusesBoth
	busyToAll       // answers 503
	busyOnce        // answers 503 to the first try of a start, with a Retry-After longer than the window
	ghost           // believes in the session from before the swap, and refuses a second one for some rounds
	intruder        // somebody in between, whose certificate only the old version accepts
	twoURLs         // the first of two managers is hostile, the second is fair
	closesAfterAuth // closes every session soon after its authentication
	rough           // every try stops somewhere, by chance
	managers
)

func (m manager) String() string {
	return [...]string{"fair manager", "no manager", "manager refuses the new version", "manager refuses both", "503 to all", "503 once, long Retry-After",
		"manager believes in a ghost session", "intruder that only the old version accepts", "two managers, the first hostile", "sessions closed after authentication", "rough line"}[m]
}

// Stages of a link, in order.
const (
	stageNone = 0
	stageTCP  = 2
	stageTLS  = 3
	stageOpen = 4 // the WebSocket is open
	stageAuth = 5
	stageHeld = 6
)

// Answers of the old version's probe that are no stage.
const silent, unable = 255, 254

// newStage is how far the version on trial gets now. It may change n.
func (d *design) newStage(n *node) uint8 {
	if !n.up {
		return stageNone
	}
	limit := uint8(stageHeld)
	switch n.manager {
	case refusesNew, refusesBoth:
		limit = stageOpen
	case busyToAll:
		limit = stageTLS
	case busyOnce:
		if !n.busy {
			n.busy, limit = true, stageTLS
		}
	case ghost:
		if n.ghost > 0 {
			n.ghost--
			limit = stageOpen
		}
	case intruder:
		limit = stageTCP
	case twoURLs:
		if d.oneURL {
			limit = stageOpen
		}
	case closesAfterAuth:
		limit = stageAuth
	case rough:
		limit = n.chance()
	}
	own := uint8(stageHeld)
	switch n.version {
	case linkFailsEarly, noFiles:
		own = stageNone
	case linkFailsTLS:
		own = stageTCP
	case linkFailsAuth, losesCredentials:
		own = stageOpen
	case sessionFails:
		own = stageAuth
	}
	return min(limit, own)
}

// oldStage is how far the probe of the previous version gets now.
func (d *design) oldStage(n *node) uint8 {
	switch {
	case n.version == noFiles:
		return unable
	case n.probe == probeAbsent, n.probe == probeBroken:
		return silent
	case n.probe == probeBlind, !n.up:
		return stageNone
	}
	limit := uint8(stageHeld)
	switch n.manager {
	case refusesBoth:
		limit = stageOpen
	case busyToAll:
		limit = stageTLS
	case closesAfterAuth:
		limit = stageAuth // a manager that cannot serve sessions holds no probe either
	case intruder:
		if !d.anyPeer {
			limit = stageTCP // not the peer of the last proven session: no evidence
		}
	case rough:
		limit = n.chance()
	}
	if n.credentialsLost && d.sharedCredentials {
		limit = min(limit, stageOpen)
	}
	if d.probeHoldsNothing {
		limit = min(limit, stageAuth)
	}
	if n.version == linkFailsAuth && d.authOnlyAfterRefusal {
		limit = min(limit, stageOpen) // its own authentication is not refused, but unanswered
	}
	return limit
}

func (n *node) chance() uint8 {
	if n.luck {
		return stageAuth
	}
	return stageTCP
}
