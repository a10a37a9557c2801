package trial

import (
	"fmt"
	"math"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/bilbycast/edge-agent/internal/box"
)

const (
	lineChanges = 2          // changes of the line in one run
	fewest      = 11_500_000 // states of the whole space

	fewestAttached = 38_000_000
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

// step leads to a node.
type step[N comparable] struct {
	name string
	node N
}

// space is what one search goes through.
type space[N comparable] struct {
	name    string
	starts  []N
	next    func(N, []step[N]) []step[N]
	broken  func(*N) string          // the promise that the step to a node broke, or ""
	mustEnd func(N) (string, int)    // what is wrong with how a world at rest ends, or ""; the starts of a bad version
	atRest  func(N) (key N, ok bool) // nodes of one key end in the same way; not ok: a later node tells
}

// violation is a way to a broken promise.
type violation struct {
	promise, space string
	steps          []string
}

func (v violation) String() string {
	return fmt.Sprintf("%s: %s: %s", v.promise, v.space, strings.Join(v.steps, "; "))
}

// outcome is what a search found.
type outcome struct {
	states, starts int
	cut            int         // spaces that were not searched to the end
	violations     []violation // one of each promise and space
}

// search tries every order of events, up to limit states.
func (p space[N]) search(limit int) (out outcome) {
	type origin struct {
		prev int32
		name string
	}
	seen := map[N]struct{}{}
	var nodes []N // in the order in which they are searched
	var from []origin
	add := func(n N, prev int, name string) {
		if _, ok := seen[n]; !ok {
			seen[n] = struct{}{}
			nodes, from = append(nodes, n), append(from, origin{int32(prev), name})
		}
	}
	for _, n := range p.starts {
		add(n, -1, "")
	}
	found := map[string]bool{}
	note := func(promise string, i int) {
		if promise == "" || found[promise] {
			return
		}
		found[promise] = true
		v := violation{promise: promise, space: p.name}
		for ; from[i].prev >= 0; i = int(from[i].prev) {
			v.steps = append(v.steps, from[i].name)
		}
		slices.Reverse(v.steps)
		out.violations = append(out.violations, v)
	}
	ends := map[N]string{}
	var buf []step[N]
	for i := 0; i < len(nodes); i++ {
		if out.states == limit {
			out.cut = 1
			return out
		}
		out.states++
		n := nodes[i]
		if promise := p.broken(&n); promise != "" {
			note(promise, i)
			continue
		}
		if k, ok := p.atRest(n); ok {
			promise, ok := ends[k]
			if !ok {
				var starts int
				promise, starts = p.mustEnd(n)
				ends[k], out.starts = promise, max(out.starts, starts)
			}
			note(promise, i)
		}
		buf = p.next(n, buf)
		for _, s := range buf {
			add(s.node, i, s.name)
		}
	}
	return out
}

// searchAll makes every search, or those until the first violation.
func searchAll[N comparable](spaces []space[N], limit int, untilViolation bool) (all outcome) {
	var mu sync.Mutex
	var wg sync.WaitGroup
	next := 0
	for range runtime.GOMAXPROCS(0) {
		wg.Go(func() {
			for {
				mu.Lock()
				if next == len(spaces) || untilViolation && len(all.violations) > 0 {
					mu.Unlock()
					return
				}
				p := spaces[next]
				next++
				mu.Unlock()
				out := p.search(limit)
				mu.Lock()
				all.states += out.states
				all.cut += out.cut
				all.starts = max(all.starts, out.starts)
				all.violations = append(all.violations, out.violations...)
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	return
}

// spaces are every combination of version, probe and manager.
func (d *design) spaces() (out []space[node]) {
	for v := range versions {
		for p := range oldProbes {
			for m := range managers {
				n := node{version: v, probe: p, manager: m}
				if m == ghost {
					n.ghost = 6
				}
				up := n
				up.up = true
				out = append(out, space[node]{
					name:   fmt.Sprintf("%v; %v; %v", v, p, m),
					starts: []node{up, n},
					next:   func(n node, out []step[node]) []step[node] { return d.next(n, lineChanges, out) },
					broken: (*node).broken, mustEnd: d.mustEnd,
					atRest: func(n node) (node, bool) {
						ok := n.age == off || n.age == calm // a world at rest comes to one of these
						n.up, n.flips, n.short = false, 0, 0
						return n, ok
					},
				})
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
	linked := searchAll(nodesRules.spaces(), math.MaxInt, false)
	d, limit := attachedRules(2), 15_000 // of each space
	if os.Getenv(box.LongEnv) != "" {
		d, limit = attachedRules(1), math.MaxInt // 2 ends of the machine: 81 million states, twice the time
	}
	attached := searchAll(d.spaces(), limit, false)
	violations := slices.Concat(linked.violations, attached.violations)
	t.Logf("trial model: %d states, %d violations; linked %d, attached %d (%d of %d spaces to the end); a bad version needs at most %d starts, attached %d",
		linked.states+attached.states, len(violations), linked.states, attached.states, len(d.spaces())-attached.cut, len(d.spaces()), linked.starts, attached.starts)
	for _, v := range violations {
		t.Error(v)
	}
	if os.Getenv(box.LongEnv) != "" && (attached.cut > 0 || attached.states < fewestAttached) {
		t.Errorf("%d states of attached mode, fewer than %d; %d spaces not to the end", attached.states, fewestAttached, attached.cut)
	}
	if linked.states < fewest || linked.states+attached.states < 16_000_000 {
		t.Errorf("too few states: %d, %d", linked.states, attached.states)
	}
	if linked.starts > 13 || attached.starts > 14 {
		t.Errorf("a bad version was rolled back after %d starts, more than 13; attached %d, more than 14", linked.starts, attached.starts)
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
			for _, limit := range []int{2000, 120_000} {
				if out := searchAll(d.spaces(), limit, true); len(out.violations) > 0 {
					t.Log(out.violations[0])
					return
				}
			}
			t.Fatal("no violation without it")
		})
	}
}
