package rollout

import (
	"errors"
	"strings"
	"testing"
	"time"
)

// A rollout whose state is not valid is paused by whatever happens, does not panic, and can
// be aborted.
func TestABrokenState(t *testing.T) {
	t.Parallel()
	valid, _, err := New(Plan{ID: "r", Version: "1.1.0"}, []string{"a", "b", "c"}, map[string]bool{"a": true, "b": true}, epoch)
	if err != nil || valid.Check() != nil {
		t.Fatal(err, valid.Check())
	}
	for name, change := range map[string]func(*Rollout){
		"a negative wave":     func(r *Rollout) { r.Wave = -1 },
		"a wave past the end": func(r *Rollout) { r.Wave = len(r.Waves) },
		"no waves":            func(r *Rollout) { r.Waves = nil },
		"waves not ascending": func(r *Rollout) { r.Waves = []int{2, 1, 3} },
		"a wave too large":    func(r *Rollout) { r.Waves = []int{1, 9} },
		"nodes beyond":        func(r *Rollout) { r.Waves = []int{1, 2} },
		"a negative settle":   func(r *Rollout) { r.Settle = -1 },
		"no limit":            func(r *Rollout) { r.Limit = 0 },
		"a negative life":     func(r *Rollout) { r.Life = -5 },
		"no threshold":        func(r *Rollout) { r.Threshold = 0 },
		"an unknown status":   func(r *Rollout) { r.Status = "odd" },
		"an unknown state":    func(r *Rollout) { r.Nodes[0].State = "odd" },
		"a node twice":        func(r *Rollout) { r.Nodes[1].ID = r.Nodes[0].ID },
		"a negative attempt":  func(r *Rollout) { r.Nodes[1].Attempt = -1 },
		"no nodes":            func(r *Rollout) { r.Nodes = nil },
		"paused and no waves": func(r *Rollout) { r.Status, r.Waves = Paused, nil },
		"settling, odd waves": func(r *Rollout) { r.Status, r.Wave = Settling, 7 },
	} {
		r := valid
		r.Nodes = append([]Node(nil), valid.Nodes...)
		change(&r)
		for _, e := range []Event{Tick{}, Outcome{NodeID: "a", Attempt: 1, State: NodeUpdated}, Presence{"c", true}, Condition{"a", 1, Vanished}} {
			next, acts, err := Step(r, e, epoch.Add(time.Hour))
			if err != nil || next.Status != Paused || next.Broken == "" || !strings.Contains(next.PauseReason(), "broken: "+next.Broken) {
				t.Errorf("%s, %T: %s %q, %v", name, e, next.Status, next.PauseReason(), err)
			}
			again, more, _ := Step(next, Tick{}, epoch.Add(2*time.Hour))
			if notesOf(acts) > 1 || len(more) > 0 || again.Broken != next.Broken || again.Reason != next.Reason {
				t.Errorf("%s, %T: again %q, %v %v", name, e, again.Reason, acts, more)
			}
			next.NextTick()
		}
		for _, e := range []Event{Resume{}, Retry{}, Skip{NodeID: "a"}, Pause{}} {
			if _, acts, err := Step(r, e, epoch); !errors.Is(err, ErrBroken) || len(acts) > 0 {
				t.Errorf("%s, %T: %v, %v", name, e, acts, err)
			}
		}
		if next, _, err := Step(r, Abort{}, epoch); err != nil || next.Status != Aborted || next.Broken != "" {
			t.Errorf("%s: abort: %s, %v", name, next.Status, err)
		}
	}
}

// Break pauses with its reason once; Resume goes on.
func TestBreak(t *testing.T) {
	t.Parallel()
	r, _, err := New(Plan{ID: "r", Version: "1.1.0"}, []string{"a"}, map[string]bool{"a": true}, epoch)
	if err != nil {
		t.Fatal(err)
	}
	var notes int
	for range 3 {
		var acts []Action
		r, acts, err = Step(r, Break{"no command"}, epoch)
		if notes += notesOf(acts); err != nil || r.Status != Paused || r.Broken != "no command" || r.PauseReason() != "broken: no command" {
			t.Errorf("%+v, %v", r, err)
		}
	}
	if notes != 1 {
		t.Errorf("%d notes", notes)
	}
	if r, _, err = Step(r, Resume{}, epoch); err != nil || r.Status != Running || r.Broken != "" || r.Reason != "" {
		t.Errorf("%+v, %v", r, err)
	}
	r, _, _ = Step(r, Pause{"paused by ann"}, epoch)
	if r, _, _ = Step(r, Break{"x"}, epoch); r.PauseReason() != "paused by ann; broken: x" {
		t.Error(r.PauseReason())
	}
}

// notesOf counts the entries for the audit trail.
func notesOf(acts []Action) (k int) {
	for _, a := range acts {
		if _, note := a.(Note); note {
			k++
		}
	}
	return k
}
