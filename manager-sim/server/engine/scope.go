package engine

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"

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

// skipAbsent sets which nodes are online, and have reported in this session what they offer, and returns a Skip for each node that can no
// longer take part because it was removed, or moved to another group.
func (e scope) skipAbsent(ctx context.Context, groupID string, r *rollout.Rollout) ([]rollout.Event, error) {
	members, err := e.Store.GroupMembers(ctx, groupID)
	if err != nil {
		return nil, err
	}
	var skips []rollout.Event
	for i, n := range r.Nodes {
		r.Nodes[i].Online = members[n.ID] && e.Nodes.Reported(n.ID)
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
	in, err := e.Store.NodeScope(ctx, n.ID)
	switch {
	case err != nil && !errors.Is(err, store.ErrNotFound):
		return skip, false, err
	case err != nil || !in.RemovedAt.IsZero(): // a missing record is that of a node that reports nothing any more
		skip.Code = rollout.Removed
		return skip, true, nil
	case n.State == rollout.NodeUnproven:
		return skip, false, nil
	}
	if n.State == rollout.NodeCommanded {
		begun, err := e.begun(ctx, n)
		if err != nil || begun {
			return skip, false, err
		}
	}
	if in.GroupID == "" {
		return skip, true, nil
	}
	g, err := e.Store.Group(ctx, in.GroupID)
	skip.Group = g.Name
	return skip, true, err
}

// begun reports whether a commanded node has reported something about its command, or may have:
// its record cannot be read.
func (e scope) begun(ctx context.Context, n rollout.Node) (bool, error) {
	rec, err := e.Store.Node(ctx, n.ID)
	if errors.Is(err, store.ErrUnreadable) {
		return true, nil
	}
	if err != nil {
		return false, err
	}
	cs, err := e.Store.Commands(ctx, n.ID, 1)
	if err != nil || len(cs) == 0 {
		return false, err
	}
	st, err := e.statuses.OfCommand(ctx, cs[0], rec)
	return st.begun(), err
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
	unable := map[string]bool{}
	for _, rec := range members {
		records[rec.ID] = rec
		unable[rec.ID] = e.Nodes.Reported(rec.ID) && incapable(rec, true) != nil
	}
	pins := pinsOf(*r)
	for i := range r.Nodes {
		n := &r.Nodes[i]
		rec := records[n.ID]
		c, unanswered := known[r.CommandID(*n)]
		n.Facts = rollout.Facts{
			Sent: !c.SentAt.IsZero() || !unanswered, Begun: c.Begun || !unanswered || !c.Obeyed && progresses(c, rec, *r, pins),
			Withdrawn:    unanswered && c.State == store.CommandWithdrawn,
			Withdrawable: slices.Contains(rec.Features, wire.FeatureWithdraw),
			Unable:       unable[n.ID],
			Runs:         rec.Version == r.Version && rec.Trial == "" && !rec.HealthAt.IsZero() && !pins.differ(*r, rec),
		}
	}
	return nil
}

// progresses reports whether a node has reported, since a command of the rollout was sent to it, that
// it runs the rollout's release or has it on trial. Its events may follow later. The target that a node
// reports says less: it stays the same after a rollback.
func progresses(c store.Unanswered, rec store.Node, r rollout.Rollout, pins pins) bool {
	if c.SentAt.IsZero() || !rec.HealthAt.After(c.SentAt) {
		return false
	}
	return rec.Version == r.Version && !pins.differ(r, rec) || triedNow(rec.Upgrade) == r.Version
}

// lostRight returns why a rollout must not give commands, or let them be sent, if the person
// who started or resumed it has lost the right to that. It is an error if that is not known.
func (e scope) lostRight(ctx context.Context, groupID string, r rollout.Rollout, actions []rollout.Action) (string, error) {
	open := slices.ContainsFunc(r.Nodes, func(n rollout.Node) bool { // gets a command, or its command may be sent, or sent again
		return n.State == rollout.NodeWaiting || n.State == rollout.NodeCommanded && !n.Begun
	})
	if r.Status.Final() || r.Status == rollout.Paused || len(commanded(actions)) == 0 && !open {
		return "", nil
	}
	ok, err := may(ctx, e.Rights, r.Acting.Key, api.GroupAdmin, groupID)
	if broken(err) {
		return "", fmt.Errorf("the right of %s, who started or resumed it last, is not known: %w; another person may resume it", cmp.Or(r.Acting.Name, r.By, "the person"), err)
	}
	if ok || err != nil {
		return "", err
	}
	return fmt.Sprintf("%s, who started or resumed it last, may no longer upgrade this group; another person may resume it", cmp.Or(r.Acting.Name, r.By, "the person")), nil
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
