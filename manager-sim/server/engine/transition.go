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

// Act applies an operator's event to a rollout, with an audit entry. It returns the
// error of package rollout if the rollout's status does not allow it, and
// store.ErrNotFound.
func (e *Engine) Act(ctx context.Context, rolloutID string, event rollout.Event, actor string, entry api.AuditEntry) error {
	const attempts = 10 // the engine itself may change the rollout at any time
	for attempt := 1; ; attempt++ {
		stored, err := e.Store.Rollout(ctx, rolloutID)
		if err != nil {
			return err
		}
		_, err = e.transition(ctx, stored, func(rollout.Rollout) ([]rollout.Event, error) { return []rollout.Event{event}, nil }, actor, entry)
		if !errors.Is(err, store.ErrConflict) || attempt == attempts {
			return err
		}
	}
}

// transition applies events to a stored rollout, and stores the result together with
// the commands and audit entries. Only then the commands are sent. If it fails, nothing
// has changed.
func (e *Engine) transition(ctx context.Context, stored store.Rollout, events func(rollout.Rollout) ([]rollout.Event, error), actor string, audits ...api.AuditEntry) (rollout.Rollout, error) {
	var r rollout.Rollout
	if err := json.Unmarshal(stored.State, &r); err != nil {
		return r, fmt.Errorf("rollout %s: %w", stored.ID, err)
	}
	before := string(stored.State)
	all, err := e.skipAbsent(ctx, stored.GroupID, &r)
	if err != nil {
		return r, err
	}
	more, err := events(r)
	if err != nil {
		return r, err
	}
	all = append(all, more...)
	e.CommandLock.Lock()
	defer e.CommandLock.Unlock()
	// Whatever took its time until here, such as a database that did not answer, is in the
	// outages.
	now := time.Now().UTC()
	r.Outages = e.Clock.Outages(now)
	var next rollout.Rollout
	var actions []rollout.Action
	err = e.Commands.avoidBusy(ctx, func(busy map[string]bool) ([]string, error) {
		for i, n := range r.Nodes {
			r.Nodes[i].Online = n.Online && !busy[n.ID]
		}
		next, actions, err = step(r, all, now)
		return commanded(actions), err
	})
	if err != nil {
		return r, err
	}
	return next, e.save(ctx, stored, next, actions, actor, before, audits)
}

// skipAbsent sets which nodes are online, and returns a Skip for each node that can no
// longer take part because it was removed, or moved to another group.
func (e *Engine) skipAbsent(ctx context.Context, groupID string, r *rollout.Rollout) ([]rollout.Event, error) {
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
		absent, err := e.absent(ctx, n)
		if err != nil {
			return nil, err
		}
		if absent {
			skips = append(skips, rollout.Skip{NodeID: n.ID})
			e.Log.Info().Str("rollout_id", r.ID).Str("node_id", n.ID).Msg("node skipped: it was removed, or moved to another group")
		}
	}
	return skips, nil
}

// absent reports whether a node that is no member of the group has to be skipped. A
// waiting node gets no command any more. A removed node reports no outcome.
func (e *Engine) absent(ctx context.Context, n rollout.Node) (bool, error) {
	switch n.State {
	case rollout.NodeWaiting:
		return true, nil
	case rollout.NodeCommanded, rollout.NodeUnproven:
		rec, err := e.Store.Node(ctx, n.ID)
		return err == nil && !rec.RemovedAt.IsZero(), err
	}
	return false, nil
}

// step applies events to a rollout.
func step(r rollout.Rollout, events []rollout.Event, now time.Time) (rollout.Rollout, []rollout.Action, error) {
	var actions []rollout.Action
	for _, event := range events {
		next, more, err := rollout.Step(r, event, now)
		if err != nil {
			return r, nil, err
		}
		r, actions = next, append(actions, more...)
	}
	return r, actions, nil
}

// commanded returns the nodes that get a command.
func commanded(actions []rollout.Action) []string {
	var ids []string
	for _, a := range actions {
		if c, ok := a.(rollout.Command); ok {
			ids = append(ids, c.NodeID)
		}
	}
	return ids
}

// recordDegraded records in a rollout which of the commanded nodes are degraded already, so
// that its release is not blamed for that.
func (e *Engine) recordDegraded(ctx context.Context, r rollout.Rollout, actions []rollout.Action) error {
	ids := commanded(actions)
	for i, n := range r.Nodes {
		if !slices.Contains(ids, n.ID) {
			continue
		}
		rec, err := e.Store.Node(ctx, n.ID)
		if err != nil {
			return err
		}
		r.Nodes[i].Degraded = rec.Health == wire.StatusDegraded
	}
	return nil
}

// save stores a rollout after a transition from the state before, and sends its
// commands. It stores nothing if nothing changed. CommandLock is held.
func (e *Engine) save(ctx context.Context, stored store.Rollout, r rollout.Rollout, actions []rollout.Action, actor, before string, audits []api.AuditEntry) error {
	if err := e.recordDegraded(ctx, r, actions); err != nil {
		return err
	}
	state, err := json.Marshal(r)
	if err != nil {
		return err
	}
	if string(state) == before && len(actions) == 0 && len(audits) == 0 {
		return nil
	}
	now := time.Now().UTC()
	var commands []store.Command
	for _, a := range actions {
		switch a := a.(type) {
		case rollout.Command:
			action, err := actionOf(ctx, e.Store, r, a.NodeID)
			if err != nil {
				return err
			}
			commands = append(commands, store.Command{ID: a.CommandID, NodeID: a.NodeID, Version: r.Version, Channel: r.Channel, Action: action, CreatedAt: now, Actor: r.By})
		case rollout.Note:
			details := map[string]any{"version": r.Version}
			if a.Action == rollout.NotePaused {
				details["wave"], details["failure_count"] = a.Wave, a.Failed
			} else {
				details["completed_count"] = a.Updated
			}
			audits = append(audits, store.NewAuditEntry(now, actor, a.Action, r.GroupID, details))
		}
	}
	stored.State, stored.Active = state, !r.Status.Final()
	if err := e.Rollouts.SaveRollout(ctx, stored, commands, audits); err != nil {
		return err
	}
	e.Log.Info().Str("rollout_id", r.ID).Str("status", string(r.Status)).Int("wave", r.Wave+1).Int("commands", len(commands)).Msg("rollout changed")
	e.Wake() // the next tick may be at another time now
	e.Publish(api.RolloutRecord{Type: api.RecordRollout, Time: now, RolloutID: r.ID, GroupID: r.GroupID, Status: r.Status, Wave: r.Wave + 1})
	for _, c := range commands {
		e.Nodes.Send(c)
	}
	return nil
}
