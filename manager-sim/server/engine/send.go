package engine

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/bilbycast/edge-agent/manager-sim/api"
	"github.com/bilbycast/edge-agent/manager-sim/rollout"
	"github.com/bilbycast/edge-agent/manager-sim/store"
)

// begun reports whether the node has reported something about the command.
func (s Status) begun() bool {
	return s.State != api.Queued && s.State != api.Sent && s.State != api.Withdrawn && s.Code != rollout.TimeLimit
}

// assumed reports whether the state is known only from the version that the node runs: it may
// have run that before.
func (s Status) assumed() bool { return s.State == api.Updated && s.Ended.IsZero() }

// MaySend reports whether a stored command may be sent to its node now, also if it was sent
// before: it has not expired and, unless the node has begun it, the node offers upgrades and the
// person who decided it still has the right to that in the node's group. A command to one node
// that has lost its reason is withdrawn; the engine pauses a rollout. An error that is about one
// record is store.ErrUnreadable: the command waits until that can be read. CommandLock is held.
func (c *Commands) MaySend(ctx context.Context, cmd store.Command, n store.Node) (bool, error) {
	st, err := c.statuses.OfCommand(ctx, cmd, n)
	valid := false
	if err == nil {
		valid, err = c.valid(ctx, cmd, n, st, true)
	}
	if !broken(err) {
		c.unknown.Delete(cmd.NodeID)
		return valid && (st.begun() || incapable(n, true) == nil), err
	}
	c.unknown.Store(cmd.NodeID, err.Error())
	if !errors.Is(err, store.ErrUnreadable) {
		err = fmt.Errorf("%w: %w", store.ErrUnreadable, err)
	}
	return false, err
}

// waits adds to a refusal why the manager cannot send the open command now, if it tried.
func (c *Commands) waits(st Status, f *api.NotUpgradable) {
	why, ok := c.unknown.Load(st.Command.NodeID)
	if ok && (st.State == api.Queued || st.State == api.Sent) {
		f.Reason += fmt.Sprintf(" It is not sent now: %s.", why)
		f.Remedy = "Repair or remove that record, or withdraw the command."
	}
}

// valid reports whether a command has not lost its reason, and withdraws it if it has. Without
// limits it checks the right only.
func (c *Commands) valid(ctx context.Context, cmd store.Command, n store.Node, st Status, limits bool) (bool, error) {
	var unknown error
	reason := ""
	if !st.begun() || st.assumed() {
		ok, err := c.entitled(ctx, cmd, n.GroupID)
		switch {
		case broken(err): // whether it lost the right is not known, but its limit is
			unknown = err
		case err != nil:
			return false, err
		case !ok && cmd.RolloutID != "":
			return false, nil // the engine pauses the rollout
		case !ok:
			reason = store.ReasonRights
		}
	}
	if limits && st.Code == rollout.TimeLimit && cmd.RolloutID == "" { // a rollout has limits of its own
		reason = store.ReasonLimit
		if cmd.SentAt.IsZero() {
			reason = store.ReasonLifetime
		}
	}
	if reason == "" {
		return unknown == nil, unknown
	}
	now := time.Now().UTC()
	return false, c.store.ChangeCommands(ctx, []store.CommandChange{{ID: cmd.ID, State: store.CommandWithdrawn, At: now, By: "manager", Reason: reason}})
}

// entitled reports whether the person who decided a command may upgrade nodes of a group.
func (c *Commands) entitled(ctx context.Context, cmd store.Command, groupID string) (bool, error) {
	least := api.Operator
	if cmd.RolloutID != "" {
		least = api.GroupAdmin
	}
	return may(ctx, c.rights, cmd.Acting, least, groupID)
}

// expire withdraws the sent commands to single nodes that have reached their time limit, or
// whose requester has lost the right before the node has begun. It sends the withdrawals to the
// nodes that are online. Other nodes get them when they authenticate; they may have reported
// progress to no manager, so their limits are not over before that. It returns the nodes.
func (c *Commands) expire(ctx context.Context) ([]string, error) {
	sent, err := c.store.SentAlone(ctx)
	if err != nil {
		return nil, err
	}
	var nodes []string
	for _, cmd := range sent {
		expired, err := c.expireOne(ctx, cmd.ID, cmd.NodeID)
		if broken(err) { // of that node only
			continue
		}
		if err != nil {
			return nodes, err
		}
		if expired {
			nodes = append(nodes, cmd.NodeID)
		}
	}
	return nodes, nil
}

func (c *Commands) expireOne(ctx context.Context, id, nodeID string) (bool, error) {
	c.lock.Lock()
	defer c.lock.Unlock()
	cmd, err := c.store.Command(ctx, id)
	if err != nil || cmd.State != store.CommandSent {
		return false, err
	}
	n, err := c.store.Node(ctx, nodeID)
	if err != nil {
		return false, err
	}
	st, err := c.statuses.OfCommand(ctx, cmd, n)
	if err != nil {
		return false, err
	}
	valid, err := c.valid(ctx, cmd, n, st, c.nodes.Online(nodeID))
	if err != nil || valid {
		return false, err
	}
	return true, c.sendNow(ctx, id)
}

// sendNow sends what was decided about a command, if its node is online.
func (c *Commands) sendNow(ctx context.Context, id string) error {
	cmd, err := c.store.Command(ctx, id)
	if err == nil {
		c.nodes.Send(cmd)
	}
	return err
}

// Move stores that a node moves to another group. If the requester of its open command has no
// right for that group, and the node has not begun the command, Move withdraws it in the same
// transaction, and over the wire if it was sent. CommandLock is held.
func (c *Commands) Move(ctx context.Context, nodeID, groupID, actor string, entry api.AuditEntry) error {
	changes, err := c.movedChanges(ctx, nodeID, groupID, actor)
	if err != nil {
		return err
	}
	if err := c.store.SetGroup(ctx, nodeID, groupID, entry, changes...); err != nil || len(changes) == 0 {
		return err
	}
	return c.sendNow(ctx, changes[0].ID)
}

func (c *Commands) movedChanges(ctx context.Context, nodeID, groupID, actor string) ([]store.CommandChange, error) {
	cs, err := c.store.Commands(ctx, nodeID, 1)
	if err != nil || len(cs) == 0 || !cs[0].State.Open() || cs[0].RolloutID != "" {
		return nil, err
	}
	n, err := c.store.Node(ctx, nodeID)
	if err == nil {
		st, err := c.statuses.OfCommand(ctx, cs[0], n)
		if err != nil || st.begun() {
			return nil, err
		}
	} else if !errors.Is(err, store.ErrUnreadable) { // of such a node it has not begun, as far as is known
		return nil, err
	}
	ok, err := c.entitled(ctx, cs[0], groupID)
	if broken(err) { // the command waits until the right is known
		return nil, nil
	}
	if ok || err != nil {
		return nil, err
	}
	return []store.CommandChange{{ID: cs[0].ID, State: store.CommandWithdrawn, At: time.Now().UTC(), By: actor, Reason: store.ReasonMoved}}, nil
}
