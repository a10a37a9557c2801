package engine_test

import (
	"context"
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/bilbycast/edge-agent/manager-sim/api"
	"github.com/bilbycast/edge-agent/manager-sim/rollout"
	"github.com/bilbycast/edge-agent/manager-sim/server/engine"
	"github.com/bilbycast/edge-agent/manager-sim/store"
)

// Rollouts that are broken in every way pause with the reason, the others go on, and each can
// be aborted.
func TestBrokenRollouts(t *testing.T) {
	t.Parallel()
	ways := map[string]func(r *rollout.Rollout) json.RawMessage{
		"":        nil,
		"no JSON": func(*rollout.Rollout) json.RawMessage { return json.RawMessage(`{"id":`) },
		"another type": func(r *rollout.Rollout) json.RawMessage {
			return json.RawMessage(`{"id":"` + r.ID + `","settle_ns":1e400}`)
		},
		"nothing":             func(*rollout.Rollout) json.RawMessage { return json.RawMessage(`{}`) },
		"a negative wave":     func(r *rollout.Rollout) json.RawMessage { r.Wave = -1; return nil },
		"a wave past the end": func(r *rollout.Rollout) json.RawMessage { r.Wave = 9; return nil },
		"a missing command":   func(r *rollout.Rollout) json.RawMessage { r.Nodes[0].Attempt = 7; return nil },
	}
	e, st, f := start(t)
	now := time.Now()
	entry := store.NewAuditEntry(now, "test", "test", "", nil)
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	ids := map[string]string{}
	names := []string{""}
	for name := range ways {
		if name != "" {
			names = append(names, name)
		}
	}
	for _, name := range names { // the one that is well is the oldest, so it is the last one that is processed
		node, group := "n-"+name, "g-"+name
		n := store.Node{ID: node, Version: "1.0.0", RegisteredAt: now, LastSeen: now, Health: "ok", Capabilities: []string{"upgrade"}}
		must(st.AddGroup(t.Context(), api.Group{ID: group, Name: group, CreatedAt: now}, entry))
		must(st.Register(t.Context(), "token", n))
		must(st.RecordHealth(t.Context(), n))
		must(st.SetGroup(t.Context(), node, group, entry))
		f.online[node] = true
		nodes, err := st.GroupNodes(t.Context(), group)
		must(err)
		plan, err := e.Schedule(t.Context(), api.Group{ID: group}, nodes, api.RolloutRequest{Version: "1.1.0"}, rollout.Person{Key: "ann", Name: "ann"})
		must(err)
		ids[name] = plan.RolloutID
		if ways[name] == nil {
			continue
		}
		stored, err := st.Rollout(t.Context(), plan.RolloutID)
		must(err)
		r, err := engine.Decode(stored)
		must(err)
		if stored.State = ways[name](&r); stored.State == nil {
			stored.State, err = json.Marshal(r)
			must(err)
		}
		must(st.SaveRollout(t.Context(), stored, nil, nil))
	}
	ctx, stop := context.WithCancel(t.Context())
	ran := make(chan struct{})
	go func() { e.Run(ctx); close(ran) }()
	defer func() { stop(); <-ran }()
	well, err := st.Commands(t.Context(), "n-", 1)
	must(err)
	must(st.RecordSent(t.Context(), well[0].ID, time.Now()))
	must(st.RecordHealth(t.Context(), store.Node{ID: "n-", Version: "1.1.0", LastSeen: time.Now(), Health: "ok", Capabilities: []string{"upgrade"}}))
	e.NodeChanged("n-")
	decode := func(name string) (rollout.Rollout, bool, error) {
		stored, err := st.Rollout(t.Context(), ids[name])
		must(err)
		r, err := engine.Decode(stored)
		return r, stored.Active, err
	}
	for end := time.Now().Add(30 * time.Second); ; time.Sleep(time.Millisecond) {
		r, _, err := decode("")
		must(err)
		paused := !slices.ContainsFunc([]string{"a negative wave", "a wave past the end", "a missing command"}, func(name string) bool {
			r, _, err := decode(name)
			must(err)
			return r.Status != rollout.Paused || r.Broken == "" || !strings.Contains(r.PauseReason(), "broken: ")
		})
		if r.Status == rollout.Completed && paused {
			break
		}
		if time.Now().After(end) {
			t.Fatalf("the one that is well is %s; the broken ones are paused: %t", r.Status, paused)
		}
	}
	commandOf := func(name string) store.CommandState {
		cs, err := st.Commands(t.Context(), "n-"+name, 1)
		must(err)
		return cs[0].State
	}
	for _, name := range names[1:] {
		if _, _, unreadable := decode(name); unreadable != nil {
			for end := time.Now().Add(10 * time.Second); commandOf(name) != store.CommandHeld && time.Now().Before(end); time.Sleep(time.Millisecond) {
			}
			if state := commandOf(name); state != store.CommandHeld {
				t.Errorf("%s: its command is %s", name, state)
			}
		}
		err := e.Act(t.Context(), ids[name], rollout.Resume{}, "ann", entry)
		if missing := name == "a missing command"; missing && err != nil || !missing && !errors.Is(err, rollout.ErrBroken) {
			t.Errorf("%s: resumed: %v", name, err)
		}
		if err := e.Act(t.Context(), ids[name], rollout.Abort{}, "ann", entry); err != nil {
			t.Errorf("%s: aborted: %v", name, err)
		}
		if state := commandOf(name); state != store.CommandWithdrawn {
			t.Errorf("%s: aborted, and its command is %s", name, state)
		}
		if _, active, _ := decode(name); active {
			t.Errorf("%s: it is still active", name)
		}
		if err := e.Act(t.Context(), ids[name], rollout.Abort{}, "ann", entry); !errors.Is(err, rollout.ErrFinal) {
			t.Errorf("%s: aborted twice: %v", name, err)
		}
	}
}

// A rollout that is not valid, and of which a node was moved, pauses, stops no other one, and
// can be aborted.
func TestABrokenRolloutOfAMovedNode(t *testing.T) {
	t.Parallel()
	s := startSite(t, false)
	stored, r := s.rollout()
	r.Wave = 7
	var err error
	stored.State, err = json.Marshal(r)
	s.must(err)
	s.must(s.st.SaveRollout(t.Context(), stored, nil, nil))
	s.must(s.st.SetGroup(t.Context(), "a", "h", entryOf("move")))
	s.must(s.e.Step(t.Context()))
	if _, r := s.rollout(); r.Status != rollout.Paused || r.Broken == "" {
		t.Errorf("%s %q", r.Status, r.Broken)
	}
	if err := s.e.Act(t.Context(), s.id, rollout.Resume{}, "ann", entryOf("resume")); !errors.Is(err, rollout.ErrBroken) {
		t.Errorf("resumed: %v", err)
	}
	s.act(rollout.Abort{})
	if _, r := s.rollout(); r.Status != rollout.Aborted {
		t.Errorf("aborted: %s", r.Status)
	}
}
