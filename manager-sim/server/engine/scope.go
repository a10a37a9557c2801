package engine

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/bilbycast/edge-agent/manager-sim/api"
	"github.com/bilbycast/edge-agent/manager-sim/rollout"
	"github.com/bilbycast/edge-agent/manager-sim/store"
	"github.com/bilbycast/edge-agent/wire"
)

// Rights tells whether a person has a role for a group now. The key is a rollout.Person's.
type Rights interface {
	May(ctx context.Context, key string, least api.Role, groupID string) (bool, error)
}

// may is Rights.May; without Rights everybody may.
func may(ctx context.Context, r Rights, key string, least api.Role, groupID string) (bool, error) {
	if r == nil {
		return true, nil
	}
	return r.May(ctx, key, least, groupID)
}

// scope decides, with what the store has now, which nodes a rollout may command.
type scope struct {
	Config
	statuses Statuses
}

func scopeOf(e *Engine) scope { return scope{e.Config, e.Statuses} }

// skipAbsent sets which nodes are online, and returns a Skip for each node that can no
// longer take part because it was removed, or moved to another group.
func (e scope) skipAbsent(ctx context.Context, groupID string, r *rollout.Rollout) ([]rollout.Event, error) {
	members, err := e.Store.GroupMembers(ctx, groupID)
	if err != nil {
		return nil, err
	}
	var skips []rollout.Event
	for i, n := range r.Nodes {
		r.Nodes[i].Online = members[n.ID] && e.Nodes.Online(n.ID)
		if members[n.ID] || r.Status.Final() {
			continue
		}
		skip, absent, err := e.absent(ctx, n)
		if err != nil {
			return nil, err
		}
		if absent {
			skips = append(skips, skip)
			e.Log.Info().Str("rollout_id", r.ID).Str("node_id", n.ID).Str("code", skip.Code).Str("group", skip.Group).Msg("node skipped")
		}
	}
	return skips, nil
}

// absent reports whether a node that is no member of the group has to be skipped, and how. A
// node that was moved gets no command any more; an upgrade that it has begun goes on, and
// counts. A removed node reports no outcome.
func (e scope) absent(ctx context.Context, n rollout.Node) (rollout.Skip, bool, error) {
	skip := rollout.Skip{NodeID: n.ID, Code: rollout.Moved}
	if !slices.Contains([]rollout.NodeState{rollout.NodeWaiting, rollout.NodeCommanded, rollout.NodeUnproven}, n.State) {
		return skip, false, nil
	}
	rec, err := e.Store.Node(ctx, n.ID)
	switch {
	case err != nil:
		return skip, false, err
	case !rec.RemovedAt.IsZero():
		skip.Code = rollout.Removed
		return skip, true, nil
	case n.State == rollout.NodeUnproven:
		return skip, false, nil
	}
	if n.State == rollout.NodeCommanded {
		begun, err := e.begun(ctx, n, rec)
		if err != nil || begun {
			return skip, false, err
		}
	}
	if rec.GroupID == "" {
		return skip, true, nil
	}
	g, err := e.Store.Group(ctx, rec.GroupID)
	skip.Group = g.Name
	return skip, true, err
}

// begun reports whether a commanded node has reported something about its command.
func (e scope) begun(ctx context.Context, n rollout.Node, rec store.Node) (bool, error) {
	cs, err := e.Store.Commands(ctx, n.ID, 1)
	if err != nil || len(cs) == 0 {
		return false, err
	}
	st, err := e.statuses.OfCommand(ctx, cs[0], rec)
	return st.State != api.Queued && st.State != api.Sent && st.State != api.Withdrawn && st.Code != rollout.TimeLimit, err
}

// addFacts sets what is known about the last commands of the nodes of a rollout, and which
// nodes run its version already.
func (e scope) addFacts(ctx context.Context, r *rollout.Rollout) error {
	known, err := e.Store.Unanswered(ctx, r.ID)
	if err != nil {
		return err
	}
	members, err := e.Store.GroupNodes(ctx, r.GroupID)
	if err != nil {
		return err
	}
	records := make(map[string]store.Node, len(members))
	for _, rec := range members {
		records[rec.ID] = rec
	}
	pins := pinsOf(*r)
	for i := range r.Nodes {
		n := &r.Nodes[i]
		rec := records[n.ID]
		c, unanswered := known[r.CommandID(*n)]
		n.Facts = rollout.Facts{
			Sent: c.Sent || !unanswered, Begun: c.Begun || !unanswered || c.Sent && progresses(rec, r.Version),
			Withdrawable: slices.Contains(rec.Features, wire.FeatureWithdraw),
			Runs:         rec.Version == r.Version && rec.Trial == "" && !rec.HealthAt.IsZero() && !pins.differ(*r, rec),
		}
	}
	return nil
}

// progresses reports whether a node's last health beat shows that it upgrades to a version.
func progresses(rec store.Node, version string) bool {
	return rec.Version == version || upgradesTo(rec.Upgrade) == version
}

// lostRight returns why a rollout must not give commands, or let them be sent, if the person
// who started or resumed it has lost the right to that.
func (e scope) lostRight(ctx context.Context, groupID string, r rollout.Rollout, actions []rollout.Action) (string, error) {
	unsent := slices.ContainsFunc(r.Nodes, func(n rollout.Node) bool { return n.State == rollout.NodeCommanded && !n.Sent })
	if r.Status.Final() || r.Status == rollout.Paused || len(commanded(actions)) == 0 && !unsent {
		return "", nil
	}
	ok, err := may(ctx, e.Rights, r.Acting.Key, api.GroupAdmin, groupID)
	if ok || err != nil {
		return "", err
	}
	return fmt.Sprintf("%s, who started or resumed it last, may no longer upgrade this group; another person may resume it", cmp.Or(r.Acting.Name, r.By, "the person")), nil
}

// MaySend reports whether a stored command may be sent to its node, which authenticated or is
// online: it has not expired, and the person who decided it still has the right. A
// command that has lost its reason is withdrawn. CommandLock is held.
func (c *Commands) MaySend(ctx context.Context, cmd store.Command, n store.Node) (bool, error) {
	st, err := c.statuses.OfCommand(ctx, cmd, n)
	if err != nil {
		return false, err
	}
	reason := ""
	if cmd.SentAt.IsZero() {
		least := api.Operator
		if cmd.RolloutID != "" {
			least = api.GroupAdmin
		}
		ok, err := may(ctx, c.rights, cmd.Acting, least, n.GroupID)
		switch {
		case err != nil:
			return false, err
		case !ok && cmd.RolloutID != "":
			return false, nil // the engine pauses the rollout
		case !ok:
			reason = store.ReasonRights
		}
	}
	if st.Code == rollout.TimeLimit && cmd.RolloutID == "" { // a rollout has limits of its own
		reason = store.ReasonLimit
		if cmd.SentAt.IsZero() {
			reason = store.ReasonLifetime
		}
	}
	if reason == "" {
		return true, nil
	}
	now := time.Now().UTC()
	return false, c.store.ChangeCommands(ctx, []store.CommandChange{{ID: cmd.ID, State: store.CommandWithdrawn, At: now, By: "manager", Reason: reason}})
}

// expire withdraws the commands to single nodes that have reached their time limit, and sends the
// withdrawals to the nodes that are online. Other nodes get them when they authenticate. It
// returns the nodes.
func (c *Commands) expire(ctx context.Context) ([]string, error) {
	sent, err := c.store.SentAlone(ctx)
	if err != nil {
		return nil, err
	}
	var nodes []string
	for _, cmd := range sent {
		if !c.nodes.Online(cmd.NodeID) {
			continue
		}
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
	may, err := c.MaySend(ctx, cmd, n)
	if err != nil || may {
		return false, err
	}
	if cmd, err = c.store.Command(ctx, id); err == nil {
		c.nodes.Send(cmd)
	}
	return true, err
}

// otherWants returns, for each of the nodes of a group that another active rollout still
// upgrades, that rollout's version.
func (e scope) otherWants(ctx context.Context, groupID string, ids map[string]bool) (map[string]string, error) {
	all, err := e.Store.Rollouts(ctx, "", true, -1)
	if err != nil {
		return nil, err
	}
	wants := map[string]string{}
	for _, stored := range all {
		r, err := Decode(stored)
		if err != nil || stored.GroupID == groupID {
			continue // a broken one wants nothing
		}
		for _, n := range r.Nodes {
			if !ids[n.ID] || n.State != rollout.NodeCommanded && n.State != rollout.NodeUnproven && n.State != rollout.NodeWaiting {
				continue
			}
			_, absent, err := e.absent(ctx, n) // it was moved, and that rollout is about to skip it
			if err != nil {
				return nil, err
			}
			if !absent {
				wants[n.ID] = r.Version
			}
		}
	}
	return wants, nil
}

// Changes returns which never-sent command of a node is withdrawn because the node moves to
// another group, for which its requester has no right. CommandLock is held.
func (c *Commands) Changes(ctx context.Context, nodeID, groupID, actor string) ([]store.CommandChange, error) {
	cs, err := c.store.Commands(ctx, nodeID, 1)
	if err != nil || len(cs) == 0 || !cs[0].State.Open() || !cs[0].SentAt.IsZero() || cs[0].RolloutID != "" {
		return nil, err
	}
	ok, err := may(ctx, c.rights, cs[0].Acting, api.Operator, groupID)
	if ok || err != nil {
		return nil, err
	}
	return []store.CommandChange{{ID: cs[0].ID, State: store.CommandWithdrawn, At: time.Now().UTC(), By: actor, Reason: store.ReasonMoved}}, nil
}
