package engine_test

import (
	"context"
	"encoding/json"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/bilbycast/edge-agent/manager-sim/api"
	"github.com/bilbycast/edge-agent/manager-sim/rollout"
	"github.com/bilbycast/edge-agent/manager-sim/server/engine"
	"github.com/bilbycast/edge-agent/manager-sim/store"
	"github.com/bilbycast/edge-agent/wire"
)

// site is an engine with a rollout to some nodes; that of startSite has one, "a", which got its command.
type site struct {
	t     *testing.T
	e     *engine.Engine
	st    *store.Store
	fleet *fleet
	id    string // of the rollout
}

func entryOf(what string) api.AuditEntry {
	return store.NewAuditEntry(time.Now(), "ann", what, "", nil)
}

func startSite(t *testing.T, withdraws bool) *site {
	t.Helper()
	e, st, f := start(t, "a")
	s := &site{t: t, e: e, st: st, fleet: f}
	s.must(st.AddGroup(t.Context(), api.Group{ID: "h", Name: "other", CreatedAt: time.Now()}, entryOf("group")))
	var features []string
	if withdraws {
		features = []string{wire.FeatureWithdraw}
	}
	s.must(st.RecordConnect(t.Context(), "a", "1.0.0", "192.0.2.1", time.Now(), features...))
	n := store.Node{ID: "a", Version: "1.0.0", LastSeen: time.Now(), Health: wire.StatusOK, Capabilities: []string{wire.CapabilityUpgrade}}
	s.must(st.RecordHealth(t.Context(), n))
	f.online["a"] = true
	s.schedule(api.RolloutRequest{LimitSecs: 600})
	return s
}

// schedule begins the rollout, to 1.1.0 in one wave.
func (s *site) schedule(req api.RolloutRequest) {
	s.t.Helper()
	nodes, err := s.st.GroupNodes(s.t.Context(), "g")
	s.must(err)
	req.Version, req.Strategy = "1.1.0", rollout.Immediate
	plan, err := s.e.Schedule(s.t.Context(), api.Group{ID: "g"}, nodes, req, rollout.Person{Key: "ann", Name: "ann"})
	s.must(err)
	s.id = plan.RolloutID
}

func (s *site) must(err error) {
	s.t.Helper()
	if err != nil {
		s.t.Fatal(err)
	}
}

func (s *site) act(e rollout.Event) {
	s.t.Helper()
	s.must(s.e.Act(s.t.Context(), s.id, e, "ann", entryOf("act")))
}

func (s *site) rollout() (stored store.Rollout, r rollout.Rollout) {
	s.t.Helper()
	stored, err := s.st.Rollout(s.t.Context(), s.id)
	s.must(err)
	s.must(json.Unmarshal(stored.State, &r))
	return stored, r
}

func (s *site) command() store.Command {
	s.t.Helper()
	_, r := s.rollout()
	c, err := s.st.Command(s.t.Context(), r.CommandID(rollout.Node{ID: "a", Attempt: 1}))
	s.must(err)
	return c
}

func (s *site) event(code string) {
	s.t.Helper()
	ev := api.Event{EventID: code, NodeID: "a", CommandID: s.command().ID, Time: time.Now(), ReceivedAt: time.Now(), Severity: "info", Category: "upgrade", ErrorCode: code, Details: []byte("{}")}
	_, err := s.st.AddEvent(s.t.Context(), &ev)
	s.must(err)
}

// age makes the command older than the limit of the rollout, or the rollout than its lifetime.
func (s *site) age(life bool) {
	s.t.Helper()
	stored, r := s.rollout()
	r.Nodes[0].Since = r.Nodes[0].Since.Add(-time.Hour)
	if life {
		r.CreatedAt = r.CreatedAt.Add(-30 * 24 * time.Hour)
	}
	var err error
	stored.State, err = json.Marshal(r)
	s.must(err)
	s.must(s.st.SaveRollout(s.t.Context(), stored, nil, nil))
}

// settle runs the engine until it has looked at the rollout.
func (s *site) settle(done func() bool) {
	s.t.Helper()
	ctx, cancel := context.WithCancel(s.t.Context())
	var running sync.WaitGroup
	running.Go(func() { s.e.Run(ctx) })
	defer running.Wait()
	defer cancel()
	for deadline := time.Now().Add(20 * time.Second); !done(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			_, r := s.rollout()
			s.t.Fatalf("the engine does not decide: %+v, command %s (%s)", r.Nodes, s.command().State, s.command().Reason)
		}
	}
}

// Every way in which a command loses its reason, for a command that was never sent, one that
// was sent and that the node has not begun, and one that it has begun, and for nodes that obey
// withdrawals and nodes that do not.
func TestEveryWayToLoseTheReason(t *testing.T) {
	t.Parallel()
	const never, sent, begun = "never sent", "sent", "begun"
	leaves := func(s *site) func() bool {
		return func() bool { _, r := s.rollout(); return r.Nodes[0].State == rollout.NodeSkipped }
	}
	for name, tt := range map[string]struct {
		do func(s *site, progress string)
		// want is the state of the command, by progress; begun commands go on if it is absent.
		want map[string]store.CommandState
	}{
		"abort": {func(s *site, _ string) { s.act(rollout.Abort{}) }, map[string]store.CommandState{never: store.CommandWithdrawn, sent: store.CommandWithdrawn}},
		"pause": {func(s *site, _ string) { s.act(rollout.Pause{Reason: "x"}) }, map[string]store.CommandState{never: store.CommandHeld, sent: store.CommandHeld}},
		"skip":  {func(s *site, _ string) { s.act(rollout.Skip{NodeID: "a"}) }, map[string]store.CommandState{never: store.CommandWithdrawn, sent: store.CommandWithdrawn}},
		"time limit": {func(s *site, _ string) { s.age(false); s.act(rollout.Pause{Reason: "x"}) },
			map[string]store.CommandState{never: store.CommandHeld, sent: store.CommandHeld}},
		"moved": {func(s *site, progress string) {
			s.must(s.st.SetGroup(s.t.Context(), "a", "h", entryOf("move")))
			s.e.NodeChanged("a")
			if progress != begun {
				s.settle(leaves(s))
			}
		}, map[string]store.CommandState{never: store.CommandWithdrawn, sent: store.CommandWithdrawn}},
		"removed": {func(s *site, _ string) { s.must(s.st.RemoveNode(s.t.Context(), "a", time.Now(), entryOf("remove"))) },
			map[string]store.CommandState{never: store.CommandWithdrawn, sent: store.CommandWithdrawn, begun: store.CommandWithdrawn}},
		"withdrawn": {func(s *site, _ string) {
			f, err := s.e.Commands.Withdraw(s.t.Context(), "a", s.command().ID, "ann", entryOf("withdraw"))
			if s.must(err); f != nil {
				s.t.Fatal(f)
			}
		}, map[string]store.CommandState{never: store.CommandWithdrawn, sent: store.CommandWithdrawn, begun: store.CommandWithdrawn}},
		"retry": {func(s *site, _ string) {
			s.age(false)
			s.settle(func() bool { _, r := s.rollout(); return r.Status == rollout.Paused })
			s.act(rollout.Retry{By: rollout.Person{Key: "bob", Name: "bob"}})
		}, map[string]store.CommandState{never: store.CommandWithdrawn, sent: store.CommandWithdrawn, begun: store.CommandWithdrawn}},
		"lifetime": {func(s *site, progress string) {
			s.age(true)
			if progress != begun {
				s.settle(func() bool { _, r := s.rollout(); return r.Nodes[0].State == rollout.NodeFailed })
			}
		}, map[string]store.CommandState{never: store.CommandWithdrawn, sent: store.CommandWithdrawn}},
		"newer": {func(s *site, progress string) {
			s.fleet.mu.Lock()
			s.fleet.online["a"] = false
			s.fleet.mu.Unlock()
			f, err := s.e.Commands.Request(s.t.Context(), store.Command{ID: "new", NodeID: "a", Version: "1.2.0", Action: []byte("{}"), CreatedAt: time.Now(), Actor: "bob", Replaces: s.command().ID}, false)
			if s.must(err); (f == nil) != (progress == never) {
				s.t.Errorf("a newer command: %+v", f)
			}
		}, map[string]store.CommandState{never: store.CommandSuperseded, sent: store.CommandSent}},
	} {
		for _, progress := range []string{never, sent, begun} {
			for _, withdraws := range []bool{true, false} {
				t.Run(fmt.Sprintf("%s/%s/%t", name, progress, withdraws), func(t *testing.T) {
					t.Parallel()
					s := startSite(t, withdraws)
					id := s.command().ID
					if progress != never {
						s.must(s.st.RecordSent(t.Context(), id, time.Now()))
					}
					if progress == begun {
						s.event("upgrade_started")
					}
					tt.do(s, progress)
					want, ok := tt.want[progress]
					if !ok {
						want = store.CommandSent
					}
					if want == store.CommandHeld && progress == sent && withdraws {
						want = store.CommandWithdrawn // and commanded again by resume
					}
					c := s.command()
					if c.State != want {
						t.Errorf("the command is %s (%s), want %s", c.State, c.Reason, want)
					}
					// Whatever sends is refused, unless the command goes on.
					err := s.st.RecordSent(t.Context(), id, time.Now())
					if goes := want == store.CommandSent && name != "moved"; (err == nil) != goes {
						t.Errorf("sending it again: %v, want %t", err, goes)
					}
					if want == store.CommandWithdrawn {
						if c.MayStillRun() != (progress != never) || c.Reason == "" || c.DecidedBy == "" || c.WithdrawnAt.IsZero() {
							t.Errorf("withdrawn: %+v", c)
						}
						// A late outcome is recorded.
						if first, err := s.st.RecordAck(t.Context(), store.Command{ID: id, NodeID: "a", AckedAt: time.Now(), Success: true}); err != nil || !first {
							t.Errorf("a late answer: %t, %v", first, err)
						}
						if c := s.command(); c.State != store.CommandWithdrawn || c.AckedAt.IsZero() || c.MayStillRun() {
							t.Errorf("after it: %+v", c)
						}
					}
				})
			}
		}
	}
}

// A pause holds what was never sent, and resume releases it under the same id. What was sent
// to a node that obeys withdrawals is commanded again, as a new attempt.
func TestResumeAfterHold(t *testing.T) {
	t.Parallel()
	for _, sent := range []bool{false, true} {
		s := startSite(t, true)
		if sent {
			s.must(s.st.RecordSent(t.Context(), s.command().ID, time.Now()))
		}
		s.act(rollout.Pause{Reason: "x"})
		if sent { // the node confirms
			ok, err := s.st.RecordWithdrawAck(t.Context(), "a", s.command().ID, true, time.Now())
			if s.must(err); !ok {
				t.Error("the confirmation is not recorded")
			}
		}
		s.act(rollout.Resume{By: rollout.Person{Key: "bob", Name: "bob"}})
		_, r := s.rollout()
		attempt := 1
		if sent {
			attempt = 2
		}
		if n := r.Nodes[0]; n.State != rollout.NodeCommanded || n.Attempt != attempt || n.Hold != "" || r.Acting.Name != "bob" {
			t.Errorf("sent %t: %+v", sent, n)
		}
		last := s.fleet.sent[len(s.fleet.sent)-1]
		if last.ID != r.CommandID(r.Nodes[0]) || last.State != store.CommandPending {
			t.Errorf("sent %t: the last one is %+v", sent, last)
		}
	}
}

// An aborted rollout records the outcome of a command that the node obeyed all the same.
func TestAnOutcomeAfterTheAbort(t *testing.T) {
	t.Parallel()
	s := startSite(t, false)
	s.must(s.st.RecordSent(t.Context(), s.command().ID, time.Now()))
	s.act(rollout.Abort{})
	s.event("upgrade_completed")
	s.e.NodeChanged("a")
	s.settle(func() bool { _, r := s.rollout(); return r.Nodes[0].State == rollout.NodeUpdated })
	if _, r := s.rollout(); r.Status != rollout.Aborted {
		t.Errorf("it is %s", r.Status)
	}
}

type rights map[string]bool

func (r rights) May(_ context.Context, key string, _ api.Role, _ string) (bool, error) {
	return r[key], nil
}

// If the person who started a rollout has lost the right, it pauses, and another one resumes it.
func TestALostRight(t *testing.T) {
	t.Parallel()
	s := startSite(t, false)
	may := rights{"bob": true}
	s.e.Rights = may
	s.settle(func() bool { _, r := s.rollout(); return r.Status == rollout.Paused })
	if c := s.command(); c.State != store.CommandHeld {
		t.Errorf("the command is %s", c.State)
	}
	if _, r := s.rollout(); r.PauseReason() != "ann, who started or resumed it last, may no longer upgrade this group; another person may resume it" {
		t.Errorf("paused: %q", r.PauseReason())
	}
	s.act(rollout.Resume{By: rollout.Person{Key: "bob", Name: "bob"}})
	if _, r := s.rollout(); r.Status != rollout.Running || s.command().State != store.CommandPending {
		t.Errorf("after resume: %s, %s", r.Status, s.command().State)
	}
}

// A node that was moved is wanted by one rollout at most, and a node that runs the version
// already gets no command.
func TestOneRolloutWantsANode(t *testing.T) {
	t.Parallel()
	s := startSite(t, false)
	s.must(s.st.RecordSent(t.Context(), s.command().ID, time.Now()))
	s.event("upgrade_started")
	s.must(s.st.SetGroup(t.Context(), "a", "h", entryOf("move")))
	nodes, err := s.st.GroupNodes(t.Context(), "h")
	s.must(err)
	if _, err := s.e.Schedule(t.Context(), api.Group{ID: "h"}, nodes, api.RolloutRequest{Version: "1.3.0"}, rollout.Person{}); err == nil {
		t.Error("a second rollout takes a node that the first one upgrades")
	}
}
