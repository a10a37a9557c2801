package engine_test

import (
	"context"
	"encoding/json"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/bilbycast/edge-agent/manager-sim/api"
	"github.com/bilbycast/edge-agent/manager-sim/rollout"
	"github.com/bilbycast/edge-agent/manager-sim/server/engine"
	"github.com/bilbycast/edge-agent/manager-sim/store"
	"github.com/bilbycast/edge-agent/wire"
	"github.com/rs/zerolog"
)

// startRollout is a site with a rollout to 1.1.0, in one wave, to nodes of which all but one are
// online; offline "": all are.
func startRollout(t *testing.T, offline string, req api.RolloutRequest, ids ...string) *site {
	t.Helper()
	e, st, f := start(t, ids...)
	for _, id := range ids {
		f.online[id] = id != offline
	}
	s := &site{t: t, e: e, st: st, fleet: f}
	s.schedule(req)
	return s
}

// newest returns the newest command of a node.
func (s *site) newest(node string) store.Command {
	s.t.Helper()
	cs, err := s.st.Commands(s.t.Context(), node, 1)
	s.must(err)
	return cs[0]
}

func (s *site) state() rollout.Rollout {
	s.t.Helper()
	_, r := s.rollout()
	return r
}

func (s *site) health(node, version, manifest string) {
	s.t.Helper()
	s.must(s.st.RecordHealth(s.t.Context(), store.Node{ID: node, Version: version, LastSeen: time.Now(), Health: wire.StatusOK, Capabilities: []string{wire.CapabilityUpgrade}, Manifest: manifest}))
}

// A rollout that has ended and cannot be read stops no other one.
func TestAnEndedRolloutThatCannotBeRead(t *testing.T) {
	t.Parallel()
	b := startRollout(t, "", api.RolloutRequest{}, "a")
	b.must(b.st.AddGroup(t.Context(), api.Group{ID: "h", Name: "h", CreatedAt: time.Now()}, entryOf("x")))
	b.must(b.st.SaveRollout(t.Context(), store.Rollout{ID: "old", GroupID: "h", State: json.RawMessage(`{"id":`), CreatedAt: time.Now()}, nil, nil))
	b.must(b.st.RecordSent(t.Context(), b.newest("a").ID, time.Now()))
	b.health("a", "1.1.0", "")
	b.must(b.e.Step(t.Context()))
	if r := b.state(); r.Status != rollout.Completed {
		t.Errorf("the other rollout is %s", r.Status)
	}
}

// A node of a rollout has the rollout's time limit, also one of more than an hour.
func TestALongLimitOfARollout(t *testing.T) {
	t.Parallel()
	b := startRollout(t, "", api.RolloutRequest{LimitSecs: 3 * 3600}, "a")
	b.must(b.st.RecordSent(t.Context(), b.newest("a").ID, time.Now().Add(-90*time.Minute)))
	n, err := b.st.Node(t.Context(), "a")
	b.must(err)
	if may, err := b.e.Commands.MaySend(t.Context(), b.newest("a"), n); err != nil || !may {
		t.Errorf("it may be sent again: %t, %v", may, err)
	}
	b.must(b.e.Step(t.Context()))
	if r := b.state(); r.Nodes[0].State != rollout.NodeCommanded {
		t.Errorf("the node is %s %s", r.Nodes[0].State, r.Nodes[0].Code)
	}
}

// After a pause, a command that was sent to a node which announced no withdrawals is sent again.
func TestAHeldCommandThatWasSentIsReleased(t *testing.T) {
	t.Parallel()
	b := startRollout(t, "", api.RolloutRequest{}, "a")
	b.must(b.st.RecordSent(t.Context(), b.newest("a").ID, time.Now()))
	b.act(rollout.Pause{Reason: "x"})
	if c := b.newest("a"); c.State != store.CommandHeld {
		t.Fatalf("paused: the command is %s", c.State)
	}
	b.act(rollout.Resume{By: rollout.Person{Key: "ann", Name: "ann"}})
	b.must(b.e.Step(t.Context()))
	if c, r := b.newest("a"), b.state(); c.State != store.CommandSent || r.Nodes[0].State != rollout.NodeCommanded {
		t.Errorf("resumed: the command is %s, the node %s", c.State, r.Nodes[0].State)
	}
}

// A node that runs another release of the version is not updated by a retry, or because it came
// back with it.
func TestAnotherReleaseOfTheVersionIsNoUpdate(t *testing.T) {
	t.Parallel()
	for _, retry := range []bool{true, false} {
		offline := "b"
		if retry {
			offline = ""
		}
		b := startRollout(t, offline, api.RolloutRequest{}, "a", "b")
		if retry {
			b.must(b.st.RecordSent(t.Context(), b.newest("b").ID, time.Now()))
		}
		b.must(b.st.RecordSent(t.Context(), b.newest("a").ID, time.Now()))
		b.health("a", "1.1.0", strings.Repeat("a", 64))
		b.must(b.e.Step(t.Context()))
		b.health("b", "1.1.0", strings.Repeat("b", 64))
		b.fleet.online["b"] = true
		b.must(b.e.Step(t.Context()))
		if retry {
			b.act(rollout.Retry{By: rollout.Person{Key: "ann", Name: "ann"}})
			b.must(b.e.Step(t.Context()))
		}
		r := b.state()
		for _, n := range r.Nodes {
			if n.ID == "b" && n.State == rollout.NodeUpdated || r.Status == rollout.Completed {
				t.Errorf("retry %t: %s is %s, the rollout %s", retry, n.ID, n.State, r.Status)
			}
		}
	}
}

// A rollout that replaces a command which a node received withdraws that over the wire, too.
func TestAReplacedCommandIsWithdrawnOverTheWire(t *testing.T) {
	t.Parallel()
	e, st, f := start(t, "a")
	f.online["a"] = true
	if refusal, err := e.Commands.Request(t.Context(), store.Command{ID: "old", NodeID: "a", Version: "2.0.0", Action: []byte("{}"), CreatedAt: time.Now()}, false); refusal != nil || err != nil {
		t.Fatal(refusal, err)
	}
	if err := st.RecordSent(t.Context(), "old", time.Now().Add(-2*time.Hour)); err != nil { // never answered
		t.Fatal(err)
	}
	nodes, err := st.GroupNodes(t.Context(), "g")
	if err == nil {
		_, err = e.Schedule(t.Context(), api.Group{ID: "g"}, nodes, api.RolloutRequest{Version: "1.1.0"}, rollout.Person{Key: "ann", Name: "ann"})
	}
	if err != nil {
		t.Fatal(err)
	}
	if len(f.sent) != 3 || f.sent[1].ID != "old" || f.sent[1].State != store.CommandWithdrawn || f.sent[2].Version != "1.1.0" {
		t.Errorf("sent %+v", f.sent)
	}
}

// A rollout that breaks withdraws what a node has not begun, and nothing that it has begun.
func TestABrokenRolloutKnowsWhatHasBegun(t *testing.T) {
	t.Parallel()
	b := startRollout(t, "", api.RolloutRequest{}, "a", "b")
	for _, id := range []string{"a", "b"} {
		b.must(b.st.RecordConnect(t.Context(), id, "1.0.0", "x", time.Now(), wire.FeatureWithdraw))
		b.must(b.st.RecordSent(t.Context(), b.newest(id).ID, time.Now()))
	}
	event := api.Event{EventID: "1", NodeID: "b", CommandID: b.newest("b").ID, Time: time.Now(), ReceivedAt: time.Now(), Severity: "info", Category: "upgrade", ErrorCode: "upgrade_started", Details: []byte("{}")}
	_, err := b.st.AddEvent(t.Context(), &event)
	b.must(err)
	stored, err := b.st.Rollout(t.Context(), b.id)
	b.must(err)
	stored.State = json.RawMessage(`{"id":`)
	b.must(b.st.SaveRollout(t.Context(), stored, nil, nil))
	b.must(b.e.Step(t.Context()))
	if a, begun := b.newest("a").State, b.newest("b").State; a != store.CommandHeld || begun != store.CommandSent {
		t.Errorf("broken: the command that has not begun is %s, the other %s", a, begun)
	}
	b.act(rollout.Abort{})
	if a, begun := b.newest("a").State, b.newest("b").State; a != store.CommandWithdrawn || begun != store.CommandSent {
		t.Errorf("aborted: the command that has not begun is %s, the other %s", a, begun)
	}
}

// lostAnswer stores a rollout with commands, and then reports a failure, once: the connection
// ended while the database answered.
type lostAnswer struct {
	*store.Store
	once sync.Once
}

func (l *lostAnswer) SaveRollout(ctx context.Context, r store.Rollout, c []store.Command, a []api.AuditEntry) error {
	err := l.Store.SaveRollout(ctx, r, c, a)
	if len(c) > 0 {
		l.once.Do(func() { err = errors.Join(err, errors.New("unexpected EOF")) })
	}
	return err
}

// What was stored although the manager got an error is sent to nodes that are online.
func TestWhatAnErrorHidIsSent(t *testing.T) {
	t.Parallel()
	_, st, _ := start(t, "a")
	f := &fleet{online: map[string]bool{"a": true}}
	resent := make(chan struct{}, 10)
	e := engine.New(engine.Config{Store: st, Rollouts: &lostAnswer{Store: st}, Log: zerolog.Nop(), Nodes: f, CommandLock: new(sync.Mutex), Publish: func(any) {},
		Resend: func() { resent <- struct{}{} }})
	nodes, err := st.GroupNodes(t.Context(), "g")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := e.Schedule(t.Context(), api.Group{ID: "g"}, nodes, api.RolloutRequest{Version: "1.1.0"}, rollout.Person{Key: "ann", Name: "ann"}); err == nil {
		t.Fatal("the answer was not lost")
	}
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() { e.Run(ctx); close(ended) }()
	select {
	case <-resent:
	case <-time.After(20 * time.Second):
		t.Error("nothing is sent again")
	}
	stop()
	<-ended
}

// A node that was updated, and runs another version before its rollout has looked at it, has an
// outcome: it fell, or was updated if the rollout has ended.
func TestAnotherVersionBeforeTheOutcomeWasSeen(t *testing.T) {
	t.Parallel()
	for aborted, want := range map[bool]rollout.NodeState{false: rollout.NodeFailed, true: rollout.NodeUpdated} {
		s := startSite(t, false)
		s.must(s.st.RecordSent(t.Context(), s.command().ID, time.Now()))
		if aborted {
			s.act(rollout.Abort{})
		}
		s.event("upgrade_completed")
		s.must(s.st.RecordHealth(t.Context(), store.Node{ID: "a", Version: "1.2.0", LastSeen: time.Now().Add(time.Second), Health: wire.StatusOK, Capabilities: []string{wire.CapabilityUpgrade}}))
		s.must(s.e.Step(t.Context()))
		if n := s.state().Nodes[0]; n.State != want || !aborted && n.Code != rollout.OtherVersion {
			t.Errorf("aborted %t: %s %s, want %s", aborted, n.State, n.Code, want)
		}
	}
}
