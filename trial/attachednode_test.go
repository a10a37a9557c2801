package trial

import "slices"

// attachedDesign is what the search tries: the rules of the package, and how the evidence
// for them is gathered. The zero value of each field but rules and changes is what nodes do.
type attachedDesign struct {
	rules   Rules
	changes uint8 // lost requests, a removed drop-in, a broken path unit, a blip of the dependency, in one run
	cuts    uint8 // ends of the machine in a row, each within ten minutes of a start

	see     func(Seen) Seen                               // takes away what the agent sees
	leave   Act                                           // is not done
	answers func(Own, Dependency, bool) (Own, Dependency) // takes away what a round of checks says; the operator's word
	refuses func(service, unitKind) bool                  // before the swap; nil: refusedUnit

	only *service // unless nil, no other is searched

	noBaseline         bool // the service may be stopped at the swap, or its dependency down
	asksOnce           bool // a request is made once a start
	notesInMemory      bool // a condemned start is not noted on disk
	namesNoStart       bool // a note does not name the start
	startsStopped      bool // a request starts a stopped service
	agentClock         bool // the window is the agent's, and so are the failed rounds
	activatingIsSilent bool // an activating unit gives no answer
	firstStartOnly     bool // first_start_secs are for the first start, whether its check passed or not
}

// refusedUnit reports whether an upgrade is refused before the swap.
func refusedUnit(s service, k unitKind) bool {
	return k == preventUnit || k == remainUnit || k == leavingUnit || k == notifyUnit && s == slowService
}

// attachedNode is one state of an agent, the unit beside it, and their world.
type attachedNode struct {
	service service
	own     ownCheck
	kind    unitKind

	// On disk.
	phase           phase
	faults, excused uint8
	began           bool  // the new version was started since the swap
	counted         bool  // the present start is in the record of starts
	noted           uint8 // a verdict against the present start: 1 noted, 2 counted (namesNoStart)
	reverted        bool  // the agent moved current back
	accepted        bool
	failed          uint8 // rounds of this start
	passedOnce      bool  // its check has passed in this trial
	newerPossible   bool
	asked, once     bool // a request is pending; it was made in this start
	// How the start before ended, if that is not counted yet.
	ended             ended
	endNoted, endCalm bool

	// Of the unit and the world.
	unit       unitState
	starts     uint8 // 0, 1, 2 or more
	age        uint8 // quarters of a window since its start
	idle       uint8 // quarters of a window without a start
	calm       bool  // this start ran for ten minutes
	migrated   bool  // the first start did its work
	byOperator bool  // an operator stopped it
	ownStop    bool  // the agent's own request ended it, and no start followed
	dropIn     bool  // its unit has the agent's drop-in, with the watchdog
	path       pathUnit
	dependency bool
	hadNoWorld bool  // the dependency was down at the swap
	changes    uint8 // so far (attachedDesign)
	short      uint8 // ends of the machine in a row, each within ten minutes of a start

	// Of the agent's process.
	live      bool
	holds     uint8 // quarters for which the check passed
	agentAge  uint8
	step      uint8 // the next part of a round
	before    bool  // the dependency answered before the own check
	answer    uint8 // of the own check
	condemned bool  // notesInMemory
	changed   bool  // the dependency changed in this round
	noAnswer  bool  // the next check cannot be run
	blip      bool  // the dependency is down during the next check alone

	wrong wrong
}

const isUndone phase = 100 // current points back, and the version was never started

// pathUnit is the unit that serves requests.
type pathUnit uint8

const (
	pathWorks pathUnit = iota
	pathFailed
	pathMasked
)

// wrong is a promise that the step to this state broke.
type wrong uint8

const (
	nothingWrong wrong = iota
	condemnedSound
	condemnedUnasked
	countedSound
	startedStopped
)

func (n *attachedNode) endRound() { n.step, n.answer, n.before, n.changed = 0, 0, false, false }

func (n *attachedNode) agentEnds(d *attachedDesign) {
	n.live, n.holds, n.agentAge, n.condemned = false, 0, 0, false
	n.endRound()
	if d.agentClock {
		n.failed = 0
	}
}

// seen is what the agent sees. Each request that a broken unit does not serve is unserved:
// the time until then is not modelled.
func (d *attachedDesign) seen(n *attachedNode) Seen {
	limit := uint8(aWindow)
	if n.service == slowService && (!d.firstStartOnly && !n.passedOnce || d.firstStartOnly && n.starts <= 1) {
		limit = aFirstStart
	}
	age := n.age
	if d.agentClock {
		age = n.agentAge
	}
	s := Seen{
		Unit: Up, Began: n.began, Counted: n.counted, Noted: n.noted == 1 || n.condemned, Reverted: n.reverted,
		Held: n.holds >= 2, Over: age >= limit,
		Asked: n.asked, Unserved: n.asked && n.path != pathWorks, Mendable: n.path == pathFailed,
		OwnStop: n.ownStop, Waited: n.idle >= aWindow, Offered: n.newerPossible,
	}
	switch n.unit {
	case starting:
		s.Unit, s.Retries, s.Queued, s.Stuck = Between, n.ended == byFault, n.ended != byFault, n.idle >= aWindow
	case isStopped:
		s.Unit = Stopped
	case hasFailed:
		s.Unit = Down
	}
	if d.see != nil {
		s = d.see(s)
	}
	return s
}

// act is the next thing that the agent does, or "".
func (d *attachedDesign) act(n *attachedNode) string {
	if n.phase != onTrial || !n.live {
		return ""
	}
	if n.step != 0 {
		return d.round(n)
	}
	act := d.seen(n).Next()
	if act == d.leave {
		return ""
	}
	switch act {
	case CountStart:
		d.count(n)
	case NoteEnd:
		n.noted = 1
	case Ask:
		if n.asked || d.asksOnce && n.once {
			return ""
		}
		n.asked, n.once = true, true
	case Mend:
		n.agentEnds(d)
		n.live, n.path = true, pathWorks
	case TakeBack:
		n.phase, n.asked = isUndone, false
	case Keep:
		n.phase = isKept
	case Judge:
		return d.round(n)
	case Offer:
		n.newerPossible = true
	default:
		return ""
	}
	return string(act)
}

var answersOfChecks = [...]Own{NotRun, Passes, Fails, CannotTell}

// round is the next part of a round of checks.
func (d *attachedDesign) round(n *attachedNode) string {
	switch {
	case n.step == 0 && n.own.dependency():
		n.step, n.before = 1, n.dependency
		return "the dependency is asked before"
	case n.step <= 1:
		own := n.check(d)
		if own == Fails && n.service == soundService && n.dependency && !n.blip && n.unit == newRuns {
			n.wrong = condemnedSound
		}
		if !n.own.dependency() {
			return d.judge(n, own)
		}
		n.step, n.answer = 2, uint8(slices.Index(answersOfChecks[:], own))
		return string(own)
	}
	return d.judge(n, answersOfChecks[n.answer])
}

// judge is the end of a round.
func (d *attachedDesign) judge(n *attachedNode, own Own) string {
	dep := Dependency{Set: n.own.dependency(), Before: n.before, After: n.dependency}
	if d.answers != nil {
		own, dep = d.answers(own, dep, n.accepted)
	}
	n.endRound()
	failed, finding := d.rules.Checks(int(n.failed), own, dep, n.accepted)
	n.failed = uint8(failed)
	switch finding {
	case Well, NoEvidence:
		n.newerPossible = true
	case Waived:
		n.phase = isKept
	case Condemned:
		if n.service.sound() && !n.own.blind() {
			n.wrong = condemnedSound
		} else if n.service.sound() && n.hadNoWorld {
			n.wrong = condemnedUnasked
		}
		if d.notesInMemory {
			n.condemned = true
		} else {
			n.noted = 1
		}
	}
	return string(finding)
}

// count is the function that the watchdog runs at each start, and the agent for a start
// without a watchdog. It counts how the start before ended.
func (d *attachedDesign) count(n *attachedNode) {
	e := End{How: ByOperator, Noted: n.endNoted, Calm: n.endCalm}
	switch n.ended {
	case byFault:
		e.How = ByItself
	case byMachine:
		e.How = ByMachine
	}
	if d.namesNoStart {
		if e.Noted = n.noted > 0; n.noted == 2 && n.service.sound() {
			n.wrong = countedSound
		}
		n.noted = min(2, n.noted*2)
	}
	if n.ended != byNothing || e.Noted {
		c, counts := d.rules.Count(Counts{int(n.faults), int(n.excused)}, e)
		n.faults, n.excused = uint8(min(c.Faults, maxFaults)), uint8(min(c.Excused, 20))
		if counts && !e.Noted && n.service.sound() && (e.How == ByOperator || !n.own.blind()) {
			n.wrong = countedSound
		}
		n.reverted = n.reverted || d.rules.Over(c, maxFaults, 0)
	}
	n.ended, n.endNoted, n.endCalm, n.counted = byNothing, false, false, true
}

// start is a start of the unit. It fails with the unit's dependency, and is not tried again.
func (d *attachedDesign) start(n *attachedNode) {
	if n.kind == boundUnit && !n.dependency {
		n.unit = isStopped
		return
	}
	if !d.namesNoStart {
		n.noted = 0
	}
	n.endCalm = n.endCalm || n.calm
	if !n.began { // it ended the previous version
		n.ended, n.endNoted, n.endCalm = byNothing, false, false
	}
	n.calm, n.counted = false, false
	if n.dropIn {
		d.count(n)
	}
	if n.reverted {
		n.phase, n.unit = isBack, newRuns
		return
	}
	n.began, n.starts = true, min(2, n.starts+1)
	n.unit, n.age, n.holds, n.failed, n.idle = newRuns, 0, 0, 0, 0
	n.byOperator, n.ownStop, n.newerPossible, n.once = false, false, false, false
	if !d.startsStopped { // a request names the start that it ends
		n.asked = false
	}
}

// next returns every step that can follow n.
func (d *attachedDesign) next(n attachedNode, out []step[attachedNode]) []step[attachedNode] {
	out = out[:0]
	if n.phase != onTrial {
		return out
	}
	n.wrong = nothingWrong
	add := func(name string, t attachedNode) { out = append(out, step[attachedNode]{name, t}) }
	t := n
	if n.unit == starting {
		d.start(&t)
		add("start", t)
		t = n
		t.idle = min(t.idle+1, aWindow)
		add("a quarter of a window, and the start waits for another unit", t)
	} else {
		add(d.tick(&t), t)
	}
	t = n
	if name := d.act(&t); name != "" {
		add(name, t)
		chance := func(set func(t *attachedNode, on bool), cost uint8) {
			u := n
			set(&u, true)
			name := d.act(&u)
			if set(&u, false); u != t {
				u.changes += cost
				add(name, u)
			}
		}
		chance(func(t *attachedNode, on bool) { t.noAnswer = on }, 0)
		if n.changes < d.changes {
			chance(func(t *attachedNode, on bool) { t.blip = on }, 1)
		}
	}
	if n.asked && n.path == pathWorks {
		t := n
		add(t.serve(d), t)
	}
	d.surroundings(n, add)
	return out
}
