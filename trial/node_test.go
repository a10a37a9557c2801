package trial

// design is what the search tries: the rules of the package, and how the evidence for
// them is gathered. The zero value of each field but rules and name is what nodes do.
type design struct {
	name  string
	rules Rules

	noSystemd            bool // systemd does not say how a start ended
	shortGuard           bool // kept after 10 s, not after 60 s
	noBracket            bool // the new version does not try again after the probe
	furtherCounts        bool // the probe counts if it gets one stage further than the new version
	noBaseline           bool // the probe is not tried before the swap
	unableIsSilent       bool // a child that cannot be started is no evidence
	authOnlyAfterRefusal bool // the probe authenticates only where the new version was refused
	probeHoldsNothing    bool // the probe ends with its authentication
	anyPeer              bool // the probe counts whoever the peer is
	oneURL               bool // the first URL alone is judged
	sharedCredentials    bool // the probe reads the credentials that the new version may destroy
	unprovenAfterADay    bool // a newer version can be staged after a day, not once the check held
	acceptKeeps          bool // an accepted version is kept at once
	backToUnproven       bool // a newer version that fails goes back to the unproven one
}

const maxFaults = 3

// node is one state of a node and its surroundings. It is comparable: the key of a
// search.
type node struct {
	version version
	probe   oldProbe
	manager manager

	// On disk.
	phase           phase
	moved           bool // last-good is the new version
	faults, excused uint8
	total           uint8 // contradicting rounds
	newerPossible   bool  // it is unproven: a newer version can be staged
	accepted        bool
	calm            bool // this start ran well for ten minutes
	credentialsLost bool
	started         bool

	// Of the process.
	age    age
	ended  ended
	step   uint8 // the next part of a round
	newest uint8 // how far the new version came in this round
	old    uint8
	link   Link // of this start; its Total is on disk

	// Of the world.
	up    bool
	flips uint8
	ghost uint8
	busy  bool  // the first try of this start got its 503
	luck  bool  // where a rough line stops this try
	short uint8 // ends in a row that the environment made within ten minutes of a start

	// For the promises.
	proven   bool // its link was proven in this trial
	newer    bool // a newer version was staged, and failed
	byItself bool // rolled back without an operator
}

type phase uint8

const (
	onTrial phase = iota
	isKept
	isBack
	isAdrift // the unproven version runs, and nothing judges it any more
)

// age of a start, in phases.
type age uint8

const (
	off age = iota
	begun
	passed // its check passes for 10 s
	held   // for 60 s
	calm   // ten minutes
)

type ended uint8

const (
	byNothing ended = iota
	byFault
	byVerdict
	byOperatorEarly
	byOperatorReady
	byMachine
)

func (d *design) guard() age {
	if d.shortGuard {
		return passed
	}
	return held
}

// end ends the process.
func (n *node) end(why ended) {
	n.age, n.ended = off, why
	n.step, n.newest, n.old, n.busy = 0, 0, 0, false
	n.link = Link{}
}

func (n *node) rollBack() { n.phase, n.byItself, n.age = isBack, true, off }

// start is a start of the service: the watchdog comes first.
func (d *design) start(n *node) {
	if n.phase != onTrial {
		n.age = begun
		return
	}
	if n.probe == probeAbsent { // the watchdog of such a version counts every start
		if n.faults >= maxFaults {
			n.rollBack()
			return
		}
		n.faults++
	} else {
		c := Counts{int(n.faults), int(n.excused)}
		if n.started {
			c, _ = d.rules.Count(c, d.endOf(n))
			n.faults, n.excused = uint8(min(c.Faults, maxFaults)), uint8(c.Excused)
		}
		rounds := int(n.total)
		if n.accepted {
			rounds = 0
		}
		if d.rules.Over(c, maxFaults, rounds) {
			n.rollBack()
			return
		}
	}
	n.started = true
	n.age, n.calm, n.ended = begun, false, byNothing
}

// endOf is what the watchdog learns of how the start before ended.
func (d *design) endOf(n *node) End {
	e := End{Calm: n.calm}
	switch n.ended {
	case byFault:
		e.How = ByItself
	case byVerdict:
		e.How, e.Noted = ByItself, true
	case byOperatorEarly:
		e.How = ByOperator
	case byOperatorReady:
		e.How, e.Ready = ByOperator, true
	case byMachine:
		e.How = ByMachine
	}
	if d.noSystemd && e.How != ByMachine {
		e.How = Unknown
	}
	return e
}

// tick lets time pass.
func (d *design) tick(n *node) string {
	on := n.phase == onTrial || n.phase == isAdrift
	switch n.age {
	case begun:
		switch {
		case on && n.version == crashesAtStart:
			n.end(byFault)
			return "it ends, or its check does not hold in the window"
		case on && n.version == panicsAtStart:
			n.end(byMachine)
			return "it takes the machine down"
		}
		n.age = passed
		return "its check passes for 10 s"
	case passed:
		if on && n.version == crashesSoon {
			n.end(byFault)
			return "it crashes after 30 s"
		}
		n.age = held
		return "its check has passed for 60 s"
	case held:
		switch {
		case on && n.version == crashesHeld:
			n.end(byFault)
			return "it crashes after its check held"
		case on && (n.version == panicsHeld || n.version == rebootsHeld):
			n.end(byMachine)
			return "it takes the machine down"
		}
		n.age, n.short, n.calm = calm, 0, true
		return "ten minutes well"
	}
	if on && n.version == crashesLate {
		n.end(byFault)
		return "it crashes late"
	}
	if n.phase == onTrial && d.unprovenAfterADay {
		n.newerPossible = true
	}
	return "a day passes in one process"
}

// settle applies what a version has reached.
func (d *design) settle(n *node) {
	if n.phase != onTrial {
		return
	}
	switch Settle(n.age >= d.guard(), n.proven && n.newest == stageHeld, n.accepted || n.manager == noManager) {
	case Kept:
		n.phase, n.moved = isKept, true
	case Unproven:
		n.newerPossible = n.newerPossible || !d.unprovenAfterADay && n.probe != probeAbsent
	}
}

// judges reports whether the link is judged now: from READY=1 on.
func (d *design) judges(n *node) bool {
	return n.phase == onTrial && n.manager != noManager && n.age >= passed
}

// round is the next part of a round.
func (d *design) round(n *node) string {
	switch n.step {
	case 0, 2:
		stage := d.newStage(n)
		if n.version == losesCredentials {
			n.credentialsLost = true
		}
		if stage == stageHeld {
			n.step, n.newest, n.proven, n.total = 0, stageHeld, true, 0
			return "the new version's link is proven"
		}
		if n.step == 0 {
			n.newest, n.step = stage, 1
			return "the new version tries"
		}
		n.newest = max(n.newest, stage)
		return "the new version tries again; " + d.judge(n)
	}
	n.old = d.oldStage(n)
	if !d.noBracket && n.old < unable {
		n.step = 2
		return "the previous version probes"
	}
	return "the previous version probes; " + d.judge(n)
}

// judge is the end of a round.
func (d *design) judge(n *node) string {
	old := OldFailed
	switch {
	case n.old == unable && !d.unableIsSilent:
		old = OldUnable
	case n.old >= unable:
		old = OldSilent
	case n.old == stageHeld, d.furtherCounts && n.old > n.newest:
		old = OldHeld
	}
	probed := n.probe == probeWorks || n.probe == probeBlind || d.noBaseline && n.probe == probeBroken
	n.step, n.newest, n.old = 0, 0, 0
	l := n.link
	l.Total = int(n.total)
	l, verdict := d.rules.Round(l, false, old, probed)
	n.total = uint8(min(l.Total, 20))
	l.Total, l.Mute = 0, min(l.Mute, 8)
	n.link = l
	if verdict != Continue {
		n.end(byVerdict)
		return "the start ends: " + string(verdict)
	}
	return "the previous version's probe: " + string(old)
}

// next returns every step that can follow n.
func (d *design) next(n node, flips uint8, out []step[node]) []step[node] {
	out = out[:0]
	if n.phase == isKept || n.phase == isBack {
		return out
	}
	add := func(name string, t node) {
		d.settle(&t)
		out = append(out, step[node]{name, t})
	}
	if n.age == off {
		t := n
		d.start(&t)
		add("start", t)
	} else {
		t := n
		add(d.tick(&t), t)
		d.environment(n, add)
	}
	if n.flips < flips {
		t := n
		t.up = !n.up
		t.flips++
		add(map[bool]string{true: "line up", false: "line down"}[t.up], t)
	}
	return out
}

// environment adds what may happen to a running process: rounds, operators, the machine.
func (d *design) environment(n node, add func(string, node)) {
	if d.judges(&n) {
		for _, luck := range []bool{false, true} {
			if luck && n.manager != rough {
				break
			}
			t := n
			t.luck = luck
			name := d.round(&t)
			t.luck = false
			add(name, t)
		}
	}
	t := n
	if n.age >= passed {
		t.end(byOperatorReady)
		add("an operator restarts it", t)
	} else if n.short < 9 {
		t.short++
		t.end(byOperatorEarly)
		add("an operator restarts it", t)
	}
	if n.age == calm || n.short < 9 {
		t := n
		if n.age < calm {
			t.short++
		}
		t.end(byMachine)
		add("reboot or power cut", t)
	}
	if n.phase == onTrial && !n.accepted {
		t := n
		t.accepted = true
		if d.acceptKeeps {
			t.phase, t.moved = isKept, true
		}
		add("an operator accepts it", t)
	}
	if n.phase == onTrial && n.newerPossible && !n.newer {
		t := n
		t.newer, t.age, t.phase = true, off, isBack
		if d.backToUnproven {
			t.phase = isAdrift
		}
		add("a newer version is staged, and fails", t)
	}
}
