package trial

// What may be on trial in attached mode, which check the service has, and how its unit is
// made. One search has one of each, and tries every order of events.

// service is how the version on trial behaves.
type service uint8

const (
	soundService   service = iota
	slowService            // sound; its first start takes longer than the window, and its manifest says so
	endsAtOnce             // its process ends
	endsSoon               // in the second quarter of a window
	endsLate               // after the guard
	panicsAtOnce           // takes the machine down
	panicsLater            // takes the machine down after its check passed
	rebootsLater           // reboots it cleanly
	checkFails             // whatever the world does
	checkFlaps             // passes and fails in turn
	neverReady             // never active (notify), or does not answer (simple)
	badClient              // cannot talk to its dependency, which is up
	breaksItsWorld         // takes its dependency down
	servesNothing          // a worker of the previous version may answer
	services
)

func (s service) String() string {
	return [...]string{"sound", "sound, long first start", "ends at once", "ends after 30 s", "ends after the guard", "panics the machine at once",
		"panics the machine after its check passed", "reboots the machine after its check passed", "its check fails", "its check flaps",
		"never ready, or no answer", "cannot talk to its dependency", "takes its dependency down", "does not serve"}[s]
}

func (s service) sound() bool { return s == soundService || s == slowService }

// ends reports whether its process, or the machine, ends within the guard.
func (s service) ends() bool { return s >= endsAtOnce && s <= rebootsLater && s != endsLate }

// ownCheck is [health].
type ownCheck uint8

const (
	fullCheck    ownCheck = iota // fails when the dependency is down, and does not say why
	fullCheckDep                 // the same, and [health] dependency is set
	awareCheck                   // cannot tell when the dependency is down
	awareCheckDep
	shallowCheck // does not look at the dependency
	noCheck      // the unit stays up
	ownChecks
)

func (c ownCheck) String() string {
	return [...]string{"full check", "full check, dependency set", "check that cannot tell", "check that cannot tell, dependency set", "shallow check", "no check"}[c]
}

func (c ownCheck) dependency() bool { return c == fullCheckDep || c == awareCheckDep }

// unitKind is how the service's unit is made.
type unitKind uint8

const (
	simpleUnit  unitKind = iota // active at once; the vendor's Restart= is always
	notifyUnit                  // with a start timeout of one window; the vendor's Restart= is no
	patientUnit                 // notify, and no start timeout
	preventUnit                 // RestartPreventExitStatus= has the status with which it ends
	remainUnit                  // RemainAfterExit=yes
	leavingUnit                 // KillMode=process: a worker of the previous version stays and answers
	boundUnit                   // BindsTo= and PartOf= its dependency
	unitKinds
)

func (k unitKind) String() string {
	return [...]string{"simple", "notify", "notify without a start timeout", "RestartPreventExitStatus=", "RemainAfterExit=", "KillMode=process", "bound to its dependency"}[k]
}

// Quarters of a window since a start.
const (
	aWindow     = 4
	aFirstStart = 7 // first_start_secs
	aTenMinutes = 8
)

// unitState is what the unit does.
type unitState uint8

const (
	oldRuns   unitState = iota // the previous version's process, since before the swap
	newRuns                    // or activates
	starting                   // systemd will start it
	isStopped                  // by a job
	hasFailed                  // and systemd will not start it
	hasExited                  // and systemd calls it active (RemainAfterExit=)
)

// check is what the service's own check says now.
func (n *attachedNode) check(d *attachedDesign) Own {
	switch {
	case n.noAnswer:
		return NotRun
	case n.unit == hasExited && n.own == noCheck:
		return Passes
	case n.unit != newRuns:
		return Fails
	case (n.kind == notifyUnit || n.kind == patientUnit) && (n.service == neverReady || n.service == slowService && !n.migrated): // it activates
		if d.activatingIsSilent {
			return NotRun
		}
		return Fails
	case n.own == noCheck:
		return Passes
	}
	switch {
	case n.service == checkFails, n.service == neverReady,
		n.service == servesNothing && n.kind != leavingUnit,
		n.service == checkFlaps && n.age%2 == 0,
		n.service == slowService && !n.migrated:
		return Fails
	case n.service == servesNothing, n.dependency && !n.blip && n.service != badClient:
		return Passes
	case n.own == fullCheck, n.own == fullCheckDep:
		return Fails
	case n.own == awareCheck, n.own == awareCheckDep:
		return CannotTell
	}
	return Passes
}

// end ends the unit's process. why is byNothing where systemd will not say it at the next
// start.
func (n *attachedNode) end(why ended, to unitState) {
	if n.unit == newRuns || n.unit == hasFailed || n.unit == hasExited {
		if why != byNothing {
			n.ended = why
		}
		n.endNoted = n.endNoted || n.noted == 1
		n.idle = 0
	}
	n.unit, n.age, n.holds, n.failed, n.agentAge, n.condemned = to, 0, 0, 0, 0, false
	n.endRound()
}

// fault is an end that systemd saw.
func (n *attachedNode) fault() {
	switch {
	case n.kind == preventUnit:
		n.end(byNothing, hasFailed)
	case n.kind == remainUnit:
		n.end(byNothing, hasExited)
	case !n.dropIn && n.kind != simpleUnit: // the vendor's Restart= is in force
		n.end(byNothing, hasFailed)
	default:
		n.end(byFault, starting)
	}
}

// machineEnds takes the machine down. The agent returns with it.
func (n *attachedNode) machineEnds(d *attachedDesign) {
	if n.unit == oldRuns || n.unit == isStopped && !n.began {
		n.unit = starting
	} else {
		n.end(byMachine, starting)
	}
	n.byOperator, n.ownStop = false, false
	live := n.live
	n.agentEnds(d)
	n.live = live
}

// dependencyChanges takes the dependency down, or brings it back.
func (n *attachedNode) dependencyChanges() {
	n.dependency = !n.dependency
	n.changed = n.step != 0
	switch {
	case n.kind != boundUnit:
	case !n.dependency && n.unit == newRuns:
		n.end(byOperatorReady, isStopped)
	case !n.dependency && n.unit == oldRuns:
		n.unit = isStopped
	case n.dependency && n.unit == isStopped && !n.byOperator && !n.ownStop:
		n.unit = starting
	}
}

// serve is the unit that serves requests: it restarts the service.
func (n *attachedNode) serve(d *attachedDesign) string {
	n.asked = false
	switch n.unit {
	case starting:
		return "the request finds the service between two starts"
	case isStopped:
		if !n.ownStop && !d.startsStopped {
			return "the request finds the service stopped"
		}
		if n.byOperator {
			n.wrong = startedStopped
		}
		n.unit = starting
	case oldRuns:
		n.unit = starting
	default:
		n.end(byOperatorReady, starting)
	}
	n.ownStop = true // if the start fails
	return "the request restarts the service"
}

// tick lets a quarter of a window pass.
func (d *attachedDesign) tick(n *attachedNode) string {
	if n.live && d.agentClock && n.agentAge < aTenMinutes {
		n.agentAge++
	}
	switch n.unit {
	case oldRuns, isStopped:
		n.idle = min(n.idle+1, aWindow)
		return "a quarter of a window, without a start"
	case hasFailed, hasExited:
		if n.unit == hasExited && n.own == noCheck && n.live {
			n.holds = min(2, n.holds+1)
		}
		n.age = min(n.age+1, aTenMinutes)
		return "a quarter of a window, and nothing runs"
	}
	s := n.service
	switch {
	case n.age == 0 && s == endsAtOnce, n.age == 1 && s == endsSoon, n.age == 6 && s == endsLate:
		n.fault()
		return "it ends"
	case n.age == 0 && s == panicsAtOnce, n.age == 2 && (s == panicsLater || s == rebootsLater):
		n.machineEnds(d)
		return "it takes the machine down"
	case n.age == 1 && s == breaksItsWorld:
		n.dependency = false
		if n.kind == boundUnit {
			n.end(byOperatorReady, isStopped)
			n.byOperator = true
			return "it takes its dependency down, and is stopped with it"
		}
	case n.age == 3 && n.kind == notifyUnit && (s == neverReady || s == slowService && !n.migrated):
		n.fault()
		return "it ends by its start timeout"
	case n.age == 5 && s == slowService:
		n.migrated = true
	}
	if n.age < aTenMinutes {
		if n.age++; n.age == aTenMinutes {
			n.calm, n.short = true, 0
		}
	}
	switch {
	case n.live && n.check(d) == Passes:
		n.holds, n.passedOnce = min(2, n.holds+1), true
	default:
		n.holds = 0
	}
	if n.live && n.noted == 2 {
		n.noted = 0
	}
	return "a quarter of a window"
}

// surroundings adds what the world may do.
func (d *attachedDesign) surroundings(n attachedNode, add func(string, attachedNode)) {
	do := func(name string, change func(*attachedNode)) {
		t := n
		change(&t)
		add(name, t)
	}
	if n.live {
		do("the agent dies", func(t *attachedNode) { t.agentEnds(d) })
	} else {
		do("the agent is started", func(t *attachedNode) { t.live = true })
	}
	if n.short < d.cuts || n.age == aTenMinutes {
		do("power cut", func(t *attachedNode) {
			if n.age < aTenMinutes {
				t.short++
			}
			t.machineEnds(d)
		})
	}
	switch n.unit {
	case oldRuns:
		do("an operator restarts the service", func(t *attachedNode) { t.unit = starting })
		do("an operator stops the service", func(t *attachedNode) { t.unit, t.byOperator = isStopped, true })
	case starting:
		do("an operator stops the service", func(t *attachedNode) { t.unit, t.byOperator, t.ownStop = isStopped, true, false })
	case newRuns, hasFailed, hasExited:
		do("an operator restarts the service", func(t *attachedNode) { t.end(byOperatorReady, starting) })
		do("an operator stops the service", func(t *attachedNode) { t.end(byOperatorReady, isStopped); t.byOperator = true })
	case isStopped:
		do("an operator starts the service", func(t *attachedNode) { t.unit, t.byOperator, t.ownStop = starting, false, false })
	}
	if !n.changed && (n.kind == boundUnit || n.own != shallowCheck && n.own != noCheck) { // one change in a round
		do("the dependency changes", (*attachedNode).dependencyChanges)
	}
	if n.changes < d.changes {
		do := func(name string, change func(*attachedNode)) {
			do(name, func(t *attachedNode) { change(t); t.changes++ })
		}
		if n.asked && n.path == pathWorks {
			do("the request is lost", func(t *attachedNode) { t.asked = false })
		}
		if n.dropIn {
			do("the drop-in is removed", func(t *attachedNode) { t.dropIn = false })
		}
		if n.path == pathWorks {
			do("the path unit fails", func(t *attachedNode) { t.path = pathFailed })
			do("the path unit is masked", func(t *attachedNode) { t.path = pathMasked })
		}
	}
	if !n.accepted && n.service != slowService {
		do("an operator accepts it", func(t *attachedNode) { t.accepted = true })
	}
}
