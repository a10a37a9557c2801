// Package trial holds the rules by which a node judges a version on trial. They are pure
// functions: the watchdog and the agent gather the evidence, and call them.
//
// A version is kept when its own check has held and its link to the manager is proven. It
// is rolled back by its own fault (Count), or when the previous version reached the
// manager between two failures of the new one (Round). Everything else leaves it
// running, unproven, with the way back intact.
//
// In attached mode the service is a unit beside its agent. Its own check, and the check of
// its dependency, are the evidence (Checks). What the agent does next follows from what it
// sees (Seen.Next), and its starts count by the same function, with the rules Attached.
//
// The package's tests search the orders of events of both modes for one in which a healthy
// version is rolled back, a bad one stays, or last-good moves without proof. They also show
// that each rule is needed.
package trial

// Rules are the bounds of a trial. Default has those that nodes follow.
type Rules struct {
	// MaxExcused is how many starts in a row may end by the machine, or by an operator
	// before the version was ready, without being counted. A version that takes the
	// machine down each time must not go on for ever.
	MaxExcused int
	// CalmClears: a start that ran well for ten minutes clears what was counted before it.
	CalmClears bool
	// NotedKeeps: it clears nothing if a verdict against it was recorded.
	NotedKeeps bool
	// JobsFree: a start that a job ended never counts, ready or not.
	JobsFree bool
	// RoundsPerStart and Rounds are how many contradicting rounds end a start, and the
	// trial. Zero Rounds: only the starts count.
	RoundsPerStart, Rounds int
	// MuteRounds is how many rounds in a row without an answer end a start if the previous version
	// had no probe that answers before the swap.
	MuteRounds int
}

// Default are the rules that nodes follow.
var Default = Rules{MaxExcused: 9, CalmClears: true, RoundsPerStart: 2, Rounds: 6, MuteRounds: 2}

// How is what ended a start.
type How string

const (
	// ByItself: systemd restarted the service by itself, after an exit, a signal or a
	// timeout.
	ByItself How = "by itself"
	// ByOperator: a job ended it, of an operator or of another unit.
	ByOperator How = "by an operator"
	// ByMachine: the machine was rebooted, or lost its power.
	ByMachine How = "by the machine"
	// Unknown: systemd did not answer. In the same boot such a start counts.
	Unknown How = "unknown"
)

// End is how a start of the version on trial ended.
type End struct {
	How   How
	Noted bool // a verdict against the version was recorded in this start
	Ready bool // its own check had passed, and READY=1 was sent
	Calm  bool // it ran well for ten minutes
}

// Counts is what the ended starts of a trial amount to.
type Counts struct {
	Faults  int // starts that count against the version
	Excused int // ends that were not counted, since the last calm start
}

// Count returns the counts after a start that ended as e, and whether that start counts
// against the version.
func (r Rules) Count(c Counts, e End) (Counts, bool) {
	calm := e.Calm && r.CalmClears && !(e.Noted && r.NotedKeeps)
	if calm {
		c = Counts{}
	}
	fault := e.Noted || e.How == ByItself || e.How == Unknown
	switch {
	case fault, calm, e.How == ByOperator && (e.Ready || r.JobsFree):
	case c.Excused >= r.MaxExcused:
		fault = true
	default:
		c.Excused++
	}
	if fault {
		c.Faults++
	}
	return c, fault
}

// Over reports whether the trial has failed: its starts are used up, or so many rounds
// contradict the version.
func (r Rules) Over(c Counts, maxFaults, rounds int) bool {
	return c.Faults >= maxFaults || r.Rounds > 0 && rounds >= r.Rounds
}

// Old is what the probe of the previous version found.
type Old string

const (
	// OldHeld: it was authenticated, and its connection was held. Nothing less counts.
	OldHeld Old = "held"
	// OldFailed: it got no further than the new version, or not to the end.
	OldFailed Old = "failed"
	// OldSilent: it gave no answer, or was not tried.
	OldSilent Old = "silent"
	// OldUnable: it could not be started, for a lack of files, processes or memory.
	OldUnable Old = "could not be started"
)

// Link is what a start knows of the version's link to the manager.
type Link struct {
	Proven bool // a session was held in this start
	Rounds int  // contradicting rounds of this start
	Total  int  // contradicting rounds of the trial
	Mute   int  // rounds in a row without an answer of the probe
}

// Verdict is what follows from a round.
type Verdict string

const (
	// Continue: nothing follows; the next round comes.
	Continue Verdict = ""
	// Contradicted: the previous version reached the manager, and this one did not, too
	// often. The start ends.
	Contradicted Verdict = "contradicted"
	// Exhausted: the version has used up what a child process needs. The start ends.
	Exhausted Verdict = "exhausted"
	// Unanswered: there is no evidence, and none can come. The start ends.
	Unanswered Verdict = "unanswered"
)

// Round judges one round: the new version tries its link, then the probe of the previous
// version does, then the new version tries again. proven is whether one of the two tries
// of the new version held. probed is whether the previous version's probe answered before
// the swap.
func (r Rules) Round(l Link, proven bool, old Old, probed bool) (Link, Verdict) {
	switch {
	case proven: // what contradicted it before was chance
		l.Proven, l.Total = true, 0
	case old == OldUnable:
		return l, Exhausted
	case old == OldSilent:
		if l.Mute++; !probed && l.Mute >= r.MuteRounds {
			return l, Unanswered
		}
	case old == OldHeld:
		l.Mute = 0
		l.Rounds++
		l.Total++
		if l.Rounds >= r.RoundsPerStart || r.Rounds > 0 && l.Total >= r.Rounds {
			return l, Contradicted
		}
	default:
		l.Mute = 0
	}
	return l, Continue
}

// Result is what a version on trial has reached.
type Result string

const (
	// Open: its check has not held yet.
	Open Result = "open"
	// Unproven: its check has held, its link is not proven. It serves, and newer versions
	// can be staged; rolling back means last-good.
	Unproven Result = "unproven"
	// Kept: it becomes last-good.
	Kept Result = "kept"
)

// Settle returns what a version has reached. held is whether its check has held to the
// end of the guard, proven whether its link is proven in this start, and waived whether
// that proof is not needed: an operator accepted the version, or the node has no manager.
// Nothing waives the check.
func Settle(held, proven, waived bool) Result {
	switch {
	case !held:
		return Open
	case proven || waived:
		return Kept
	}
	return Unproven
}
