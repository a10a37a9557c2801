package trial

import (
	"fmt"
	"testing"
)

// attachedRules are those of a node, with cuts in place of nine ends of the machine.
func attachedRules(cuts uint8) attachedDesign {
	d := attachedDesign{rules: Attached, changes: 1, cuts: cuts}
	d.rules.MaxExcused = int(cuts)
	return d
}

// blind reports whether the check cannot tell a dependency that is down from a fault.
func (c ownCheck) blind() bool { return c == fullCheck }

// visible reports whether the check can see what is wrong with the version.
func (n *attachedNode) visible() bool {
	switch n.service {
	case checkFails, checkFlaps, servesNothing:
		return n.own != noCheck
	case neverReady:
		return n.own != noCheck || n.kind == patientUnit || n.kind == notifyUnit
	case badClient:
		return n.own == fullCheck || n.own == fullCheckDep || n.own == awareCheckDep
	}
	return false
}

// broken names the promise that the step to n broke, or "".
func (n *attachedNode) broken() string {
	kept := n.phase == isKept
	switch {
	case n.phase == isBack && n.service.sound() && !n.own.blind():
		return "a sound version is rolled back"
	case n.wrong == condemnedSound:
		return "a sound version is condemned"
	case n.wrong == condemnedUnasked:
		return "a sound version is condemned for a dependency that was down before the swap"
	case n.wrong == countedSound:
		return "a start of a sound version counts without a cause"
	case n.wrong == startedStopped:
		return "a service that an operator stopped is started"
	case kept && (n.service == endsAtOnce || n.service == endsSoon):
		return "a version is kept although it ends within the guard"
	case kept && !n.accepted && n.visible():
		return "a version is kept although its check fails"
	case kept && n.service == servesNothing && n.own != noCheck:
		return "a version is kept although it does not serve"
	case kept && n.reverted:
		return "a version is kept although current points to the previous one"
	}
	return ""
}

// agentLife is how an agent lives while nothing else happens.
type agentLife uint8

const (
	livesOn      agentLife = iota
	diesOften              // after each round, and is started again
	isDead                 // and stays so
	livesRarely            // only when a start is ten minutes old, or nothing runs
	looksBetween           // an agent that never sees the service up
	startWaits             // an agent that lives on beside a start that waits for ever
)

// rest lets a world go on from n, and returns how that ends, after how many starts. The
// dependency is up, unless noWorld.
func (d *attachedDesign) rest(n attachedNode, life agentLife, noWorld bool) (attachedNode, int) {
	if n.dependency == noWorld && (noWorld || n.service != breaksItsWorld) {
		n.dependencyChanges()
	}
	n.agentEndsIf(d, life == isDead)
	starts, idle := 0, 0
	for i := 0; i < 600 && n.phase == onTrial && idle <= 40; i++ {
		if !noWorld && !n.dependency && n.unit != newRuns {
			n.dependencyChanges()
		}
		if life == livesRarely {
			n.agentEndsIf(d, n.unit == newRuns && n.age != aTenMinutes)
		}
		for range 8 { // two rounds at most
			if life == looksBetween && n.unit == newRuns {
				break
			}
			name := d.act(&n)
			if n.asked && n.path == pathWorks {
				n.serve(d)
			} else if name == "" {
				break
			}
		}
		switch {
		case n.phase != onTrial:
			return n, starts
		case n.unit == starting && life == startWaits:
			n.idle = min(n.idle+1, aWindow)
			idle++
			continue
		case n.unit == starting:
			d.start(&n)
			if starts++; starts > 60 {
				return n, starts
			}
			if n.unit == newRuns || n.phase != onTrial {
				continue
			}
		case life == diesOften:
			n.agentEnds(d)
			n.live = true
		}
		d.tick(&n)
		if n.age == aTenMinutes || n.unit != newRuns && n.unit != starting {
			idle++
		}
	}
	return n, starts
}

// agentEndsIf ends the agent, or starts it.
func (n *attachedNode) agentEndsIf(d *attachedDesign, dead bool) {
	if dead && n.live {
		n.agentEnds(d)
	}
	n.live = !dead
}

// mustEnd returns what is wrong with how a world at rest ends from n, or "", and the most
// starts of a bad version.
func (d *attachedDesign) mustEnd(n attachedNode) (wrong string, starts int) {
	if n.phase != onTrial {
		return "", 0
	}
	over := func(e attachedNode) bool {
		return e.phase == isBack || e.phase == isUndone || e.phase == isKept && e.accepted
	}
	long, k := d.rest(n, livesOn, false)
	if n.path == pathMasked { // no restart can be had, and the node says so
		if !n.began && n.unit == oldRuns && long.phase == onTrial {
			return "a version that is never started stays", 0
		}
		return "", 0
	}
	open := func(e attachedNode) bool { return e.phase == onTrial && !e.newerPossible && !e.reverted }
	if open(long) {
		return "no newer version can be staged", 0
	}
	if down, _ := d.rest(n, livesOn, true); open(down) {
		return "no newer version can be staged while the dependency is down", 0
	}
	if waits, _ := d.rest(n, startWaits, false); waits.unit == starting && open(waits) {
		return "no newer version can be staged while a start waits for another unit", 0
	}
	if n.unit == isStopped && !n.ownStop {
		return "", 0
	}
	bad := n.service.ends() || n.visible()
	switch {
	case n.service.sound() && long.phase == onTrial:
		return "a sound version is not kept in a sound world", 0
	case n.service.sound() && long.phase == isBack && !n.reverted && n.faults < maxFaults-1 && !n.endNoted && n.noted == 0 && !n.condemned && n.ended == byNothing:
		return "a sound version is rolled back in a sound world", 0
	case bad && !over(long):
		return "a bad version is never rolled back", 0
	}
	if bad && long.phase == isBack {
		starts = k
	}
	ends := func(life agentLife) attachedNode { e, _ := d.rest(n, life, false); return e }
	switch {
	case bad && !over(ends(diesOften)):
		return "a bad version is never rolled back by an agent that dies again and again", 0
	case n.service == endsAtOnce && !over(ends(looksBetween)):
		return "a version that ends is never rolled back by an agent that never sees it up", 0
	case n.visible() && !over(ends(livesRarely)):
		return "a bad version is never rolled back by an agent that lives now and then", 0
	case n.service.ends() && n.dropIn && n.began && (n.unit == newRuns || n.unit == starting) && ends(isDead).phase == onTrial:
		return "a version that ends is never rolled back without an agent", 0
	}
	return "", starts
}

// spaces are every combination of service, check and unit that is not refused before the swap.
func (d *attachedDesign) spaces() (out []space[attachedNode]) {
	refuses := d.refuses
	if refuses == nil {
		refuses = refusedUnit
	}
	for s := range services {
		for c := range ownChecks {
			for k := range unitKinds {
				if refuses(s, k) || d.only != nil && s != *d.only {
					continue
				}
				n := attachedNode{service: s, own: c, kind: k, live: true, dropIn: true, dependency: true}
				starts := []attachedNode{n}
				if d.noBaseline {
					down, stopped := n, n
					down.dependency, down.hadNoWorld = false, true
					stopped.unit, stopped.byOperator = isStopped, true
					starts = append(starts, down, stopped)
				}
				out = append(out, space[attachedNode]{
					name: fmt.Sprintf("%v; %v; %v", s, c, k), starts: starts,
					next: d.next, broken: (*attachedNode).broken, mustEnd: d.mustEnd,
					atRest: func(n attachedNode) (attachedNode, bool) {
						n.changes, n.short, n.wrong = 0, 0, nothingWrong
						n.dependency = n.dependency || n.kind != boundUnit && n.service != breaksItsWorld
						return n, true
					},
				})
			}
		}
	}
	return
}

// Each rule of attached mode is needed: without it some order of events breaks a promise.
func TestEachRuleOfAttachedModeIsNeeded(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("it searches many states")
	}
	see := func(change func(*Seen)) func(*attachedDesign) {
		return func(d *attachedDesign) { d.see = func(s Seen) Seen { change(&s); return s } }
	}
	answers := func(change func(Own, Dependency, bool) (Own, Dependency)) func(*attachedDesign) {
		return func(d *attachedDesign) { d.answers = change }
	}
	only := func(s service, without func(*attachedDesign)) func(*attachedDesign) { // a deeper search
		return func(d *attachedDesign) { d.only = &s; without(d) }
	}
	leave := func(a Act) func(*attachedDesign) { return func(d *attachedDesign) { d.leave = a } }
	for name, without := range map[string]func(*attachedDesign){
		// Before the swap.
		"the service and its dependency are up at the swap": only(soundService, func(d *attachedDesign) { d.noBaseline = true }),
		"KillMode= leaves no process": func(d *attachedDesign) {
			d.refuses = func(s service, k unitKind) bool { return k != leavingUnit && refusedUnit(s, k) }
		},
		"systemd restarts a service that ends, and not before its first start could end": func(d *attachedDesign) {
			d.refuses = func(_ service, k unitKind) bool { return k == leavingUnit }
		},
		// A request for a restart.
		"asked until a start is seen":                    only(checkFails, func(d *attachedDesign) { d.asksOnce = true }),
		"noted before asked":                             func(d *attachedDesign) { d.notesInMemory = true },
		"a request starts no stopped service":            func(d *attachedDesign) { d.startsStopped = true },
		"what the own request stopped is started":        only(endsAtOnce, see(func(s *Seen) { s.OwnStop = false })),
		"the agent ends itself if nothing serves it":     leave(Mend),
		"a version that was never started is taken back": leave(TakeBack),
		"nothing is judged before the new version began": see(func(s *Seen) { s.Began = true }),
		// Counting.
		"the verdict names its start":                func(d *attachedDesign) { d.namesNoStart = true },
		"the agent counts what no watchdog counted":  see(func(s *Seen) { s.Counted = true }),
		"the agent notes that a unit failed":         leave(NoteEnd),
		"a rolled back version's start ends":         only(slowService, see(func(s *Seen) { s.Reverted = false })),
		"a start that a job ended never counts":      func(d *attachedDesign) { d.rules.JobsFree = false },
		"nine ends of the machine, and no more":      func(d *attachedDesign) { d.rules.MaxExcused = 200 },
		"ten minutes well clear the counts":          func(d *attachedDesign) { d.rules.CalmClears = false },
		"they clear nothing after a condemned start": func(d *attachedDesign) { d.rules.NotedKeeps = false },
		// Judging.
		"the window is the unit's":    func(d *attachedDesign) { d.agentClock = true },
		"not judged before a limit":   see(func(s *Seen) { s.Over = true }),
		"kept only if the check held": see(func(s *Seen) { s.Held = true }),
		"two failed rounds a start":   func(d *attachedDesign) { d.rules.RoundsPerStart = 1 },
		"a check may say that it cannot tell": answers(func(own Own, dep Dependency, _ bool) (Own, Dependency) {
			if own == CannotTell {
				own = Fails
			}
			return own, dep
		}),
		"a check that was not run says nothing": answers(func(own Own, dep Dependency, _ bool) (Own, Dependency) {
			if own == NotRun {
				own = Fails
			}
			return own, dep
		}),
		"the dependency is asked": answers(func(own Own, _ Dependency, _ bool) (Own, Dependency) { return own, Dependency{} }),
		"the dependency is asked before the check": only(soundService, answers(func(own Own, dep Dependency, _ bool) (Own, Dependency) {
			dep.Before = true
			return own, dep
		})),
		"the dependency is asked after the check": only(soundService, answers(func(own Own, dep Dependency, _ bool) (Own, Dependency) {
			dep.After = true
			return own, dep
		})),
		"who cannot tell, though the dependency answers, fails": answers(func(own Own, dep Dependency, _ bool) (Own, Dependency) {
			dep.Set = dep.Set && own != CannotTell
			return own, dep
		}),
		"an operator's word waives no failure": only(servesNothing, answers(func(own Own, dep Dependency, accepted bool) (Own, Dependency) {
			if accepted {
				return CannotTell, Dependency{}
			}
			return own, dep
		})),
		"first_start_secs until the check passed": func(d *attachedDesign) { d.firstStartOnly = true },
		"an activating unit fails its check":      func(d *attachedDesign) { d.activatingIsSilent = true },
		"newer versions while it is stopped":      leave(Offer),
		"a start that is over counts as well":     only(endsAtOnce, see(func(s *Seen) { s.Retries = false })),
		"newer versions while its start waits":    see(func(s *Seen) { s.Stuck = false }),
	} {
		t.Run(name, func(t *testing.T) {
			d := attachedRules(1)
			without(&d)
			// Most violations are near the start, so small searches of every space come first.
			for limit := 400; limit <= 120_000; limit *= 4 {
				if limit > 30_000 { // deeper, in a world without power cuts
					d.cuts, d.rules.MaxExcused = 0, 0
				}
				if out := searchAll(d.spaces(), limit, true); len(out.violations) > 0 {
					t.Log(limit, out.states, out.violations[0])
					return
				}
			}
			t.Fatal("no violation without it")
		})
	}
}
