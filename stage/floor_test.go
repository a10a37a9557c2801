package stage

import (
	"fmt"
	"testing"
	"time"

	"github.com/bilbycast/edge-agent/internal/state"
	"github.com/bilbycast/edge-agent/release"
)

// Every manifest that was ever signed is offered in every state that a node can
// come to by installing, keeping and losing releases: what a floor shuts out
// stays out, and what must work, works.
func TestReplayOfEveryManifest(t *testing.T) {
	t.Parallel()
	v := release.MustVersion
	manifest := func(version string, sequence uint64, floor string) release.Manifest {
		m := release.Manifest{Version: v(version), DeviceType: "edge", Channel: "stable", Sequence: sequence}
		if floor != "" {
			m.RollbackFloor = v(floor)
		}
		m.Artefacts = []release.Artefact{{Arch: "x86_64-linux", Variant: "default", SHA256: fmt.Sprintf("%064d", sequence), URL: "https://x/y"}}
		return m
	}
	releases := []release.Manifest{
		manifest("1.3.0", 13, ""),
		manifest("1.4.0", 12, ""), // a first publication that was withdrawn,
		manifest("1.4.0", 14, ""), // and the second
		manifest("1.5.0", 15, "1.4.0"),
		manifest("1.5.1", 16, "1.5.1"),
		manifest("1.6.0", 17, ""),
		manifest("2.0.0", 20, "1.5.0"),
	}
	host := release.Host{DeviceType: "edge", Arch: "x86_64-linux", Variant: "default"}
	type node struct {
		s       state.State
		t       state.Tree
		has     [7]bool // what is installed, by index; a version is there once
		running int
		before  int // what ran before; -1: nothing
	}
	key := func(n node) string {
		return fmt.Sprint(n.s.Floor, n.s.FloorSequence, n.has, n.running, n.before)
	}
	accepted := func(n node, m release.Manifest) error {
		p := release.Policy{Enabled: true, Channels: []string{"stable"}, RollbackGrace: 1, RollbackMajors: []uint64{1}, Floor: n.s.Floor, FloorSequence: n.s.FloorSequence}
		r, err := release.NewRequest(m.Version.String(), "stable", "", "", host)
		if err != nil {
			t.Fatal(err)
		}
		if err := p.Check(r, releases[n.running].Version); err != nil {
			return err
		}
		_, err = p.Select(m, r, host)
		return err
	}
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	seen := map[string]bool{}
	first := node{running: 0, before: -1}
	first.s.Status, first.s.Good = state.Stable, v("1.3.0")
	first.has[0] = true
	queue := []node{first}
	states, tried := 0, 0
	for len(queue) > 0 {
		n := queue[0]
		queue = queue[1:]
		if seen[key(n)] {
			continue
		}
		seen[key(n)] = true
		states++
		for i, m := range releases {
			tried++
			err := accepted(n, m)
			switch {
			case err == nil && m.Version.Compare(n.s.Floor) < 0:
				t.Errorf("%s: %s is below the floor, and accepted", key(n), m.Version)
			case err == nil && m.Sequence < n.s.FloorSequence:
				t.Errorf("%s: sequence %d is below the floor's, and accepted", key(n), m.Sequence)
			case i == n.before && err != nil && m.Version.Compare(n.s.Floor) >= 0 && m.Sequence >= n.s.FloorSequence && minors(releases[n.running].Version, m.Version) <= 1:
				t.Errorf("%s: the release that ran before is refused: %v", key(n), err)
			}
			if err != nil || m.Version == releases[n.running].Version {
				continue
			}
			floor, sequence := floorOf(m, func(of release.Version) uint64 {
				for j, there := range n.has {
					if there && releases[j].Version == of {
						return releases[j].Sequence
					}
				}
				return 0
			})
			trial := state.Begin(n.s, state.Trial{ID: "x", Target: m.Version, RollbackFloor: floor, FloorSequence: sequence}, now)
			tree := n.t
			tree.Current, tree.Previous = m.Version, releases[n.running].Version
			next := n
			for j := range next.has { // a directory has one version's name
				if releases[j].Version == m.Version {
					next.has[j] = j == i
				}
			}
			kept, lost := next, next
			kept.s, kept.t = state.Keep(trial, tree, trial.Target, "", now)
			kept.running, kept.before = i, n.running
			lost.s, lost.t = state.Revert(trial, tree, "it did not come up", now)
			for what, after := range map[string]node{"kept": kept, "lost": lost} {
				after.s.PendingReports, after.s.Commands = nil, nil
				if after.s.Floor.Compare(n.s.Floor) < 0 || after.s.FloorSequence < n.s.FloorSequence {
					t.Errorf("%s: the floor falls when %s is %s", key(n), m.Version, what)
				}
				if want := sets(i, n.has[2]); what == "kept" && floor.Compare(n.s.Floor) >= 0 && after.s.FloorSequence < want {
					t.Errorf("%s: %s is kept, and the floor's sequence is %d, not %d", key(n), m.Version, after.s.FloorSequence, want)
				}
				if what == "lost" {
					if after.s.Floor != n.s.Floor || after.s.FloorSequence != n.s.FloorSequence {
						t.Errorf("%s: %s, which was never healthy, sets the floor", key(n), m.Version)
					}
					if err := accepted(after, m); err != nil { // another try, perhaps with a mended configuration
						t.Errorf("%s: %s cannot be tried again: %v", key(n), m.Version, err)
					}
				}
				queue = append(queue, after)
			}
		}
	}
	if states < 50 {
		t.Errorf("only %d states", states)
	}
	t.Logf("replay: %d states, %d manifests offered", states, tried)
}

// sets is the sequence that release i puts the floor at: its own, or that of the
// second publication of 1.4.0, where this is installed.
func sets(i int, second bool) uint64 {
	switch {
	case i == 4:
		return 16
	case i == 3 && second:
		return 14
	}
	return 0
}

// minors is how many minor versions to is behind from, within a major; one
// major down counts as none, as the policy of this test allows it.
func minors(from, to release.Version) int {
	var a, b, c, d int
	fmt.Sscanf(from.String(), "%d.%d", &a, &b)
	fmt.Sscanf(to.String(), "%d.%d", &c, &d)
	if a != c {
		return 0
	}
	return b - d
}
