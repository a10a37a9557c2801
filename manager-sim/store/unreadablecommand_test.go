package store_test

import (
	"database/sql"
	"encoding/json"
	"fmt"
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

// A node whose open command cannot be read gets no other one, neither by a request nor by a
// rollout, until an operator withdraws it. The refusal names what cannot be read.
func TestAnUnreadableOpenCommand(t *testing.T) { each(t, testUnreadableOpenCommand) }

func testUnreadableOpenCommand(t *testing.T, path string) {
	d := newDesk(t, path)
	ctx, e, st := t.Context(), d.e, d.st
	for _, sent := range []bool{false, true} {
		id := fmt.Sprint("n-", sent)
		group := "group-" + id
		d.add(t, id, group)
		request := func(command string, replace bool, replaces string) *api.NotUpgradable {
			t.Helper()
			f, err := e.Commands.Request(ctx, store.Command{ID: command, NodeID: id, Version: "1.2.0", Action: []byte("{}"), CreatedAt: time.Now(), Actor: "ann", Replaces: replaces}, replace)
			must(t, err)
			return f
		}
		old := "old-" + id
		if f := request(old, false, ""); f != nil {
			t.Fatal(f)
		}
		if sent {
			must(t, st.RecordSent(ctx, old, time.Now()))
		}
		damage(t, path, "UPDATE commands SET action = 'x' WHERE id = '"+old+"'")
		for _, f := range []*api.NotUpgradable{request("new-"+id, false, ""), request("new-"+id, true, ""), request("new-"+id, false, old)} {
			if f == nil || f.Code != api.CodeUpgradeInProgress || !strings.Contains(f.Detail(), `command `+old) || !strings.Contains(f.Detail(), "cannot be read") || !strings.Contains(f.Detail(), "Withdraw that command") {
				t.Errorf("sent %t: %+v", sent, f)
			}
		}
		nodes, err := st.GroupNodes(ctx, group)
		must(t, err)
		plan, err := e.Schedule(ctx, api.Group{ID: group}, nodes, api.RolloutRequest{Version: "1.3.0"}, rollout.Person{Key: "ann", Name: "ann"})
		must(t, err)
		state := func() rollout.Node {
			t.Helper()
			must(t, e.Step(ctx))
			stored, err := st.Rollout(ctx, plan.RolloutID)
			must(t, err)
			var r rollout.Rollout
			must(t, json.Unmarshal(stored.State, &r))
			return r.Nodes[0]
		}
		if n := state(); n.State != rollout.NodeWaiting {
			t.Errorf("sent %t: a rollout commands the node: %+v", sent, n)
		}
		d.sent = nil
		f, err := e.Commands.Withdraw(ctx, id, old, "ann", entry("withdraw"))
		if must(t, err); f != nil {
			t.Fatal(f)
		}
		if len(d.sent) != 1 || d.sent[0].ID != old || d.sent[0].State != store.CommandWithdrawn || d.sent[0].SentAt.IsZero() == sent {
			t.Errorf("sent %t: sent to the node: %+v", sent, d.sent)
		}
		if n := state(); n.State != rollout.NodeCommanded {
			t.Errorf("sent %t: after the withdrawal: %+v", sent, n)
		}
	}
}

// desk is an engine whose nodes are all online.
type desk struct {
	e    *engine.Engine
	st   *store.Store
	sent []store.Command
}

func (d *desk) Online(string) bool   { return true }
func (d *desk) Reported(string) bool { return true }
func (d *desk) Send(c store.Command) { d.sent = append(d.sent, c) }

func newDesk(t *testing.T, path string) *desk {
	t.Helper()
	d := &desk{st: open(t, path)}
	must(t, d.st.AddToken(t.Context(), "t"))
	d.e = engine.New(engine.Config{Store: d.st, Rollouts: d.st, Log: zerolog.Nop(), Nodes: d, CommandLock: new(sync.Mutex), Publish: func(any) {}})
	return d
}

// add adds a node in a group of its own.
func (d *desk) add(t *testing.T, id, group string) {
	t.Helper()
	n := store.Node{ID: id, DeviceType: "edge", Version: "1.0.0", RegisteredAt: time.Now(), LastSeen: time.Now(), Health: wire.StatusOK, Capabilities: []string{wire.CapabilityUpgrade}}
	must(t, d.st.AddGroup(t.Context(), api.Group{ID: group, Name: group, CreatedAt: time.Now()}, entry("group")))
	must(t, d.st.Register(t.Context(), "t", n))
	must(t, d.st.RecordHealth(t.Context(), n))
	must(t, d.st.SetGroup(t.Context(), id, group, entry("group")))
}

// damage changes records as nothing in this program does.
func damage(t *testing.T, path string, statements ...string) {
	t.Helper()
	driver := "sqlite"
	if strings.HasPrefix(path, "postgres") {
		driver = "pgx"
	}
	db, err := sql.Open(driver, path)
	must(t, err)
	defer db.Close()
	for _, statement := range statements {
		_, err := db.ExecContext(t.Context(), statement)
		must(t, err)
	}
}
