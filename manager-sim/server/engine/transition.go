package engine

import (
	"cmp"
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

// ErrNoRight means that a person resumed or retried a rollout, but may not upgrade its group.
var ErrNoRight = errors.New("the rollout stays paused")

// Act applies an operator's event to a rollout, with an audit entry. It returns the
// error of package rollout if the rollout's status does not allow it, ErrNoRight, and
// store.ErrNotFound.
func (e *Engine) Act(ctx context.Context, rolloutID string, event rollout.Event, actor string, entry api.AuditEntry) error {
	const attempts = 10 // the engine itself may change the rollout at any time
	for attempt := 1; ; attempt++ {
		stored, err := e.Store.Rollout(ctx, rolloutID)
		if err != nil {
			return err
		}
		err = protected(e, stored.ID, func() error {
			_, err := e.transition(ctx, stored, func(rollout.Rollout) ([]rollout.Event, error) { return []rollout.Event{event}, nil }, actor, entry)
			return err
		})
		if _, abort := event.(rollout.Abort); broken(err) && abort {
			err = abortBroken(ctx, e, stored, entry)
		} else if broken(err) && !errors.Is(err, rollout.ErrBroken) {
			return fmt.Errorf("%w: %w", rollout.ErrBroken, err)
		}
		if !errors.Is(err, store.ErrConflict) || attempt == attempts {
			return err
		}
	}
}

// transition applies events to a stored rollout, and stores the result together with
// the commands and audit entries. Only then the commands are sent. If it fails, nothing
// has changed.
func (e *Engine) transition(ctx context.Context, stored store.Rollout, events func(rollout.Rollout) ([]rollout.Event, error), actor string, audits ...api.AuditEntry) (rollout.Rollout, error) {
	r, err := Decode(stored)
	if err != nil {
		return r, err
	}
	before := string(stored.State)
	more, err := events(r)
	if err != nil {
		return r, err
	}
	e.CommandLock.Lock()
	defer e.CommandLock.Unlock()
	// What the nodes are now, and only then the decision: nobody else decides meanwhile.
	all, err := scopeOf(e).skipAbsent(ctx, stored.GroupID, &r)
	if err == nil {
		err = scopeOf(e).addFacts(ctx, &r)
	}
	if err != nil {
		return r, err
	}
	all = append(all, more...)
	// Whatever took its time until here, such as a database that did not answer, is in the
	// outages.
	now := time.Now().UTC()
	r.Outages, r.Uptime = e.Clock.Outages(now), e.Clock.Uptime(time.Now()) // which has a monotonic clock
	var next rollout.Rollout
	var actions []rollout.Action
	try := func() error {
		return e.Commands.avoidBusy(ctx, func(busy map[string]bool) ([]string, error) {
			for i, n := range r.Nodes {
				r.Nodes[i].Online = n.Online && !busy[n.ID]
			}
			next, actions, err = step(r, all, now)
			return commanded(actions), err
		})
	}
	if err := try(); err != nil {
		return r, err
	}
	lost, err := scopeOf(e).lostRight(ctx, stored.GroupID, next, actions)
	if err != nil {
		return r, err
	}
	if lost != "" {
		all = append([]rollout.Event{rollout.Pause{Reason: lost}}, all...)
		if err := try(); err != nil {
			return r, err
		}
		// A Resume or Retry of somebody else is later than that pause, and decides: of a person
		// with the right, lost is "" already.
		if lost, err = scopeOf(e).lostRight(ctx, stored.GroupID, next, actions); err != nil {
			return r, err
		}
		if lost != "" {
			return r, fmt.Errorf("%w: %s", ErrNoRight, lost)
		}
	}
	return next, e.save(ctx, stored, next, actions, actor, before, audits)
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
		switch a := a.(type) {
		case rollout.Command:
			ids = append(ids, a.NodeID)
		case rollout.Release:
			ids = append(ids, a.NodeID)
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
		if errors.Is(err, store.ErrUnreadable) || errors.Is(err, store.ErrNotFound) { // a decision about the others must not fail
			continue
		}
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
	if stored.Active && r.Status == rollout.Aborted {
		recalls, err := recallsOf(ctx, e, r.ID, actions)
		if err != nil {
			return err
		}
		actions = append(actions, recalls...)
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
	acting := actingOf(r)
	stored.Changes = changesOf(actions, actor, now)
	for _, a := range actions {
		switch a := a.(type) {
		case rollout.Command:
			action, err := actionOf(ctx, e.Store, r, a.NodeID)
			if err != nil {
				return err
			}
			commands = append(commands, store.Command{ID: a.CommandID, NodeID: a.NodeID, Version: r.Version, Channel: r.Channel, Action: action, CreatedAt: now,
				Actor: acting.Name, Acting: acting.Key, RolloutID: r.ID, Limit: r.Limit})
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
	stored.State, stored.Active, stored.Acting = state, !r.Status.Final(), acting // whoever resumed it, resumed what is held, too
	if err := saveRollout(ctx, e, stored, commands, audits); err != nil {
		return err
	}
	e.Log.Info().Str("rollout_id", r.ID).Str("status", string(r.Status)).Int("wave", r.Wave+1).Int("commands", len(commands)).Msg("rollout changed")
	e.Wake() // the next tick may be at another time now
	e.Publish(api.RolloutRecord{Type: api.RecordRollout, Time: now, RolloutID: r.ID, GroupID: r.GroupID, Status: r.Status, Wave: r.Wave + 1})
	sendAfter(ctx, e, actions)
	return nil
}

// actingOf returns whose rights the commands of a rollout have.
func actingOf(r rollout.Rollout) *store.Person {
	return &store.Person{Key: r.Acting.Key, Name: cmp.Or(r.Acting.Name, r.By)}
}

// saveRollout stores a rollout. After an error it may be stored all the same, since the answer of a
// database can be lost: Run then sends again what nodes have not acknowledged.
func saveRollout(ctx context.Context, e *Engine, r store.Rollout, commands []store.Command, audits []api.AuditEntry) error {
	err := e.Rollouts.SaveRollout(ctx, r, commands, audits)
	if err != nil && !errors.Is(err, store.ErrConflict) && !errors.Is(err, store.ErrExists) {
		e.unsent.Store(true)
	}
	return err
}
