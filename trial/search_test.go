package trial

import (
	"fmt"
	"math"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
)

const (
	lineChanges = 2          // changes of the line in one run
	fewest      = 11_500_000 // states of the whole space
)

var nodesRules = design{name: "the rules of a node", rules: Default}

// broken names the promise that the step to n broke, or "".
func (n *node) broken() string {
	switch {
	case n.phase == isBack && n.byItself && n.version == good && n.probe != probeAbsent && n.probe != probeBroken && n.manager != refusesNew:
		return "a healthy version is rolled back"
	case n.phase == isKept && n.accepted && n.age < passed && n.version == crashesAtStart:
		return "a version is kept although its own check fails"
	case n.moved && !n.proven && !n.accepted && n.manager != noManager:
		return "last-good moved without proof"
	}
	return ""
}

// world is how it goes on if nothing more is done.
type world struct {
	up    bool
	daily bool // the machine is switched off each time the version ran well for ten minutes
	rare  bool // the line is up only when a start is more than ten minutes old
}

// rest lets a world go on from n, and returns how that ends, after how many starts.
func (d *design) rest(n node, w world) (node, int) {
	n.up = w.up
	starts, idle := 0, 0
	for i := 0; i < 2000 && n.phase != isKept && n.phase != isBack; i++ {
		if w.rare {
			n.up = n.age == calm
		}
		switch {
		case n.age == off:
			d.start(&n)
			if starts++; starts > 60 {
				return n, starts
			}
			idle = 0
		case d.judges(&n) && idle < 8*int(n.age):
			d.round(&n)
			idle++
		case n.age == calm && w.daily:
			n.end(byMachine)
		case n.age == calm && n.version != crashesLate && idle > 200:
			return n, starts
		case n.age == calm:
			d.tick(&n)
			idle += 40
			for i := 0; i < 3 && d.judges(&n) && n.age != off; i++ {
				d.round(&n)
			}
		default:
			d.tick(&n)
		}
		d.settle(&n)
	}
	return n, starts
}

// mustEnd returns what is wrong with how a world at rest ends from n, or "", and the most
// starts of a bad version.
func (d *design) mustEnd(n node) (wrong string, starts int) {
	if n.phase == isKept || n.phase == isBack {
		return "", 0
	}
	judged := n.phase == onTrial
	answers := n.probe == probeWorks || n.probe == probeBlind
	down, k := d.rest(n, world{})
	if judged && n.version.ownFault() && n.manager != noManager && down.phase != isBack && !(n.accepted && down.phase == isKept) {
		return "a version with a fault of its own is never rolled back", 0
	}
	if n.version.ownFault() && down.phase == isBack {
		starts = k
	}
	if judged && n.version == good && answers && n.manager != noManager {
		if !down.newerPossible && down.phase == onTrial {
			return "no newer version can be staged while the line is down", 0
		}
		if n.manager != refusesNew {
			switch daily, _ := d.rest(n, world{daily: true}); {
			case daily.phase == isBack:
				return "a healthy version is rolled back", 0
			case daily.phase == onTrial && !daily.newerPossible:
				return "no newer version can be staged while the line is down", 0
			}
		}
	}
	if n.manager != fair && n.manager != busyOnce && n.manager != ghost && n.manager != twoURLs {
		return "", starts
	}
	up, k := d.rest(n, world{up: true})
	decided := up.phase == isKept || up.phase == isBack
	switch {
	case n.version == good && !decided:
		return "a healthy version is neither kept nor rolled back in a sound world", 0
	case (n.version.linkFault() || n.version.ownFault()) && n.probe != probeBlind && !decided:
		return "a bad version is never rolled back in a sound world", 0
	case n.version.linkFault() && up.phase == isKept && !n.accepted:
		return "a version with a bad link is kept", 0
	case (n.version == crashesAtStart || n.version == crashesSoon || n.version == panicsAtStart) && up.phase == isKept:
		return "a version is kept although it dies within a minute", 0
	}
	if n.version.linkFault() && up.phase == isBack {
		starts = max(starts, k)
		if rare, _ := d.rest(n, world{rare: true}); n.probe == probeWorks && rare.phase == onTrial {
			return "a bad link is never found on a line that is up now and then", 0
		}
	}
	return "", starts
}

// violation is a way to a broken promise.
type violation struct {
	promise string
	start   node
	steps   []string
}

func (v violation) String() string {
	return fmt.Sprintf("%s: %v; %v; %v: %s", v.promise, v.start.version, v.start.probe, v.start.manager, strings.Join(v.steps, "; "))
}

// outcome is what a search found.
type outcome struct {
	states, starts int
	violations     []violation // one of each promise
}

// search tries every order of events from start.
func (d *design) search(start node, limit int) (out outcome) {
	type origin struct {
		prev node
		name string
	}
	from := map[node]origin{}
	var queue []node
	for _, up := range []bool{true, false} {
		n := start
		n.up = up
		from[n] = origin{}
		queue = append(queue, n)
	}
	found := map[string]bool{}
	note := func(promise string, n node) {
		if promise == "" || found[promise] {
			return
		}
		found[promise] = true
		v := violation{promise: promise, start: start}
		for o := from[n]; o.name != ""; o = from[o.prev] {
			v.steps = append(v.steps, o.name)
		}
		slices.Reverse(v.steps)
		out.violations = append(out.violations, v)
	}
	ends := map[node]string{}
	var buf []step
	for ; len(queue) > 0 && out.states < limit; out.states++ {
		n := queue[0]
		queue = queue[1:]
		if promise := n.broken(); promise != "" {
			note(promise, n)
			continue
		}
		if n.age == off || n.age == calm { // a world at rest comes to one of these
			k := n
			k.up, k.flips, k.short = false, 0, 0
			promise, ok := ends[k]
			if !ok {
				var starts int
				promise, starts = d.mustEnd(n)
				ends[k], out.starts = promise, max(out.starts, starts)
			}
			note(promise, n)
		}
		buf = d.next(n, lineChanges, buf)
		for _, s := range buf {
			if _, ok := from[s.node]; !ok {
				from[s.node] = origin{n, s.name}
				queue = append(queue, s.node)
			}
		}
	}
	return out
}

// searchAll searches every combination of version, probe and manager. enough, unless nil,
// ends it at a violation.
func (d *design) searchAll(limit int, enough func(violation) bool) (all outcome) {
	jobs := make(chan node)
	done := make(chan struct{})
	var mu sync.Mutex
	var wg sync.WaitGroup
	closeDone := sync.OnceFunc(func() { close(done) })
	for range runtime.GOMAXPROCS(0) {
		wg.Go(func() {
			for n := range jobs {
				out := d.search(n, limit)
				mu.Lock()
				all.states += out.states
				all.starts = max(all.starts, out.starts)
				all.violations = append(all.violations, out.violations...)
				mu.Unlock()
				if enough != nil && slices.ContainsFunc(out.violations, enough) {
					closeDone()
				}
			}
		})
	}
	defer wg.Wait()
	defer close(jobs)
	for v := range versions {
		for p := range oldProbes {
			for m := range managers {
				n := node{version: v, probe: p, manager: m}
				if m == ghost {
					n.ghost = 6
				}
				select {
				case jobs <- n:
				case <-done:
					return
				}
			}
		}
	}
	return
}

// No order of events breaks a promise (broken, mustEnd).
func TestNoOrderOfEventsBreaksAPromise(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("it searches millions of states")
	}
	out := nodesRules.searchAll(math.MaxInt, nil)
	t.Logf("trial model: %d states, %d violations; a bad version needs at most %d starts", out.states, len(out.violations), out.starts)
	for _, v := range out.violations {
		t.Error(v)
	}
	if out.states < fewest {
		t.Errorf("%d states, fewer than %d", out.states, fewest)
	}
	if out.starts > 13 {
		t.Errorf("a bad version was rolled back after %d starts, more than 13", out.starts)
	}
}

// Each rule is needed: without it some order of events breaks a promise.
func TestEachRuleIsNeeded(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("it searches many states")
	}
	for name, without := range map[string]func(*design){
		"systemd says how a start ended":                  func(d *design) { d.noSystemd = true },
		"nine ends that do not count, and no more":        func(d *design) { d.rules.MaxExcused = 200 },
		"ten minutes well clear the counts":               func(d *design) { d.rules.CalmClears = false },
		"kept after the guard":                            func(d *design) { d.shortGuard = true },
		"the new version tries before and after":          func(d *design) { d.noBracket = true },
		"two contradictions a start, six of a trial":      func(d *design) { d.rules.RoundsPerStart, d.rules.Rounds = 1, 3 },
		"the contradictions of a trial are bounded":       func(d *design) { d.rules.Rounds = 0 },
		"the probe authenticates whatever stopped new":    func(d *design) { d.authOnlyAfterRefusal = true },
		"the probe holds its connection":                  func(d *design) { d.probeHoldsNothing = true },
		"only a full success of the probe counts":         func(d *design) { d.furtherCounts = true },
		"only the peer of the last session counts":        func(d *design) { d.anyPeer = true },
		"all URLs are tried":                              func(d *design) { d.oneURL = true },
		"the probe has a copy of the credentials":         func(d *design) { d.sharedCredentials = true },
		"the probe is tried before the swap":              func(d *design) { d.noBaseline = true },
		"a child that cannot be started counts":           func(d *design) { d.unableIsSilent = true },
		"a newer version is possible once the check held": func(d *design) { d.unprovenAfterADay = true },
		"accept waives the link, not the check":           func(d *design) { d.acceptKeeps = true },
		"rolling back never means an unproven version":    func(d *design) { d.backToUnproven = true },
	} {
		t.Run(name, func(t *testing.T) {
			d := nodesRules
			d.name = name
			without(&d)
			out := d.searchAll(120_000, func(violation) bool { return true })
			if len(out.violations) == 0 {
				t.Fatalf("no violation in %d states without it", out.states)
			}
			t.Log(out.violations[0])
		})
	}
}
