// Package engine runs upgrades: it accepts or refuses requests to upgrade a node, and
// advances the rollouts to groups, wave by wave, as the outcomes of nodes arrive.
//
// Package rollout decides what a rollout does next. The engine stores the new state and
// its commands in one transaction and then sends the commands, so that the manager can
// be killed at any moment. A node gets no command while an upgrade of it is in progress:
// staging, or on trial without a result. Time limits do not run while no manager runs.
//
// The engine does not know how nodes are connected: see Nodes.
package engine

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/bilbycast/edge-agent/manager-sim/api"
	"github.com/bilbycast/edge-agent/manager-sim/rollout"
	"github.com/bilbycast/edge-agent/manager-sim/store"
	"github.com/rs/zerolog"
)

// Nodes are the sessions of nodes.
type Nodes interface {
	// Online reports whether a node has a session.
	Online(nodeID string) bool
	// Reported reports whether a node has a session, and has reported its health in it: what the
	// store has of it is of this session.
	Reported(nodeID string) bool
	// Send sends a stored command if its node is online or, if the command was withdrawn, the
	// withdrawal. Repeating it is harmless: a node carries out a command once.
	Send(c store.Command)
}

// RolloutSaver stores a transition of a rollout; *store.Store is one.
type RolloutSaver interface {
	SaveRollout(ctx context.Context, r store.Rollout, commands []store.Command, audits []api.AuditEntry) error
}

// Config is what an Engine needs.
type Config struct {
	Store    *store.Store
	Rollouts RolloutSaver
	Log      zerolog.Logger
	Nodes    Nodes
	// CommandLock is held while a goroutine decides whether a node gets a command, stores
	// it and sends it, so that the three are one step.
	CommandLock *sync.Mutex
	Publish     func(record any) // passes a record to the event streams
	// Releases lists what is published for a device type on a channel, newest first; nil
	// means that nothing is known.
	Releases func(ctx context.Context, deviceType, channel string) ([]api.Release, error)
	// Manifest returns the manifest.json of a version as the release host has it, nil if it is
	// not known; nil means that none is known.
	Manifest func(ctx context.Context, deviceType, channel, version string) ([]byte, error)
	// Resend sends to all nodes that are online what they have not acknowledged; nil: nothing.
	Resend func()
	Clock  *Clock
	Rights Rights // nil: everybody has every right
	// VanishAfter is the shortest time after which an offline node that kept a rollout's
	// version has vanished; 0 means rollout.DefaultPatience.
	VanishAfter time.Duration
}

// tickInterval is how late a rollout may notice that time has passed, or that a node that
// kept its version fell.
const tickInterval = 5 * time.Second

// Engine runs rollouts. Its methods are safe for concurrent use.
type Engine struct {
	Config
	Statuses  Statuses
	Commands  *Commands
	Catalogue *Catalogue
	Watch     Watch

	adopted bool      // commands of an earlier version are adopted; only Run uses it
	watched time.Time // when all nodes that kept a version were last looked at; only Run uses it

	unsent atomic.Bool       // stored commands and withdrawals may not have been sent to nodes that are online
	logged map[string]string // errors of broken rollouts, by id; only Run uses it

	wake chan struct{} // has an entry while the rollouts have to be looked at

	nodeSeen atomic.Bool // a node connected since this manager started

	mu      sync.Mutex
	changed map[string]bool // nodes about which something may be new
}

// New returns an Engine. Run runs its rollouts.
func New(c Config) *Engine {
	statuses := Statuses{c.Store, c.Clock}
	return &Engine{Config: c, Statuses: statuses, Commands: &Commands{c.Store, c.Nodes, c.CommandLock, statuses, c.Rights, new(sync.Map)},
		Catalogue: newCatalogue(c.Releases, c.Manifest, c.Log), Watch: newWatch(c, statuses), logged: make(map[string]string), wake: make(chan struct{}, 1), changed: make(map[string]bool)}
}

// NodeChanged makes the engine check a node of which something may have changed.
func (e *Engine) NodeChanged(nodeID string) {
	e.nodeSeen.Store(true)
	e.mu.Lock()
	e.changed[nodeID] = true
	e.mu.Unlock()
	e.Wake()
}

// Wake makes the engine look at the rollouts soon.
func (e *Engine) Wake() {
	select {
	case e.wake <- struct{}{}:
	default:
	}
}

// takeChanged returns the nodes about which something may be new, and forgets them.
func (e *Engine) takeChanged() map[string]bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	changed := e.changed
	e.changed = make(map[string]bool)
	return changed
}

// Run advances all active rollouts until ctx is done. It first checks
// every node, to notice what happened while no manager ran.
func (e *Engine) Run(ctx context.Context) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	all := true
	for {
		select {
		case <-ctx.Done():
			if err := e.Clock.Stop(context.WithoutCancel(ctx)); err != nil {
				e.Log.Warn().Err(err).Msg("end of the manager not recorded; its outage counts from the last record")
			}
			return
		case <-timer.C:
		case <-e.wake:
		}
		next, err := lookOnce(ctx, e, all)
		all = err != nil // so that no changed node is missed
		switch {
		case errors.Is(err, store.ErrConflict): // an operator's act came first
			next = 0
		case err != nil && ctx.Err() == nil:
			e.Log.Error().Err(err).Msg("rollouts could not continue, retrying")
			next = time.Second
		}
		timer.Reset(next)
	}
}

// lookOnce is stepAll. It also sends again what may not have been sent.
func lookOnce(ctx context.Context, e *Engine, all bool) (time.Duration, error) {
	next, err := e.stepAll(ctx, e.takeChanged(), all)
	if store.Unavailable(err) { // an answer to a change may be lost
		e.unsent.Store(true)
	}
	if err == nil && e.Resend != nil && e.unsent.Swap(false) {
		e.Resend()
	}
	return next, err
}

// stepAll advances every active rollout, and returns the latest time of the next call.
func (e *Engine) stepAll(ctx context.Context, changed map[string]bool, all bool) (time.Duration, error) {
	now := time.Now()
	if err := e.Clock.Beat(ctx, now); err != nil {
		return 0, err
	}
	jump := jumpOf(e)
	rs, err := e.Store.Rollouts(ctx, "", true, -1)
	if err != nil {
		return 0, err
	}
	next, everyone := tickInterval, all || now.Sub(e.watched) >= tickInterval
	if all && !e.adopted {
		if err := adopt(ctx, e.Store); err != nil {
			return 0, err
		}
		e.adopted = true
	}
	if err := e.stepEnded(ctx, changed, all); err != nil {
		return 0, err
	}
	var failed error // of the last rollout that has to be tried again; the others go on
	for _, stored := range rs {
		var r rollout.Rollout
		err := protected(e, stored.ID, func() (err error) {
			r, err = advance(ctx, e, stored, jump, changed, all, everyone)
			return err
		})
		if broken(err) {
			err = pauseBroken(ctx, e, stored, err)
		}
		if store.Unavailable(err) || ctx.Err() != nil {
			return 0, err
		}
		if err != nil {
			failed = fmt.Errorf("rollout %s: %w", stored.ID, err)
			continue
		}
		if at, ok := r.NextTick(); ok {
			next = min(next, max(0, time.Until(at)))
		}
	}
	if everyone {
		expired, err := e.Commands.expire(ctx)
		if err != nil {
			return 0, err
		}
		for _, id := range expired {
			e.NodeChanged(id)
		}
		e.watched = now
	}
	if failed == nil {
		e.Clock.ForgetJump(jump)
	}
	return next, failed
}

// jumpOf returns a jump of the clock for which the rollouts pause, or nil. A jump before the
// first node connects, since the machine was booted, is none: the clock is set while the
// machine boots. A restart of the manager alone does not make it one.
func jumpOf(e *Engine) *Jump {
	j := e.Clock.Jump()
	seen := e.Clock.seenBefore() || e.nodeSeen.Load() && j != nil && !j.Start // that one was before this manager
	if j != nil && !seen {
		e.Clock.ForgetJump(j)
		return nil
	}
	return j
}

// advance applies to a rollout what is new about its nodes, and that time has passed. After a
// jump of the clock it pauses the rollout.
func advance(ctx context.Context, e *Engine, stored store.Rollout, jump *Jump, changed map[string]bool, all, everyone bool) (rollout.Rollout, error) {
	return e.transition(ctx, stored, func(r rollout.Rollout) ([]rollout.Event, error) {
		events, err := e.outcomes(ctx, r, changed, all)
		if err != nil {
			return nil, err
		}
		if jump != nil && r.Status != rollout.Paused {
			e.Log.Warn().Str("rollout_id", r.ID).Dur("jump", jump.By).Msg("rollout paused: the clock of the manager jumped")
			events = append([]rollout.Event{rollout.Pause{Reason: jump.Reason()}}, events...)
		}
		fallen, err := e.Watch.fallen(ctx, r, changed, everyone)
		return append(append(events, fallen...), rollout.Tick{}), err
	}, "manager")
}

// statusIn returns the status of a node's upgrade in a rollout.
func statusIn(ctx context.Context, e *Engine, r rollout.Rollout, n rollout.Node) (Status, store.Node, error) {
	c, err := e.Store.Command(ctx, r.CommandID(n))
	if err != nil {
		return Status{}, store.Node{}, fmt.Errorf("node %s: %w", n.ID, err)
	}
	rec, err := e.Store.Node(ctx, n.ID)
	if err != nil {
		return Status{}, rec, err
	}
	st, err := e.Statuses.OfCommand(ctx, c, rec)
	return st, rec, err
}

// outcomes returns the new outcomes of the changed nodes of a rollout, and which of them are
// unproven.
func (e *Engine) outcomes(ctx context.Context, r rollout.Rollout, changed map[string]bool, all bool) ([]rollout.Event, error) {
	var events []rollout.Event
	pins := pinsOf(r)
	for _, n := range r.Nodes {
		if !all && !changed[n.ID] {
			continue
		}
		if n.Attempt == 0 || n.State == rollout.NodeSkipped || n.State == rollout.NodeWaiting && n.Hold == "" {
			continue
		}
		st, rec, err := statusIn(ctx, e, r, n)
		if broken(err) { // the outcomes of the others count all the same
			events = append(events, rollout.Break{Reason: err.Error()})
			continue
		}
		if err != nil {
			return nil, err
		}
		if unproven := st.Unproven(); unproven != (n.State == rollout.NodeUnproven) && n.State != rollout.NodeWaiting {
			events = append(events, rollout.Unproven{NodeID: n.ID, Attempt: n.Attempt, Is: unproven})
		}
		outcome := map[api.UpgradeState]rollout.NodeState{api.Updated: rollout.NodeUpdated, api.Failed: rollout.NodeFailed,
			api.RolledBack: rollout.NodeRolledBack, api.Superseded: rollout.NodeSkipped}[st.State]
		switch {
		case st.State == api.Withdrawn && n.State == rollout.NodeCommanded: // not by the rollout
			outcome, st.Code = rollout.NodeSkipped, rollout.Withdrawn
		case st.State == api.Changed && r.Status.Final():
			outcome = rollout.NodeUpdated
		case st.State == api.Changed: // before the rollout saw that it was updated
			outcome, st.Code = rollout.NodeFailed, rollout.OtherVersion
		case st.Code == api.CodeReplaced:
			outcome, st.Code = rollout.NodeSkipped, rollout.Replaced
		case st.State == api.Superseded:
			st.Code = ""
		}
		if st.Dependency {
			outcome, st.Code = rollout.NodeDependency, rollout.Dependency
		}
		if outcome == rollout.NodeUpdated && outcome != n.State {
			if pin := pins.missing(r, rec); pin != nil {
				events = append(events, pins.add(*pin))
			} else if pins.differ(r, rec) {
				outcome, st.Code = rollout.NodeFailed, rollout.OtherManifest
			}
		}
		// The rollout has a time limit of its own.
		if outcome != "" && outcome != n.State && st.Code != rollout.TimeLimit {
			events = append(events, rollout.Outcome{NodeID: n.ID, Attempt: n.Attempt, State: outcome, Code: st.Code})
		}
	}
	return events, nil
}
