package rollout_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/bilbycast/edge-agent/manager-sim/rollout"
)

// The reason of a pause counts every failure so far, also those after the pause, until
// an operator resumes.
func TestTheReasonOfAPauseCountsAllFailures(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 11, 26, 0, 0, 0, 0, time.UTC)
	var ids []string
	online := map[string]bool{}
	for i := range 6 {
		ids = append(ids, fmt.Sprint("n", i))
		online[ids[i]] = true
	}
	r, _, err := rollout.New(rollout.Plan{ID: "r", Version: "1.1.0", Strategy: rollout.Immediate}, ids, online, now)
	if err != nil {
		t.Fatal(err)
	}
	step := func(e rollout.Event) {
		t.Helper()
		if r, _, err = rollout.Step(r, e, now); err != nil {
			t.Fatal(err)
		}
	}
	for i, want := range []string{"1 node failed in wave 1 of 1", "2 nodes failed in wave 1 of 1", "3 nodes failed in wave 1 of 1"} {
		step(rollout.Outcome{NodeID: ids[i], Attempt: 1, State: rollout.NodeFailed, Code: "upgrade_disk_full"})
		if got := r.PauseReason(); got != want || r.Status != rollout.Paused {
			t.Errorf("after %d: %s, %q", i+1, r.Status, got)
		}
	}
	step(rollout.Outcome{NodeID: ids[3], Attempt: 1, State: rollout.NodeRolledBack, Code: "upgrade_rolled_back"})
	if got, want := r.PauseReason(), "3 nodes failed, 1 node rolled back in wave 1 of 1"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	step(rollout.Resume{})
	if got := r.PauseReason(); got != "" {
		t.Errorf("after it was resumed: %q", got)
	}
	step(rollout.Pause{Reason: "paused by alice"})
	if got := r.PauseReason(); got != "paused by alice" {
		t.Errorf("paused by an operator: %q", got)
	}
	step(rollout.Outcome{NodeID: ids[4], Attempt: 1, State: rollout.NodeFailed, Code: "x"})
	if got := r.PauseReason(); got != "paused by alice; 1 node failed in wave 1 of 1" {
		t.Errorf("and a failure: %q", got)
	}
}
