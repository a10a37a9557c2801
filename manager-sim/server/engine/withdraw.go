package engine

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/bilbycast/edge-agent/manager-sim/api"
	"github.com/bilbycast/edge-agent/manager-sim/rollout"
	"github.com/bilbycast/edge-agent/manager-sim/store"
	"github.com/bilbycast/edge-agent/wire"
)

// triedNow returns the version that a node's last health beat has on trial, or "".
func triedNow(upgrade json.RawMessage) string {
	var u wire.Upgrade
	if json.Unmarshal(upgrade, &u) != nil || u.Status != wire.StatusPendingHealth {
		return ""
	}
	return u.TargetVersion
}

// changesOf returns what the actions of a rollout decide about commands.
func changesOf(actions []rollout.Action, by string, at time.Time) []store.CommandChange {
	var changes []store.CommandChange
	for _, a := range actions {
		c := store.CommandChange{At: at, By: by}
		switch a := a.(type) {
		case rollout.Hold:
			c.ID, c.State, c.Reason = a.CommandID, store.CommandHeld, store.ReasonPause
		case rollout.Release:
			c.ID, c.State = a.CommandID, store.CommandPending
		case rollout.Keep:
			c.ID, c.State = a.CommandID, store.CommandPending
		case rollout.Recall:
			c.ID, c.State, c.Reason = a.CommandID, store.CommandWithdrawn, a.Reason
		default:
			continue
		}
		changes = append(changes, c)
	}
	return changes
}

// sendAfter sends what a stored transition decided: commands and withdrawals. CommandLock is
// held.
func sendAfter(ctx context.Context, e *Engine, actions []rollout.Action) {
	send := func(id string) error {
		c, err := e.Store.Command(ctx, id)
		if errors.Is(err, store.ErrNotFound) {
			return nil
		}
		if err == nil || errors.Is(err, store.ErrUnreadable) && c.ID == id && c.State == store.CommandWithdrawn {
			e.Nodes.Send(c) // a withdrawal does not need the action
			return nil
		}
		return err
	}
	var errs []error
	recalled := map[string]bool{}
	for _, a := range actions { // a node that still has the old command must not refuse the new one
		if a, ok := a.(rollout.Recall); ok {
			recalled[a.CommandID] = true
			errs = append(errs, send(a.CommandID))
		}
	}
	for _, a := range actions {
		switch a := a.(type) {
		case rollout.Command:
			errs = append(errs, sendReplaced(ctx, e, a, recalled), send(a.CommandID))
		case rollout.Release:
			errs = append(errs, send(a.CommandID))
		}
	}
	if err := errors.Join(errs...); err != nil {
		e.unsent.Store(true)
		e.Log.Error().Err(err).Msg("stored commands not sent yet")
	}
}

// sendReplaced sends the withdrawal of the command that a new one of the node replaced, unless
// that is in sent.
func sendReplaced(ctx context.Context, e *Engine, a rollout.Command, sent map[string]bool) error {
	const last = 3
	cs, err := e.Store.Commands(ctx, a.NodeID, last)
	for _, c := range slices.Backward(cs) {
		if c.ID != a.CommandID && !sent[c.ID] && c.State == store.CommandWithdrawn && !c.SentAt.IsZero() && c.WithdrawSentAt.IsZero() {
			e.Nodes.Send(c)
		}
	}
	return err
}

// Withdraw withdraws a node's command, also one that was sent. If the node announced that it
// obeys withdrawals, the manager sends it one; otherwise it may still obey the command. It returns
// why the command cannot be withdrawn, or nil.
func (c *Commands) Withdraw(ctx context.Context, nodeID, commandID, actor string, entry api.AuditEntry) (*api.NotUpgradable, error) {
	c.lock.Lock()
	defer c.lock.Unlock()
	cmd, err := c.store.Command(ctx, commandID)
	unreadable := errors.Is(err, store.ErrUnreadable)
	if unreadable {
		var open store.Command
		if open, _, err = c.store.UnreadableOpen(ctx, nodeID); err == nil && open.ID == commandID {
			cmd = open
		}
	}
	if err != nil {
		return nil, err
	}
	if cmd.NodeID != nodeID {
		return nil, fmt.Errorf("command %q of node %q: %w", commandID, nodeID, store.ErrNotFound)
	}
	if !cmd.State.Open() {
		return &api.NotUpgradable{Code: api.CodeNotNow, Reason: fmt.Sprintf("The command to upgrade to %s is %s.", cmd.Version, cmd.State), Remedy: "To return to another version, upgrade to that."}, nil
	}
	if err := c.store.ChangeCommands(ctx, []store.CommandChange{{ID: commandID, State: store.CommandWithdrawn, At: time.Now().UTC(), By: actor, Reason: "request"}}, entry); err != nil {
		return nil, err
	}
	if unreadable {
		cmd.State = store.CommandWithdrawn
	} else if cmd, err = c.store.Command(ctx, commandID); err != nil {
		return nil, err
	}
	c.nodes.Send(cmd)
	return nil, nil
}

// Step looks once at all rollouts and all nodes, as Run does from time to time.
func (e *Engine) Step(ctx context.Context) error {
	_, err := lookOnce(ctx, e, true)
	return err
}

// recentRollouts is how many ended rollouts are looked at for late outcomes.
const recentRollouts = 100

// stepEnded records late outcomes of nodes in rollouts that have ended: of the changed nodes, or of all.
func (e *Engine) stepEnded(ctx context.Context, changed map[string]bool, all bool) error {
	ended := map[string]store.Rollout{}
	if all {
		list, err := e.Store.Rollouts(ctx, "", false, recentRollouts)
		if err != nil {
			return err
		}
		for _, stored := range list {
			if !stored.Active {
				ended[stored.ID] = stored
			}
		}
	}
	for id := range changed {
		const most = 2
		list, err := e.Store.EndedRollouts(ctx, id, most)
		if err != nil {
			return err
		}
		for _, stored := range list {
			ended[stored.ID] = stored
		}
	}
	for _, stored := range ended {
		err := protected(e, stored.ID, func() error {
			r, err := Decode(stored)
			if err != nil {
				return err
			}
			events, err := e.outcomes(ctx, r, changed, all)
			if err != nil {
				return err
			}
			events = slices.DeleteFunc(events, func(e rollout.Event) bool { _, outcome := e.(rollout.Outcome); return !outcome })
			if len(events) == 0 {
				return nil
			}
			_, err = e.transition(ctx, stored, func(rollout.Rollout) ([]rollout.Event, error) { return events, nil }, "manager")
			return err
		})
		switch {
		case err == nil || broken(err): // nobody waits for a broken one
		case store.Unavailable(err) || errors.Is(err, store.ErrConflict):
			return err
		default:
			e.Log.Error().Str("rollout_id", stored.ID).Err(err).Msg("late outcomes of an ended rollout not recorded")
		}
	}
	return nil
}

// adopt records in the commands of an earlier version to which rollout they belong, so that
// its decisions apply to them. It withdraws what an ended rollout, or one that skipped the
// node, left to be sent. The others get the rights of who acts for their rollout now.
func adopt(ctx context.Context, st *store.Store) error {
	active, err := st.Rollouts(ctx, "", true, -1)
	if err != nil {
		return err
	}
	recent, err := st.Rollouts(ctx, "", false, recentRollouts)
	if err != nil {
		return err
	}
	recent = slices.DeleteFunc(recent, func(stored store.Rollout) bool { return stored.Active })
	for _, stored := range append(active, recent...) {
		r, err := Decode(stored)
		if err != nil {
			continue // a broken one has no commands that could be found
		}
		var ids []string
		var changes []store.CommandChange
		for _, n := range r.Nodes {
			if n.Attempt == 0 {
				continue
			}
			id := r.CommandID(n)
			ids = append(ids, id)
			if r.Status.Final() && !n.Watched() || n.State == rollout.NodeSkipped {
				changes = append(changes, store.CommandChange{ID: id, State: store.CommandWithdrawn, At: time.Now().UTC(), By: "manager", Reason: store.ReasonAbort})
			}
		}
		if err := st.AdoptCommands(ctx, r.ID, ids); err != nil {
			return err
		}
		if stored.Active {
			if err := st.SetActing(ctx, r.ID, *actingOf(r)); err != nil {
				return err
			}
		}
		known, err := st.Unanswered(ctx, r.ID)
		if err != nil {
			return err
		}
		var left []store.CommandChange
		for _, c := range changes {
			if u, ok := known[c.ID]; ok && !u.Begun {
				left = append(left, c)
			}
		}
		if len(left) == 0 {
			continue
		}
		if err := st.ChangeCommands(ctx, left); err != nil {
			return err
		}
	}
	return nil
}
