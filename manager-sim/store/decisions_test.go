package store_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/bilbycast/edge-agent/manager-sim/api"
	"github.com/bilbycast/edge-agent/manager-sim/rollout"
	"github.com/bilbycast/edge-agent/manager-sim/server/engine"
	"github.com/bilbycast/edge-agent/manager-sim/store"
	"github.com/bilbycast/edge-agent/wire"
)

// device is a node of the random test: what it has received, and how far it is.
type device struct {
	online, withdraws, removed bool
	reported, capable          bool // its health in this session, and with it that it offers upgrades
	version                    string
	got                        string // the command that it carries out; "": none
	begun                      bool
	target                     string
	upgrade                    wire.Upgrade // that it reports; the target stays after a rollback
}

// game is operators, nodes and a store that fails, at random.
type game struct {
	t       *testing.T
	seed    uint64
	rnd     *rand.Rand
	st      *store.Store
	e       *engine.Engine
	clock   clock
	lock    sync.Mutex
	devices map[string]*device
	faults  bool
	events  int
	sent    int
	changes int // what nodes received or reported
	// lost are the rights that a person has lost: the person's key and the group, with a slash.
	lost map[string]bool
}

var errFault = errors.New("the store fails")

// SaveRollout fails at random: before the change, or after it.
func (g *game) SaveRollout(ctx context.Context, r store.Rollout, commands []store.Command, audits []api.AuditEntry) error {
	if g.faults && g.rnd.IntN(8) == 0 {
		return errFault
	}
	err := g.st.SaveRollout(ctx, r, commands, audits)
	if err == nil && g.faults && g.rnd.IntN(8) == 0 {
		return errFault
	}
	return err
}

func (g *game) fatal(format string, args ...any) {
	g.t.Helper()
	g.t.Fatalf("seed %d: %s", g.seed, fmt.Sprintf(format, args...))
}

func (g *game) must(err error) {
	g.t.Helper()
	if err != nil {
		g.fatal("%v", err)
	}
}

func (g *game) Online(id string) bool { return g.devices[id].online }

func (g *game) Reported(id string) bool { return g.devices[id].online && g.devices[id].reported }

// offers reports whether a node is online and offers upgrades in its session.
func (g *game) offers(id string) bool { return g.Reported(id) && g.devices[id].capable }

// Send is what a session does: it asks the store, and delivers.
func (g *game) Send(c store.Command) {
	d := g.devices[c.NodeID]
	if d.online && g.rnd.IntN(6) == 0 { // the session ends first
		g.offline(c.NodeID)
	}
	if !d.online {
		return
	}
	ctx := g.t.Context()
	if c.State == store.CommandWithdrawn {
		if d.withdraws && !c.SentAt.IsZero() && g.st.RecordWithdrawSent(ctx, c.ID, time.Now()) == nil && d.got == c.ID && !d.begun {
			d.got = ""
			g.ack(c.ID, c.NodeID, false, "upgrade_withdrawn")
			_, err := g.st.RecordWithdrawAck(ctx, c.NodeID, c.ID, true, time.Now())
			g.must(err)
		}
		return
	}
	before, err := g.st.Command(ctx, c.ID)
	g.must(err)
	n, err := g.st.Node(ctx, c.NodeID)
	g.must(err)
	if !g.offers(c.NodeID) { // as a session does
		n.Capabilities = nil
	}
	if ok, err := g.e.Commands.MaySend(ctx, before, n); err != nil || !ok {
		g.must(err)
		g.e.NodeChanged(c.NodeID)
		if before, err = g.st.Command(ctx, c.ID); err == nil && before.State == store.CommandWithdrawn {
			g.Send(before)
		}
		g.must(err)
		return
	}
	if err := g.st.RecordSent(ctx, c.ID, time.Now()); err != nil {
		if !errors.Is(err, store.ErrNotSendable) {
			g.fatal("%v", err)
		}
		return
	}
	g.sent, g.changes = g.sent+1, g.changes+1
	if before.State != store.CommandPending && before.State != store.CommandSent {
		g.fatal("a command that is %s (%s) is sent", before.State, before.Reason)
	}
	if g.lost[before.Acting+"/"+n.GroupID] && !(d.got == c.ID && d.begun) {
		g.fatal("a command of %s, who has no right for %s, is sent: %+v", before.Acting, n.GroupID, before)
	}
	if before.RolloutID != "" {
		r, err := g.st.Rollout(ctx, before.RolloutID)
		g.must(err)
		_, unreadable := engine.Decode(r)
		if goesOn := d.got == c.ID && d.begun; r.GroupID != n.GroupID || (!r.Active || unreadable != nil) && !goesOn {
			g.fatal("a command of a rollout to %s (active %t, %v) is sent to a node of %s", r.GroupID, r.Active, unreadable, n.GroupID)
		}
	}
	switch {
	case g.rnd.IntN(8) == 0: // the connection ends with the command
		g.offline(c.NodeID)
	case d.got == "":
		d.got, d.begun, d.target = c.ID, false, c.Version
	case d.got != c.ID:
		g.ack(c.ID, c.NodeID, false, "upgrade_in_progress")
	}
}

func (g *game) ack(id, node string, success bool, code string) {
	g.t.Helper()
	_, err := g.st.RecordAck(g.t.Context(), store.Command{ID: id, NodeID: node, AckedAt: time.Now(), Success: success, ErrorCode: code})
	g.must(err)
	g.changes++
	g.e.NodeChanged(node)
}

func (g *game) event(id, node, code string) {
	g.t.Helper()
	g.events++
	e := api.Event{EventID: fmt.Sprint(g.events), NodeID: node, CommandID: id, Time: time.Now(), ReceivedAt: time.Now(), Severity: "info", Category: "upgrade", ErrorCode: code, Details: json.RawMessage("{}")}
	_, err := g.st.AddEvent(g.t.Context(), &e)
	g.must(err)
	g.e.NodeChanged(node)
}

func (g *game) health(id string) {
	g.t.Helper()
	d := g.devices[id]
	upgrade, err := json.Marshal(d.upgrade)
	g.must(err)
	n := store.Node{ID: id, Version: d.version, LastSeen: time.Now(), Health: wire.StatusOK, Upgrade: upgrade}
	if d.capable {
		n.Capabilities = []string{wire.CapabilityUpgrade}
	}
	g.must(g.st.RecordHealth(g.t.Context(), n))
	d.reported = true
	g.e.NodeChanged(id)
}

// beat is a health beat of a node: it may report that it offers upgrades, or that it does not any
// more. What waited for that is sent.
func (g *game) beat(id string) {
	d := g.devices[id]
	if !d.online || d.removed {
		return
	}
	d.capable = g.rnd.IntN(4) > 0
	g.health(id)
	if d.capable {
		g.resend(id)
	}
}

// connect is an authentication: the node gets withdrawals, and what it has not acknowledged.
func (g *game) connect(id string) {
	d, ctx := g.devices[id], g.t.Context()
	if d.online || d.removed {
		g.offline(id)
		return
	}
	d.online, d.reported = true, false
	var features []string
	if d.withdraws {
		features = []string{wire.FeatureWithdraw}
	}
	g.must(g.st.RecordConnect(ctx, id, d.version, "192.0.2.1", time.Now(), features...))
	if g.rnd.IntN(3) == 0 { // its health comes later
		d.capable = false
	} else {
		d.capable = g.rnd.IntN(6) > 0
		g.health(id)
	}
	g.resend(id)
	g.e.NodeChanged(id)
}

func (g *game) offline(id string) {
	g.devices[id].online = false
	g.e.NodeChanged(id)
}

// resend is what a session does when it begins, and when the engine tells it to.
func (g *game) resend(id string) {
	ctx := g.t.Context()
	cs, err := g.st.Commands(ctx, id, -1)
	g.must(err)
	for _, c := range cs {
		if c.State == store.CommandWithdrawn {
			g.Send(c)
		}
		if c.State == store.CommandPending || c.State == store.CommandSent {
			g.Send(c)
		}
	}
}

// work is one step of a node's upgrade.
func (g *game) work(id string) {
	d := g.devices[id]
	switch {
	case d.got == "" || d.removed:
	case !d.begun:
		d.begun = true
		g.event(d.got, id, "upgrade_started")
	case g.rnd.IntN(4) == 0:
		g.ack(d.got, id, false, "upgrade_checksum_mismatch")
		d.got = ""
	default:
		g.ack(d.got, id, true, "")
		g.event(d.got, id, "upgrade_staged")
		d.upgrade = wire.Upgrade{Status: "rolled_back", CurrentVersion: d.version, TargetVersion: d.target}
		if rolledBack := g.rnd.IntN(3) == 0; rolledBack {
			g.event(d.got, id, "upgrade_rolled_back")
		} else {
			g.event(d.got, id, "upgrade_completed")
			d.version, d.upgrade.Status, d.upgrade.CurrentVersion = d.target, "stable", d.target
		}
		d.got = ""
		g.health(id)
	}
}

func (g *game) pick() string { return fmt.Sprint("n", g.rnd.IntN(len(g.devices))) }

func (g *game) operate() {
	ctx, group := g.t.Context(), []string{"g", "h"}[g.rnd.IntN(2)]
	version := fmt.Sprintf("1.%d.0", 1+g.rnd.IntN(4))
	id := g.pick()
	person := []string{"ann", "bob"}[g.rnd.IntN(2)]
	by := rollout.Person{Key: person, Name: person}
	switch g.rnd.IntN(11) {
	case 10: // withdraw what the operator sees
		if open := g.open(id); len(open) > 0 {
			_, err := g.e.Commands.Withdraw(ctx, id, open[0].ID, person, entry("withdraw"))
			g.must(err)
			g.e.NodeChanged(id)
		}
	case 9:
		g.takeOver()
	case 8: // a right ends, or is given again
		if right := person + "/" + group; g.lost[right] {
			delete(g.lost, right)
		} else if g.rnd.IntN(2) == 0 {
			g.lost[right] = true
		}
	case 0, 1: // start
		if g.lost[person+"/"+group] {
			return // the API refuses it
		}
		nodes, err := g.st.GroupNodes(ctx, group)
		g.must(err)
		_, err = g.e.Schedule(ctx, api.Group{ID: group}, nodes, api.RolloutRequest{Version: version, Strategy: rollout.Immediate, Threshold: 2}, by)
		g.allowed(err)
	case 2: // move
		g.lock.Lock()
		defer g.lock.Unlock()
		if !g.devices[id].removed {
			g.must(g.e.Commands.Move(ctx, id, group, "ann", entry("move")))
		}
	case 3: // remove, rarely
		if g.rnd.IntN(10) == 0 && !g.devices[id].removed {
			g.devices[id].removed, g.devices[id].online = true, false
			g.must(g.st.RemoveNode(ctx, id, time.Now(), entry("remove")))
		}
	case 4: // correct, as the operator sees it
		cs, err := g.st.Commands(ctx, id, 1)
		g.must(err)
		n, err := g.st.Node(ctx, id)
		if g.must(err); g.lost[person+"/"+n.GroupID] {
			return
		}
		c := store.Command{ID: fmt.Sprint("own", g.events, g.rnd.Uint64()), NodeID: id, Version: version, Action: []byte("{}"), CreatedAt: time.Now(), Actor: person, Acting: person}
		if len(cs) > 0 && cs[0].State.Open() {
			c.Replaces = cs[0].ID
		}
		_, err = g.e.Commands.Request(ctx, c, false)
		g.allowed(err)
	default:
		rs, err := g.st.Rollouts(ctx, "", true, -1)
		g.must(err)
		for _, r := range rs {
			e := []rollout.Event{rollout.Pause{Reason: "x"}, rollout.Resume{By: by}, rollout.Resume{By: by}, rollout.Retry{By: by}, rollout.Skip{NodeID: id}, rollout.Abort{}}[g.rnd.IntN(6)]
			g.allowed(g.e.Act(ctx, r.ID, e, "ann", entry("act")))
		}
	}
}

// allowed fails for an error that no operator can get.
func (g *game) allowed(err error) {
	g.t.Helper()
	var refused *engine.NotSchedulableError
	for _, known := range []error{nil, errFault, store.ErrExists, store.ErrConflict, rollout.ErrFinal, rollout.ErrNotPaused, rollout.ErrNoFailure, rollout.ErrOver, rollout.ErrNoSuchNode, rollout.ErrBroken, engine.ErrNoRight} {
		if err == known || errors.Is(err, known) {
			return
		}
	}
	if !errors.As(err, &refused) {
		g.fatal("%v", err)
	}
}

func TestDecisions(t *testing.T) { each(t, testDecisions) }

// Operators, nodes that come and go, faults of the store, rollouts that cannot be read, a clock
// that jumps and a manager that restarts, in any order: no withdrawn or superseded command is
// sent, none crosses a scope, none is forgotten, and every outcome is recorded.
func testDecisions(t *testing.T, path string) {
	st := open(t, path)
	seed := rand.Uint64()
	if s := os.Getenv("EDGE_AGENT_SEED"); s != "" { // repeats a run
		var err error
		seed, err = strconv.ParseUint(s, 10, 64)
		must(t, err)
	}
	t.Logf("seed %d", seed)
	g := &game{t: t, seed: seed, rnd: rand.New(rand.NewPCG(seed, 1)), st: st, devices: map[string]*device{}, lost: map[string]bool{}}
	ctx := t.Context()
	must(t, st.AddToken(ctx, "t"))
	for _, id := range []string{"g", "h"} {
		must(t, st.AddGroup(ctx, api.Group{ID: id, Name: id, CreatedAt: time.Now()}, entry("group")))
	}
	g.start()
	for i := range 6 {
		id := fmt.Sprint("n", i)
		g.devices[id] = &device{version: "1.0.0", withdraws: i%2 == 0}
		must(t, st.Register(ctx, "t", store.Node{ID: id, DeviceType: "edge", Version: "1.0.0", RegisteredAt: time.Now(), LastSeen: time.Now()}))
		must(t, st.SetGroup(ctx, id, []string{"g", "h"}[i%2], entry("group")))
		g.connect(id)
	}
	steps := 400
	if testing.Short() {
		steps = 60
	}
	for i := 0; i < steps || g.sent == 0 && i < 20*steps; i++ {
		switch g.rnd.IntN(20) {
		case 0, 1, 2, 3, 4, 5, 6:
			g.operate()
		case 7, 8, 9, 10:
			g.connect(g.pick())
		case 11:
			g.disturb()
		case 12, 13:
			g.beat(g.pick())
		default:
			g.work(g.pick())
		}
		g.check()
	}
	if g.sent == 0 {
		g.fatal("no command was sent")
	}
	t.Logf("%d commands sent, %d events", g.sent, g.events)
}
