package engine

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"runtime/debug"
	"time"

	"github.com/bilbycast/edge-agent/manager-sim/api"
	"github.com/bilbycast/edge-agent/manager-sim/rollout"
	"github.com/bilbycast/edge-agent/manager-sim/store"
)

// brokenError is why a rollout cannot continue, though the store is well.
type brokenError struct{ err error }

func (e *brokenError) Error() string { return e.err.Error() }
func (e *brokenError) Unwrap() error { return e.err }

// broken reports whether an error is about the records of one rollout, and not of the store.
func broken(err error) bool {
	var b *brokenError
	return errors.As(err, &b) || errors.Is(err, rollout.ErrBroken) || errors.Is(err, store.ErrNotFound) || errors.Is(err, store.ErrUnreadable)
}

// Decode returns the state of a stored rollout. Its error is about that state.
func Decode(stored store.Rollout) (rollout.Rollout, error) {
	var r rollout.Rollout
	if err := json.Unmarshal(stored.State, &r); err != nil {
		return r, &brokenError{fmt.Errorf("its state cannot be read: %w", err)}
	}
	if r.ID != stored.ID {
		return r, &brokenError{fmt.Errorf("its state is that of rollout %.80q", r.ID)}
	}
	return r, nil
}

// protected runs f, and returns a panic of it as a brokenError.
func protected(e *Engine, id string, f func() error) (err error) {
	defer func() {
		if p := recover(); p != nil {
			e.Log.Error().Str("rollout_id", id).Interface("panic", p).Bytes("stack", debug.Stack()).Msg("rollout failed")
			err = &brokenError{fmt.Errorf("the manager failed: %v; see its log", p)}
		}
	}()
	return f()
}

// pauseBroken pauses a rollout that cannot continue because of err. A rollout whose state
// cannot be read stays as it is: nothing advances it, its commands are held, and the API shows
// it as broken.
func pauseBroken(ctx context.Context, e *Engine, stored store.Rollout, err error) error {
	if e.logged[stored.ID] != err.Error() {
		e.Log.Error().Str("rollout_id", stored.ID).Err(err).Msg("rollout is broken")
		e.logged[stored.ID] = err.Error()
	}
	r, unreadable := Decode(stored)
	if unreadable != nil {
		return holdBroken(ctx, e, stored.ID)
	}
	return protected(e, stored.ID, func() error {
		e.CommandLock.Lock()
		defer e.CommandLock.Unlock()
		now := time.Now()
		r.Outages, r.Uptime = e.Clock.Outages(now), e.Clock.Uptime(now)
		if factsErr := scopeOf(e).addFacts(ctx, &r); factsErr != nil { // what is not known stays as it is
			for i := range r.Nodes {
				r.Nodes[i].Facts = rollout.Facts{Sent: true, Begun: true}
			}
		}
		next, actions, stepErr := rollout.Step(r, rollout.Break{Reason: err.Error()}, now.UTC())
		if stepErr != nil {
			return stepErr
		}
		return e.save(ctx, stored, next, actions, "manager", string(stored.State), nil)
	})
}

// holdBroken holds the commands of a rollout whose state cannot be read, as a pause does: those
// that the nodes have not begun.
func holdBroken(ctx context.Context, e *Engine, id string) error {
	e.CommandLock.Lock()
	defer e.CommandLock.Unlock()
	known, err := e.Store.Unanswered(ctx, id)
	if err != nil {
		return err
	}
	var holds []rollout.Action
	for _, c := range known {
		if !c.Begun && (c.State == store.CommandPending || c.State == store.CommandSent) {
			holds = append(holds, rollout.Hold{CommandID: c.ID})
		}
	}
	if len(holds) == 0 {
		return nil
	}
	return e.Store.ChangeCommands(ctx, changesOf(holds, "manager", time.Now().UTC()))
}

// recallsOf returns the withdrawals of all commands of an aborted rollout that the nodes have
// not begun, also of those that its state does not know, but without those in known.
func recallsOf(ctx context.Context, e *Engine, id string, known []rollout.Action) ([]rollout.Action, error) {
	unanswered, err := e.Store.Unanswered(ctx, id)
	if err != nil {
		return nil, err
	}
	for _, a := range known {
		if a, ok := a.(rollout.Recall); ok {
			delete(unanswered, a.CommandID)
		}
	}
	var recalls []rollout.Action
	for _, c := range unanswered {
		if !c.Begun && c.State.Open() {
			recalls = append(recalls, rollout.Recall{CommandID: c.ID, Reason: rollout.ForAbort})
		}
	}
	return recalls, nil
}

// abortBroken aborts a rollout, whatever its state is, and withdraws its commands that the nodes
// have not begun.
func abortBroken(ctx context.Context, e *Engine, stored store.Rollout, entry api.AuditEntry) error {
	if !stored.Active {
		return rollout.ErrFinal
	}
	e.CommandLock.Lock()
	defer e.CommandLock.Unlock()
	now := time.Now().UTC()
	recalls, err := recallsOf(ctx, e, stored.ID, nil)
	if err != nil {
		return err
	}
	stored.Changes = changesOf(recalls, entry.Actor, now)
	if r, err := Decode(stored); err == nil {
		r.Status, r.Reason, r.Broken, r.SettleUntil, r.EndedAt = rollout.Aborted, "", "", time.Time{}, now
		if state, err := json.Marshal(r); err == nil {
			stored.State = state
		}
	}
	stored.Active = false
	if err := saveRollout(ctx, e, stored, nil, []api.AuditEntry{entry}); err != nil {
		return err
	}
	sendAfter(ctx, e, recalls)
	e.Log.Info().Str("rollout_id", stored.ID).Msg("broken rollout aborted")
	e.Publish(api.RolloutRecord{Type: api.RecordRollout, Time: now, RolloutID: stored.ID, GroupID: stored.GroupID, Status: rollout.Aborted, Wave: 1})
	e.Wake()
	return nil
}
