package store_test

import (
	"context"
	"encoding/json"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/bilbycast/edge-agent/manager-sim/api"
	"github.com/bilbycast/edge-agent/manager-sim/rollout"
	"github.com/bilbycast/edge-agent/manager-sim/server/engine"
	"github.com/bilbycast/edge-agent/manager-sim/store"
	"github.com/rs/zerolog"
)

// clock is the engine's, on a machine whose wall clock is set.
type clock struct {
	*engine.Clock
	began time.Time
	ahead time.Duration // by how much the wall clock was set ahead, in all
	// jumped are the rollouts that ran when the wall clock was set.
	jumped []string
}

// start starts the manager: no node is connected.
func (g *game) start() {
	if g.clock.began.IsZero() {
		g.clock.began = time.Now()
	}
	var err error
	g.clock.Clock, err = engine.StartClockAt(g.t.Context(), g.st, time.Now(), func() engine.Boot {
		return engine.Boot{ID: "boot", Since: 100_000*time.Hour + time.Since(g.clock.began) - g.clock.ahead}
	})
	g.must(err)
	g.e = engine.New(engine.Config{Store: g.st, Rollouts: g, Log: zerolog.Nop(), Nodes: g, CommandLock: &g.lock, Publish: func(any) {}, Clock: g.clock.Clock, Rights: g, Resend: func() {
		for _, id := range slices.Sorted(maps.Keys(g.devices)) { // so that a seed repeats
			if g.devices[id].online {
				g.resend(id)
			}
		}
	}})
	for _, d := range g.devices {
		d.online = false
	}
}

// May reports whether a person still has a right.
func (g *game) May(_ context.Context, key string, _ api.Role, groupID string) (bool, error) {
	return !g.lost[key+"/"+groupID], nil
}

// takeOver ends the right of the person who acts for a rollout, and has another person resume it.
func (g *game) takeOver() {
	ctx := g.t.Context()
	rs, err := g.st.Rollouts(ctx, "", true, -1)
	g.must(err)
	for _, stored := range rs {
		r, err := engine.Decode(stored)
		if err != nil {
			continue
		}
		other := map[string]string{"ann": "bob", "bob": "ann"}[r.Acting.Key]
		g.lost[r.Acting.Key+"/"+stored.GroupID] = true
		delete(g.lost, other+"/"+stored.GroupID)
		g.settle() // it pauses, if it still had something to send
		g.allowed(g.e.Act(ctx, stored.ID, rollout.Resume{By: rollout.Person{Key: other, Name: other}}, other, entry("act")))
	}
}

// disturb is what nobody decided: a record is damaged, the clock jumps, the manager restarts.
func (g *game) disturb() {
	switch g.rnd.IntN(4) {
	case 0:
		g.damage()
	case 1:
		g.start()
	case 2:
		g.jump()
		g.must(g.clock.Stop(g.t.Context())) // which records a beat
	case 3: // while no manager runs
		g.jump()
		g.start()
	}
}

// damage makes a rollout unreadable, or not valid.
func (g *game) damage() {
	ctx := g.t.Context()
	all, err := g.st.Rollouts(ctx, "", g.rnd.IntN(4) > 0, -1)
	if g.must(err); len(all) == 0 {
		return
	}
	stored := all[g.rnd.IntN(len(all))]
	stored.State = stored.State[:len(stored.State)/2]
	if r, err := engine.Decode(all[0]); g.rnd.IntN(2) == 0 && err == nil {
		stored, r.Wave = all[0], 99
		stored.State, err = json.Marshal(r)
		g.must(err)
	}
	g.must(g.st.SaveRollout(ctx, stored, nil, nil))
}

// jump sets the wall clock by more than any limit: all times that rollouts know are that much
// earlier, or later, and the uptime is the same.
func (g *game) jump() {
	by, ctx := 8*24*time.Hour, g.t.Context()
	if g.rnd.IntN(2) == 0 {
		by = -by
	}
	g.clock.ahead += by
	all, err := g.st.Rollouts(ctx, "", true, -1)
	g.must(err)
	for _, stored := range all {
		r, err := engine.Decode(stored)
		if err != nil || r.Check() != nil {
			continue
		}
		if r.Status != rollout.Paused {
			g.clock.jumped = append(g.clock.jumped, r.ID)
		}
		r.CreatedAt = r.CreatedAt.Add(-by)
		if !r.SettleUntil.IsZero() {
			r.SettleUntil = r.SettleUntil.Add(-by)
		}
		for i, n := range r.Nodes {
			if !n.Since.IsZero() {
				r.Nodes[i].Since = n.Since.Add(-by)
			}
		}
		stored.State, err = json.Marshal(r)
		g.must(err)
		g.must(g.st.SaveRollout(ctx, stored, nil, nil))
	}
}

// settle lets the engine look at everything until it neither sends nor learns anything more.
func (g *game) settle() {
	g.faults = false
	for before, k := -1, 0; before != g.changes; k++ {
		before = g.changes
		g.must(g.e.Step(g.t.Context()))
		if k == 20 {
			g.fatal("the engine does not settle")
		}
	}
	g.faults = true
}

// check looks at all commands and rollouts, after the engine has looked at everything.
func (g *game) check() {
	ctx := g.t.Context()
	g.settle()
	all, err := g.st.Rollouts(ctx, "", false, -1)
	g.must(err)
	for _, stored := range all {
		r, err := engine.Decode(stored)
		if err != nil {
			g.checkUnreadable(stored)
			continue
		}
		g.checkRollout(stored, r)
	}
	for _, id := range g.clock.jumped {
		stored, err := g.st.Rollout(ctx, id)
		g.must(err)
		if r, err := engine.Decode(stored); err == nil && (r.Status != rollout.Paused || !strings.Contains(r.Reason, "the clock of the manager jumped")) {
			g.fatal("the clock jumped, and a rollout is %s: %s", r.Status, r.Reason)
		}
	}
	g.clock.jumped = nil
	for id := range g.devices {
		g.checkDevice(id)
	}
}

// checkUnreadable looks at a rollout that cannot be read: what the nodes have not begun is not
// sent.
func (g *game) checkUnreadable(stored store.Rollout) {
	known, err := g.st.Unanswered(g.t.Context(), stored.ID)
	g.must(err)
	for _, c := range known {
		if !c.Begun && (c.State == store.CommandPending || c.State == store.CommandSent) {
			g.fatal("a command is %s although its rollout (active %t) cannot be read", c.State, stored.Active)
		}
	}
}

func (g *game) checkRollout(stored store.Rollout, r rollout.Rollout) {
	invalid := r.Check() != nil
	if stored.Active && invalid && (r.Status != rollout.Paused || r.Broken == "") {
		g.fatal("a rollout that is not valid is %s: %q", r.Status, r.Broken)
	}
	for i, n := range r.Nodes {
		d := g.devices[n.ID]
		if n.Code == rollout.TimeLimit || n.State == rollout.NodeMissed {
			g.fatal("a time limit is over, which only the wall clock reached: %+v", n)
		}
		goesOn := stored.Active && r.Status != rollout.Paused
		if goesOn && n.State == rollout.NodeWaiting && i < r.Waves[r.Wave] && g.offers(n.ID) && d.got == "" && len(g.open(n.ID)) == 0 {
			g.fatal("a node of a rollout that is %s got no command: %+v", r.Status, n)
		}
		if n.Attempt == 0 {
			continue
		}
		c, err := g.st.Command(g.t.Context(), r.CommandID(n))
		g.must(err)
		if n.State == rollout.NodeCommanded && !c.AckedAt.IsZero() && d.got != c.ID && !(invalid && stored.Active) {
			g.fatal("the outcome of %s is not recorded in a rollout that is %s: %+v, %+v", c.ID, r.Status, n, c)
		}
		begun := d.got == c.ID && d.begun
		if stored.Active && n.State == rollout.NodeCommanded && c.SentAt.IsZero() && g.Reported(n.ID) && !d.capable && !invalid {
			g.fatal("the rollout waits for a node that offers no upgrades, and whose command was never sent: %+v", n)
		}
		if stored.Active && n.State == rollout.NodeCommanded && c.State == store.CommandWithdrawn && c.AckedAt.IsZero() && !begun && !invalid {
			g.fatal("the rollout waits for a command that was withdrawn (%s): %+v", c.Reason, n)
		}
		if goesOn && c.State == store.CommandHeld && g.offers(n.ID) {
			g.fatal("a command is held although its rollout is %s: %+v", r.Status, n)
		}
		if goesOn || begun || !c.AckedAt.IsZero() {
			continue
		}
		if c.State == store.CommandPending || c.State == store.CommandSent {
			g.fatal("a command is %s although its rollout is %s: %+v", c.State, r.Status, n)
		}
	}
}

// open returns the open commands of a node.
func (g *game) open(id string) []store.Command {
	cs, err := g.st.Commands(g.t.Context(), id, -1)
	g.must(err)
	var open []store.Command
	for _, c := range cs {
		if c.State.Open() {
			open = append(open, c)
		}
	}
	return open
}

// checkDevice looks at a node: it has one open command at most, and has received it if it is
// online.
func (g *game) checkDevice(id string) {
	open := g.open(id)
	if len(open) > 1 {
		g.fatal("node %s has %d open commands: %+v", id, len(open), open)
	}
	d := g.devices[id]
	for _, c := range open {
		if g.offers(id) && c.State != store.CommandHeld && d.got != c.ID {
			g.fatal("a command of a node that is online is %s, and was not delivered: %+v", c.State, c)
		}
	}
}
