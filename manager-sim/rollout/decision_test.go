package rollout_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/bilbycast/edge-agent/manager-sim/rollout"
)

// decided returns a staged rollout to n online nodes, whose first wave has its commands.
func decided(t *testing.T, n int) rollout.Rollout {
	t.Helper()
	ids, online := []string{}, map[string]bool{}
	for i := range n {
		id := fmt.Sprintf("node-%02d", i)
		ids, online[id] = append(ids, id), true
	}
	r, _, err := rollout.New(rollout.Plan{ID: "r", Version: "2.0.0", Threshold: 1}, ids, online, time.Unix(1000, 0))
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func stepped(t *testing.T, r rollout.Rollout, e rollout.Event) rollout.Rollout {
	t.Helper()
	next, _, err := rollout.Step(r, e, time.Unix(1001, 0))
	if err != nil {
		t.Fatal(err)
	}
	return next
}

func fails(r rollout.Rollout, i int) rollout.Event {
	return rollout.Outcome{NodeID: r.Nodes[i].ID, Attempt: r.Nodes[i].Attempt, State: rollout.NodeFailed, Code: "x"}
}

func TestDecisionDoesNotDependOnProgress(t *testing.T) {
	t.Parallel()
	r := decided(t, 30)
	next := stepped(t, r, rollout.Outcome{NodeID: r.Nodes[0].ID, Attempt: 1, State: rollout.NodeUpdated})
	next = stepped(t, next, rollout.Presence{NodeID: r.Nodes[20].ID})
	next = stepped(t, next, rollout.Tick{})
	if r.Decision() != next.Decision() {
		t.Errorf("the decision changed with the progress: %s, %s", r.Decision(), next.Decision())
	}
}

// An act on a rollout that a person saw before something changed is refused, says what is
// new, and changes nothing.
func TestActsOnWhatWasSeen(t *testing.T) {
	t.Parallel()
	r := decided(t, 30) // waves 3, 15, 30
	one := stepped(t, r, fails(r, 0))
	two := stepped(t, stepped(t, one, fails(one, 1)), fails(one, 2))
	resumed := stepped(t, one, rollout.Resume{})
	for name, tt := range map[string]struct {
		saw, is rollout.Rollout
		want    []string
	}{
		"failures":       {one, two, []string{"2 more nodes failed: " + r.Nodes[1].ID + ", " + r.Nodes[2].ID}},
		"it paused":      {r, one, []string{"it paused", "1 more node failed: " + r.Nodes[0].ID}},
		"by an operator": {r, stepped(t, r, rollout.Pause{Reason: "paused by ann"}), []string{"it was paused by ann"}},
		"resumed":        {one, resumed, []string{"it was resumed"}},
		"skipped":        {one, stepped(t, one, rollout.Skip{NodeID: r.Nodes[9].ID}), []string{"1 more node left out: " + r.Nodes[9].ID}},
		"retried":        {one, stepped(t, one, rollout.Retry{}), []string{"it was resumed", "no longer failed or left out: " + r.Nodes[0].ID}},
		"next wave": {stepped(t, one, rollout.Pause{}), func() rollout.Rollout {
			n := one
			n.Wave++
			return n
		}(), []string{"wave 2 of 3 began"}},
		"rules": {one, func() rollout.Rollout {
			n := one
			n.Threshold++
			return n
		}(), []string{"its rules"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for _, act := range []rollout.Event{rollout.Resume{}, rollout.Retry{}, rollout.Skip{NodeID: r.Nodes[5].ID}} {
				next, acts, err := rollout.Step(tt.is, rollout.Seen{Decision: tt.saw.Decision(), Act: act}, time.Unix(1002, 0))
				var changed *rollout.ChangedError
				if !errors.As(err, &changed) || len(acts) > 0 || next.Decision() != tt.is.Decision() {
					t.Fatalf("%T: %v, %d actions", act, err, len(acts))
				}
				for _, want := range tt.want {
					if !strings.Contains(err.Error(), want) {
						t.Errorf("%q does not say %q", err, want)
					}
				}
			}
		})
	}
	if next := stepped(t, two, rollout.Seen{Decision: two.Decision(), Act: rollout.Resume{}}); next.Status == rollout.Paused {
		t.Error("what was seen is not resumed")
	}
}

// A skip that names nothing of what its requester saw is refused where it would decide on
// something: a node that has begun, a pause, or a failure that nobody saw.
func TestASkipOfNothingSeen(t *testing.T) {
	t.Parallel()
	r := decided(t, 10)
	fell := func(state rollout.NodeState, code string, known bool) rollout.Rollout {
		n := r
		n.Nodes = slices.Clone(r.Nodes)
		n.Nodes[0].State, n.Nodes[0].Code, n.Nodes[0].Known, n.Nodes[0].Attempt = state, code, known, 1
		return n
	}
	begun := fell(rollout.NodeCommanded, "", false)
	begun.Nodes[0], begun.Nodes[9] = r.Nodes[0], begun.Nodes[0]
	begun.Nodes[9].ID = r.Nodes[9].ID
	for name, tt := range map[string]struct {
		is   rollout.Rollout
		want error
	}{
		"nothing happened":          {r, nil},
		"a failure":                 {fell(rollout.NodeFailed, "upgrade_internal", false), rollout.ErrUnseen},
		"a rollback":                {fell(rollout.NodeRolledBack, "", false), rollout.ErrUnseen},
		"a dependency that is down": {fell(rollout.NodeDependency, "", false), rollout.ErrUnseen},
		"unproven for too long":     {fell(rollout.NodeUnproven, rollout.TimeLimit, false), rollout.ErrUnseen},
		"a failure that was seen":   {fell(rollout.NodeFailed, "upgrade_internal", true), nil},
		"the node has its command":  {begun, rollout.ErrUnseen},
	} {
		tt.is.Threshold = 3
		if _, _, err := rollout.Step(tt.is, rollout.Skip{NodeID: r.Nodes[9].ID, Unseen: true}, time.Unix(1002, 0)); !errors.Is(err, tt.want) {
			t.Errorf("%s: %v, want %v", name, err, tt.want)
		}
	}
}

// A decision is bounded, whatever fails, and no text of a requester breaks the refusal.
func TestDecisionIsBounded(t *testing.T) {
	t.Parallel()
	r := decided(t, 2000)
	for i := range r.Nodes {
		r.Nodes[i].State, r.Nodes[i].Attempt = rollout.NodeFailed, 1
	}
	if d := r.Decision(); len(d) > 700 {
		t.Errorf("%d bytes", len(d))
	}
	for _, d := range []string{"", "x", "x.", "x.e30", "x.bnVsbA", "x.W10", strings.Repeat("A", 1<<16), "x." + strings.Repeat("A", 1<<16), "x.eyJuIjp7IjAiOltudWxsLHt9XX19"} {
		var changed *rollout.ChangedError
		if _, _, err := rollout.Step(r, rollout.Seen{Decision: d, Act: rollout.Resume{}}, time.Unix(1002, 0)); !errors.As(err, &changed) || len(changed.Changes) == 0 {
			t.Errorf("%.40q: %v", d, err)
		}
	}
}

// The first manifest of a device type is pinned, in the new value only, and is no news for a
// person who decides.
func TestPin(t *testing.T) {
	t.Parallel()
	r := decided(t, 3)
	next := stepped(t, r, rollout.Pin{DeviceType: "edge", SHA256: "a"})
	last := stepped(t, stepped(t, next, rollout.Pin{DeviceType: "edge", SHA256: "b"}), rollout.Pin{DeviceType: "camera", SHA256: "c"})
	if len(r.Manifests) != 0 || len(next.Manifests) != 1 || last.Manifests["edge"] != "a" || last.Manifests["camera"] != "c" {
		t.Errorf("%v, %v, %v", r.Manifests, next.Manifests, last.Manifests)
	}
	if r.Decision() != last.Decision() {
		t.Error("the decision changed")
	}
}
