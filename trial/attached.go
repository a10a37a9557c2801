package trial

// In attached mode the service is a unit beside its agent, and its own check is the only
// evidence about a version. The agent may die while the service lives, and the world (a
// dependency, a package manager, an operator, the unit that restarts the service) acts on
// the service. So a start is judged by the unit's times, not by the agent's; two failed
// rounds of checks end it; and it counts once, whoever counts it.

// Attached are the rules of counting in attached mode. A job that ends a start never
// counts: a package manager may restart a service as often as it likes. Ten good minutes
// clear nothing after a start that was condemned.
var Attached = Rules{MaxExcused: 9, CalmClears: true, JobsFree: true, NotedKeeps: true, RoundsPerStart: 2}

// Own is what the service's own check says.
type Own string

const (
	// Passes: the service is well.
	Passes Own = "passes"
	// Fails: it is not, or gave no answer in time, or its unit still activates.
	Fails Own = "fails"
	// CannotTell: the check says that it cannot know (exit status 75, HTTP 424).
	CannotTell Own = "cannot tell"
	// NotRun: the agent could not run the check, or systemd gave no answer. It says nothing.
	NotRun Own = "not run"
)

// Dependency is what [health] dependency said before and after the own check.
type Dependency struct{ Set, Before, After bool }

// Finding is what follows from a round of checks after a start's limit.
type Finding string

const (
	// Well: the check passed.
	Well Finding = "well"
	// NoEvidence: nothing speaks against the version. It is unproven.
	NoEvidence Finding = "no evidence"
	// Failed: the check failed, and the world was there.
	Failed Finding = "failed"
	// Condemned: it did so in two rounds. The start ends.
	Condemned Finding = "condemned"
	// Waived: the check cannot tell, and an operator accepted the version.
	Waived Finding = "waived"
)

// Checks judges one round of checks: dependency, own check, dependency. failed is how many
// rounds of this start failed in the ten minutes before (a margin, which the search of the
// tests does not have). accepted is an operator's word, which counts where the
// check cannot tell. It returns the new number of failed rounds.
func (r Rules) Checks(failed int, own Own, dep Dependency, accepted bool) (int, Finding) {
	up := dep.Before && dep.After
	switch {
	case own == Passes:
		return failed, Well
	case own == Fails && (up || !dep.Set):
	case own == CannotTell && dep.Set && up:
	case own == CannotTell && accepted:
		return failed, Waived
	default:
		return failed, NoEvidence
	}
	if failed++; failed >= r.RoundsPerStart {
		return failed, Condemned
	}
	return failed, Failed
}

// Unit is what systemd says of the service.
type Unit string

const (
	// Up: it runs, or activates.
	Up Unit = "up"
	// Between: systemd ends or starts it, or will.
	Between Unit = "between"
	// Stopped: it ended by a job, of an operator or of another unit, and nothing starts it.
	Stopped Unit = "stopped"
	// Down: it failed, and systemd does not restart it.
	Down Unit = "down"
)

// Seen is what the agent knows, at one moment, of a service on trial.
type Seen struct {
	Unit Unit
	// Retries and Queued: see Service. Stuck: the unit is Between for a window.
	Retries, Queued, Stuck bool
	// Began: the new version was started since the swap. Until then Unit is the old one's.
	Began bool
	// Counted: the present start, or the last one, is in the record of starts, or its watchdog
	// may still write it there.
	Counted bool
	// Noted: a verdict against that start is on disk, so it must end.
	Noted bool
	// Reverted: current points to the previous version again, and that start still runs.
	Reverted bool
	// Held: in that start, the own check has passed for health_hold_secs until now.
	Held bool
	// Over: the limit of that start is over (Limit).
	Over bool
	// Asked: a request to end the start is pending. Unserved: for a quarter of a window.
	Asked, Unserved bool
	// Mendable: the unit that serves requests is not active, and starts with the agent's. The
	// agent ends itself for it once only before the new version began: then TakeBack follows.
	Mendable bool
	// OwnStop: the agent's own request stopped the service, and its start failed with a
	// dependency.
	OwnStop bool
	// Waited: for a window nothing started the service.
	Waited bool
	// Offered: newer versions can be staged already.
	Offered bool
}

// Act is what the agent does next.
type Act string

const (
	// Wait: nothing.
	Wait Act = "wait"
	// CountStart: it counts the present start, which no watchdog did.
	CountStart Act = "count the start"
	// NoteEnd: it notes that the start failed.
	NoteEnd Act = "note that it ended"
	// Ask: it asks for the end of the start, by its invocation.
	Ask Act = "ask"
	// Mend: it ends itself, so that systemd starts what serves requests.
	Mend Act = "end itself"
	// TakeBack: it points current back, uncounted: the new version was never started.
	TakeBack Act = "take back"
	// Keep: the version becomes last-good.
	Keep Act = "keep"
	// Judge: it makes a round of checks, if a quarter of a window has passed since the last.
	Judge Act = "judge"
	// Offer: newer versions can be staged, since nobody starts this one.
	Offer Act = "offer"
)

// Next returns what the agent does about what it has seen.
func (s Seen) Next() Act {
	switch {
	case !s.Began && s.Waited && (s.Unit != Between || s.Queued): // a slow stop is not over
		return TakeBack
	case s.Unit == Between && s.Retries && s.Began && !s.Counted: // it may never be seen up
		return CountStart
	case s.Unit == Between && s.Stuck && !s.Offered:
		return Offer
	case s.Unit == Between:
		return Wait
	case s.Unit == Stopped && s.Waited && !s.Offered: // also where its dependency never returns
		return Offer
	case s.Unit == Stopped && !s.OwnStop:
		return Wait
	case s.Unit == Stopped, !s.Began, s.Reverted:
		return s.ask()
	case !s.Counted && !(s.Unit == Down && s.Noted):
		return CountStart
	case s.Unit == Down && !s.Noted:
		return NoteEnd
	case s.Noted:
		return s.ask()
	case s.Over && s.Held:
		return Keep
	case s.Over:
		return Judge
	}
	return Wait
}

// ask asks, and asks again while nothing serves the request.
func (s Seen) ask() Act {
	switch {
	case s.Asked && s.Unserved && s.Mendable:
		return Mend
	case s.Asked && !s.Unserved:
		return Wait
	}
	return Ask
}
