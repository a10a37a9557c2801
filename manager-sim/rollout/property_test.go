package rollout

import (
	"encoding/json"
	"fmt"
	"github.com/bilbycast/edge-agent/internal/box"
	"math/rand/v2"
	"slices"
	"testing"
	"time"
)

// Fleets that are too large for the model get random events, times and restarts. Every
// step is checked as in the model, and once the events stop, every rollout ends.
func TestRandomFleets(t *testing.T) {
	t.Parallel()
	box.Slow(t)
	const rounds = 120
	for seed := range uint64(rounds) {
		rnd := rand.New(rand.NewPCG(seed, 1))
		n := 1 + rnd.IntN(60)
		var ids []string
		online := map[string]bool{}
		for i := range n {
			id := fmt.Sprint("node", i)
			ids = append(ids, id)
			online[id] = rnd.IntN(4) > 0
		}
		p := Plan{ID: fmt.Sprint("r", seed), Version: "1.1.0", Settle: time.Duration(rnd.IntN(10)) * step, Limit: 20 * step, Life: 300 * step,
			Threshold: 1 + rnd.IntN(3), Strategy: []string{Staged, Immediate}[rnd.IntN(2)]}
		now := epoch
		r, _, err := New(p, ids, online, now)
		if err != nil {
			t.Fatal(err)
		}
		do := func(e Event) {
			t.Helper()
			next, acts, err := Step(r, e, now)
			if bad := check(r, e, next, acts, err, now); bad != "" {
				t.Fatalf("seed %d: %s: %T %+v in %s", seed, bad, e, e, r.Status)
			}
			if err != nil {
				return
			}
			b, err := json.Marshal(next) // a restart at any moment
			if err != nil {
				t.Fatal(err)
			}
			var again Rollout
			if err := json.Unmarshal(b, &again); err != nil {
				t.Fatal(err)
			}
			for i := range again.Nodes {
				again.Nodes[i].Online = next.Nodes[i].Online
			}
			again.Outages = next.Outages
			r = again
		}
		random := func() Event {
			node := r.Nodes[rnd.IntN(n)]
			switch rnd.IntN(16) {
			case 14:
				return Condition{node.ID, rnd.IntN(node.Attempt + 1), []string{"", "", Vanished, Degraded, OtherVersion}[rnd.IntN(5)]}
			case 15:
				return Unproven{node.ID, node.Attempt, rnd.IntN(2) == 0}
			case 0:
				return Presence{node.ID, rnd.IntN(4) > 0}
			case 1:
				return Resume{}
			case 2:
				return Retry{}
			case 3:
				if rnd.IntN(8) == 0 {
					return Pause{"because"}
				}
			case 4:
				if rnd.IntN(20) == 0 {
					return Skip{NodeID: node.ID}
				}
			case 5:
				return Outcome{node.ID, rnd.IntN(node.Attempt + 1), NodeUpdated, ""} // of an earlier attempt, perhaps
			case 6, 7:
				return Tick{}
			}
			return Outcome{node.ID, node.Attempt, []NodeState{NodeUpdated, NodeUpdated, NodeUpdated, NodeUpdated, NodeFailed, NodeRolledBack, NodeDependency}[rnd.IntN(7)], "upgrade_x"}
		}
		for range 400 {
			if rnd.IntN(3) == 0 {
				now = now.Add(time.Duration(rnd.IntN(5)) * step)
			}
			if rnd.IntN(40) == 0 { // the manager is killed, and starts again later
				back := now.Add(time.Duration(rnd.IntN(30)) * step)
				r.Outages, now = append(slices.Clone(r.Outages), Outage{now, back}), back
			}
			do(random())
		}
		// From here on everybody is there, everything works, and the operator resumes.
		for calm := 0; !r.Status.Final(); calm++ {
			if calm > 5000 {
				t.Fatalf("seed %d: it never ends: %s, wave %d of %v", seed, r.Status, r.Wave, r.Waves)
			}
			for _, n := range r.Nodes {
				do(Presence{n.ID, true})
				if n.running() {
					do(Outcome{n.ID, n.Attempt, NodeUpdated, ""})
				}
			}
			if r.Status == Paused {
				do(Resume{})
			}
			now = now.Add(step)
			do(Tick{})
		}
	}
}
