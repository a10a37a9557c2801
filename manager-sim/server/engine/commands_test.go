package engine_test

import (
	"context"
	"path/filepath"
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

// fleet is the sessions of nodes that exist only here.
type fleet struct {
	mu     sync.Mutex
	online map[string]bool
	sent   []store.Command
}

func (f *fleet) Online(nodeID string) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.online[nodeID]
}

func (f *fleet) Reported(nodeID string) bool { return f.Online(nodeID) }

func (f *fleet) Send(c store.Command) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.online[c.NodeID] {
		f.sent = append(f.sent, c)
	}
}

// start returns an engine with nodes that can be upgraded and are in group "g".
func start(t *testing.T, ids ...string) (*engine.Engine, *store.Store, *fleet) {
	t.Helper()
	st, err := store.Open(t.Context(), filepath.Join(t.TempDir(), "db"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { st.Close() })
	now := time.Now()
	entry := store.NewAuditEntry(now, "test", "test", "", nil)
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(st.AddToken(t.Context(), "token"))
	must(st.AddGroup(t.Context(), api.Group{ID: "g", Name: "g", CreatedAt: now}, entry))
	for _, id := range ids {
		n := store.Node{ID: id, DeviceType: "edge", Version: "1.0.0", RegisteredAt: now, LastSeen: now, Health: wire.StatusOK, Capabilities: []string{wire.CapabilityUpgrade}}
		must(st.Register(t.Context(), "token", n))
		must(st.RecordHealth(t.Context(), n))
		must(st.SetGroup(t.Context(), id, "g", entry))
	}
	f := &fleet{online: map[string]bool{}}
	e := engine.New(engine.Config{Store: st, Rollouts: st, Log: zerolog.Nop(), Nodes: f, CommandLock: new(sync.Mutex), Publish: func(any) {}})
	return e, st, f
}

func TestRequest(t *testing.T) {
	t.Parallel()
	e, _, f := start(t, "a", "b")
	f.online["a"] = true
	request := func(id, node, version string, replace bool, replaces string) *api.NotUpgradable {
		t.Helper()
		refusal, err := e.Commands.Request(t.Context(), store.Command{ID: id, NodeID: node, Version: version, Channel: "stable", Action: []byte("{}"), CreatedAt: time.Now(), Actor: "ann", Replaces: replaces}, replace)
		if err != nil {
			t.Fatal(err)
		}
		return refusal
	}
	if r := request("1", "a", "1.1.0", false, ""); r != nil || len(f.sent) != 1 || f.sent[0].ID != "1" {
		t.Errorf("an online node: %+v, sent %+v", r, f.sent)
	}
	if r := request("2", "a", "1.2.0", true, "1"); r == nil || r.Code != api.CodeUpgradeInProgress || len(f.sent) != 1 {
		t.Errorf("a node with a command: %+v, sent %+v", r, f.sent)
	}
	if r := request("3", "b", "1.1.0", false, ""); r != nil || len(f.sent) != 1 {
		t.Errorf("an offline node: %+v, sent %+v", r, f.sent)
	}
	if r := request("4", "b", "1.2.0", false, ""); r == nil || r.Code != api.CodeUpgradeInProgress {
		t.Errorf("without replace: %+v", r)
	}
	if r := request("5", "b", "1.2.0", true, ""); r == nil || r.Code != api.CodeUpgradeInProgress || !strings.Contains(r.Detail(), `"replaces": "3"`) {
		t.Errorf("with replace, which names no command: %+v", r)
	}
	if r := request("6", "b", "1.2.0", true, "3"); r != nil {
		t.Errorf("with replaces: %+v", r)
	}
}

// A rollout commands the online nodes of its first wave, and an offline node when it
// connects. A node with another command waits.
func TestRolloutCommandsNodesAsTheyConnect(t *testing.T) {
	t.Parallel()
	e, st, f := start(t, "a", "b", "c")
	f.online["a"], f.online["c"] = true, true
	if r, err := e.Commands.Request(t.Context(), store.Command{ID: "own", NodeID: "c", Version: "1.5.0", Action: []byte("{}"), CreatedAt: time.Now()}, false); r != nil || err != nil {
		t.Fatal(r, err)
	}
	nodes, err := st.GroupNodes(t.Context(), "g")
	if err != nil {
		t.Fatal(err)
	}
	plan, err := e.Schedule(t.Context(), api.Group{ID: "g"}, nodes, api.RolloutRequest{Version: "1.1.0", Strategy: rollout.Immediate}, rollout.Person{Name: "ann"})
	if err != nil || plan.NodeCount != 3 || plan.Offline != 2 {
		t.Fatalf("%+v, %v", plan, err)
	}
	if len(f.sent) != 2 || f.sent[1].NodeID != "a" { // the first one is the request
		t.Errorf("sent %+v", f.sent)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() { e.Run(ctx) })
	defer running.Wait()
	defer cancel()
	f.mu.Lock()
	f.online["b"] = true
	f.mu.Unlock()
	e.NodeChanged("b")
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		f.mu.Lock()
		last := f.sent[len(f.sent)-1]
		f.mu.Unlock()
		if last.NodeID == "b" && last.Version == "1.1.0" {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("the last command is %+v", last)
		}
	}
}

// A command to one node that reaches its time limit is withdrawn at once where the node is online,
// and not before that. One of a rollout is not: that has a limit of its own.
func TestACommandIsWithdrawnAtItsLimit(t *testing.T) {
	t.Parallel()
	e, st, f := start(t, "a", "b", "c")
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	for id, ago := range map[string]time.Duration{"a": 61 * time.Minute, "b": 61 * time.Minute, "c": 59 * time.Minute} {
		f.online[id] = true
		refusal, err := e.Commands.Request(t.Context(), store.Command{ID: id, NodeID: id, Version: "1.1.0", Action: []byte("{}"), CreatedAt: time.Now()}, false)
		if must(err); refusal != nil {
			t.Fatal(refusal)
		}
		must(st.RecordSent(t.Context(), id, time.Now().Add(-ago)))
	}
	f.online["b"] = false
	f.sent = nil
	for range 2 {
		must(e.Step(t.Context()))
	}
	if len(f.sent) != 1 || f.sent[0].ID != "a" || f.sent[0].State != store.CommandWithdrawn || f.sent[0].Reason != store.ReasonLimit {
		t.Errorf("sent %+v", f.sent)
	}
	for id, want := range map[string]api.UpgradeState{"a": api.Failed, "b": api.Failed, "c": api.Sent} {
		n, err := st.Node(t.Context(), id)
		must(err)
		if s, err := e.Statuses.OfNode(t.Context(), n); err != nil || s.State != want || want == api.Failed && s.Code != rollout.TimeLimit {
			t.Errorf("%s: %s %q, %v", id, s.State, s.Code, err)
		}
	}
}
