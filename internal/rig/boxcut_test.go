package rig_test

import (
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/bilbycast/edge-agent/internal/box"
	"github.com/bilbycast/edge-agent/internal/rig"
	"github.com/bilbycast/edge-agent/internal/state"
	"github.com/bilbycast/edge-agent/manager-sim/fakerelease"
	"github.com/bilbycast/edge-agent/wire"
)

// boxCutsEnv is the number of times that the machine fails; the full run has 25.
const boxCutsEnv = "EDGE_AGENT_BOX_CUTS"

// A power cut, a reboot, or a killed agent or watchdog, at any moment of upgrades, of
// downgrades, and of upgrades to a bad release. Each time the node recovers by itself, and
// the manager gets consistent events of each command.
func TestUnderSystemdCutsAtAnyMoment(t *testing.T) {
	rounds := 4
	if n, err := strconv.Atoi(os.Getenv(boxCutsEnv)); err == nil {
		rounds = n
	}
	b := setupBox(t, rig.NodeConfig{MaxBootAttempts: 2}, box.Options{DiskMB: 512})
	b.publish("1.1.0", "")
	b.publish("1.2.0", fakerelease.ExitsAtOnce)
	seed := rand.Uint64()
	rng := rand.New(rand.NewPCG(seed, 0))
	t.Logf("seed %d", seed)
	start := b.Timeline.Mark()
	running := "1.0.0"
	happened := map[string]int{}
	for range rounds {
		to := []string{"1.2.0", map[string]string{"1.0.0": "1.1.0", "1.1.0": "1.0.0"}[running]}[rng.IntN(2)]
		mark, _ := b.upgrade(to)
		time.Sleep(time.Duration(rng.IntN(2500)) * time.Millisecond) // the moment is the point
		how := []string{"power cut", "power cut, journal flushed", "kill", "reboot", "kill the watchdog"}[rng.IntN(5)]
		happened[how]++
		var err error
		switch how {
		case "kill":
			_, err = b.node.Exec(b.ctx, "systemctl", "kill", "-s", "KILL", "edge.service")
		case "kill the watchdog": // as soon as a start has one
			var out string
			out, err = b.node.Exec(b.ctx, "sh", "-c", `systemctl restart --no-block edge.service
				for i in $(seq 200); do systemctl kill --kill-whom=control -s KILL edge.service 2>/dev/null && echo killed && break; done; true`)
			if out != "" {
				happened["watchdogs that died"]++
			}
		case "reboot":
			b.node.Exec(b.ctx, "systemctl", "reboot") // its own connection may end first
			err = b.node.WaitOff(b.ctx)
		default:
			err = b.node.Cut(b.ctx, how != "power cut")
		}
		if err == nil && !strings.HasPrefix(how, "kill") {
			mark = b.Timeline.Mark()
			err = b.node.Boot(b.ctx)
		}
		if err != nil {
			t.Fatalf("%s: %v", how, err)
		}
		running = b.atRest(mark)
		if how == "kill the watchdog" { // without one, a node accepts no upgrade until its next start
			mark = b.Timeline.Mark()
			if _, err := b.node.Exec(b.ctx, "systemctl", "restart", "edge.service"); err != nil {
				t.Fatal(err)
			}
			running = b.atRest(mark)
			// The beat of the start before may arrive only now; it offers no upgrade.
			b.wait(mark, "a beat that offers upgrades", func(e rig.Entry) bool {
				return e.Type == "capabilities" && slices.Contains(e.Capabilities, wire.CapabilityUpgrade)
			})
		}
	}
	t.Logf("%d rounds: %v", rounds, happened)
	for id, s := range b.stories(start) {
		completed, back := slices.Contains(s.events, "upgrade_completed"), slices.Contains(s.events, "upgrade_rolled_back")
		switch {
		case len(s.acks) != 1:
			t.Errorf("%s was acked as %v (%v)", id, s.acks, s.events)
		case s.acks[0] == "" && completed == back:
			t.Errorf("%s was staged, and then: %v", id, s.events)
		case s.acks[0] != "" && (completed || back):
			t.Errorf("%s failed with %s, and then: %v", id, s.acks[0], s.events)
		}
	}
}

// atRest waits until the node runs without a trial and has delivered all events, and
// returns its version.
func (b *inBox) atRest(mark int) string {
	b.t.Helper()
	b.wait(mark, "the node to come back", func(e rig.Entry) bool { return e.Type == "authenticated" })
	for tick := time.Tick(50 * time.Millisecond); ; <-tick {
		staging := b.staging() // first: an ack may arrive while the status is read, and the swap comes before it
		st, err := b.node.Status(b.ctx)
		if err == nil && (st.Status == state.Stable || st.Status == state.RolledBack) && st.Undelivered == 0 && !staging {
			if st.Current == "1.2.0" || st.Current != st.LastGood {
				b.t.Fatalf("at rest: %+v", st)
			}
			return st.Current
		}
		if b.ctx.Err() != nil {
			b.t.Fatalf("not at rest: %+v, %v", st, err)
		}
	}
}

// story returns the codes of a command's events and acks at the manager; an ack without
// error_code is "".
type story struct{ acks, events []string }

func (b *inBox) stories(mark int) map[string]*story {
	all := map[string]*story{}
	for _, e := range b.Timeline.Since(mark) {
		if e.CommandID == "" || (e.Type != "ack" && e.Type != "event") {
			continue
		}
		s := all[e.CommandID]
		if s == nil {
			s = &story{}
			all[e.CommandID] = s
		}
		list := &s.events
		if e.Type == "ack" {
			list = &s.acks
		}
		if !slices.Contains(*list, e.ErrorCode) {
			*list = append(*list, e.ErrorCode)
		}
	}
	return all
}

// staging reports whether a started command has no outcome yet.
func (b *inBox) staging() bool {
	for _, s := range b.stories(0) {
		if len(s.acks) == 0 {
			return true
		}
	}
	return false
}
