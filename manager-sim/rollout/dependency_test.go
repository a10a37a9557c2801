package rollout_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/bilbycast/edge-agent/manager-sim/rollout"
)

// A node that rolled back for what is probably a dependency is no failure. The rest of the
// wave goes on; then the rollout pauses, whatever the threshold. A retry tries the node
// again; a resume goes on without it.
func TestANodeWithoutItsDependency(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 11, 26, 0, 0, 0, 0, time.UTC)
	var ids []string
	online := map[string]bool{}
	for i := range 20 {
		ids = append(ids, fmt.Sprint("n", i))
		online[ids[i]] = true
	}
	for name, tt := range map[string]struct {
		then func(r rollout.Rollout, first string) rollout.Event
		want map[rollout.NodeState]int
		wave int
	}{
		"retry":  {func(rollout.Rollout, string) rollout.Event { return rollout.Retry{} }, map[rollout.NodeState]int{rollout.NodeCommanded: 1, rollout.NodeUpdated: 1}, 0},
		"resume": {func(rollout.Rollout, string) rollout.Event { return rollout.Resume{} }, map[rollout.NodeState]int{rollout.NodeDependency: 1, rollout.NodeUpdated: 1, rollout.NodeCommanded: 8}, 1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r, _, err := rollout.New(rollout.Plan{ID: "r", Version: "1.1.0", Threshold: 5, Settle: time.Minute}, ids, online, now)
			if err != nil {
				t.Fatal(err)
			}
			first, second := r.Nodes[0].ID, r.Nodes[1].ID
			acts := func(e rollout.Event, now time.Time) (acts []rollout.Action) {
				t.Helper()
				if r, acts, err = rollout.Step(r, e, now); err != nil {
					t.Fatal(err)
				}
				return acts
			}
			acts(rollout.Outcome{NodeID: first, Attempt: 1, State: rollout.NodeDependency, Code: rollout.Dependency}, now)
			if r.Status != rollout.Running {
				t.Errorf("while another node upgrades: %s", r.Status)
			}
			notes := acts(rollout.Outcome{NodeID: second, Attempt: 1, State: rollout.NodeUpdated}, now)
			if got, want := r.PauseReason(), "1 node rolled back, probably a dependency ("+first+") in wave 1 of 3"; r.Status != rollout.Paused || got != want {
				t.Errorf("%s, %q, want %q", r.Status, got, want)
			}
			if note := (rollout.Note{Action: rollout.NotePaused, Wave: 1, Updated: 1}); len(notes) != 1 || notes[0] != note {
				t.Errorf("noted %+v, want %+v", notes, note)
			}
			acts(rollout.Tick{}, now.Add(time.Hour))
			if r.Status != rollout.Paused || r.Wave != 0 {
				t.Errorf("later: %s, wave %d", r.Status, r.Wave)
			}
			at := now.Add(2 * time.Hour)
			acts(tt.then(r, first), at)
			acts(rollout.Tick{}, at.Add(time.Minute))
			for state, k := range tt.want {
				if r.Count(state) != k {
					t.Errorf("%d nodes are %s, want %d", r.Count(state), state, k)
				}
			}
			if r.Wave != tt.wave || r.Status == rollout.Paused {
				t.Errorf("%s, wave %d", r.Status, r.Wave)
			}
		})
	}
}
