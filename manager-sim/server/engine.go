package server

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"time"

	"github.com/bilbycast/edge-agent/manager-sim/api"
	"github.com/bilbycast/edge-agent/manager-sim/rollout"
	"github.com/bilbycast/edge-agent/manager-sim/store"
	"github.com/bilbycast/edge-agent/wire"
)

// tickEvery bounds how late a rollout sees that time has passed.
const tickEvery = 5 * time.Second

// stir says that something about a node is new.
func (s *Server) stir(nodeID string) {
	s.mu.Lock()
	s.dirty[nodeID] = true
	s.mu.Unlock()
	s.look()
}

// look has the rollouts looked at, soon.
func (s *Server) look() {
	select {
	case s.stirred <- struct{}{}:
	default:
	}
}

// takeDirty returns the nodes of which something is new.
func (s *Server) takeDirty() map[string]bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	d := s.dirty
	s.dirty = make(map[string]bool)
	return d
}

// runRollouts takes all active rollouts on, until ctx is done. It begins with a
// look at every node, so that what happened while no manager ran is seen.
func (s *Server) runRollouts(ctx context.Context) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	all := true
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		case <-s.stirred:
		}
		dirty := s.takeDirty()
		next, err := s.stepRollouts(ctx, dirty, all)
		all = err != nil // nothing that was dirty is forgotten
		switch {
		case errors.Is(err, store.ErrConflict): // an operator was faster
			next = 0
		case err != nil && ctx.Err() == nil:
			s.Log.Error().Err(err).Msg("rollouts could not go on; trying again")
			next = time.Second
		}
		timer.Reset(next)
	}
}

// stepRollouts returns when to look again at the latest.
func (s *Server) stepRollouts(ctx context.Context, dirty map[string]bool, all bool) (time.Duration, error) {
	rs, err := s.Store.Rollouts(ctx, "", true, -1)
	if err != nil {
		return 0, err
	}
	next := tickEvery
	for _, stored := range rs {
		r, err := s.change(ctx, stored, func(r rollout.Rollout) ([]rollout.Event, error) {
			return s.news(ctx, r, dirty, all)
		}, "manager")
		if err != nil {
			return 0, err
		}
		if at, ok := r.NextTick(); ok {
			next = min(next, max(0, time.Until(at)))
		}
	}
	return next, nil
}

// news returns what has become of the dirty nodes of a rollout.
func (s *Server) news(ctx context.Context, r rollout.Rollout, dirty map[string]bool, all bool) ([]rollout.Event, error) {
	var events []rollout.Event
	for _, n := range r.Nodes {
		if !all && !dirty[n.ID] {
			continue
		}
		if n.Attempt == 0 || n.State == rollout.NodeSkipped || n.State == rollout.NodeWaiting {
			continue
		}
		c, err := s.Store.Command(ctx, r.CommandID(n))
		if err != nil {
			return nil, err
		}
		rec, err := s.Store.Node(ctx, n.ID)
		if err != nil {
			return nil, err
		}
		st, err := s.standingOf(ctx, c, rec)
		if err != nil {
			return nil, err
		}
		code := st.code
		outcome := map[api.UpgradeState]rollout.NodeState{api.Updated: rollout.NodeUpdated, api.Failed: rollout.NodeFailed, api.RolledBack: rollout.NodeRolledBack}[st.state]
		// The rollout has a time limit of its own.
		if outcome != "" && outcome != n.State && code != rollout.TimeLimit {
			events = append(events, rollout.Outcome{NodeID: n.ID, Attempt: n.Attempt, State: outcome, Code: code})
		}
	}
	return append(events, rollout.Tick{}), nil
}

// change takes a stored rollout through events, and stores what comes of it
// together with the commands and audit entries: then, not before, the nodes
// are told. An error of the rollout itself, or of the store, changes nothing.
func (s *Server) change(ctx context.Context, stored store.Rollout, events func(rollout.Rollout) ([]rollout.Event, error), actor string, audits ...api.AuditEntry) (rollout.Rollout, error) {
	var r rollout.Rollout
	if err := json.Unmarshal(stored.State, &r); err != nil {
		return r, fmt.Errorf("rollout %s: %w", stored.ID, err)
	}
	before := string(stored.State)
	members, err := s.Store.GroupMembers(ctx, stored.GroupID)
	if err != nil {
		return r, err
	}
	var es []rollout.Event
	for i, n := range r.Nodes {
		r.Nodes[i].Online = members[n.ID] && s.online(n.ID) != nil
		if members[n.ID] || r.Status.Final() {
			continue
		}
		left, err := s.left(ctx, n)
		if err != nil {
			return r, err
		}
		if left {
			es = append(es, rollout.Skip{NodeID: n.ID})
			s.Log.Info().Str("rollout_id", r.ID).Str("node_id", n.ID).Msg("node skipped: it was removed, or moved to another group")
		}
	}
	more, err := events(r)
	if err != nil {
		return r, err
	}
	es = append(es, more...)
	s.commanding.Lock()
	defer s.commanding.Unlock()
	now := time.Now().UTC()
	var next rollout.Rollout
	var acts []rollout.Action
	err = s.untilFree(ctx, func(busy map[string]bool) ([]string, error) {
		for i, n := range r.Nodes {
			r.Nodes[i].Online = n.Online && !busy[n.ID]
		}
		next, acts, err = step(r, es, now)
		return commanded(acts), err
	})
	if err != nil {
		return r, err
	}
	return next, s.save(ctx, stored, next, acts, actor, before, audits)
}

// left reports whether a rollout has to skip a node that is no member of its group: one
// that waits gets no command any more, and one that was removed gives no outcome.
func (s *Server) left(ctx context.Context, n rollout.Node) (bool, error) {
	switch n.State {
	case rollout.NodeWaiting:
		return true, nil
	case rollout.NodeCommanded:
		rec, err := s.Store.Node(ctx, n.ID)
		return err == nil && !rec.RemovedAt.IsZero(), err
	}
	return false, nil
}

// untilFree calls try until none of the nodes that it would command is busy, each time
// with those that are: they are taken later, as nodes that are offline are.
// s.commanding is held.
func (s *Server) untilFree(ctx context.Context, try func(busy map[string]bool) (commanded []string, err error)) error {
	busy := map[string]bool{}
	for {
		ids, err := try(busy)
		if err != nil {
			return err
		}
		more, err := s.busy(ctx, ids)
		if err != nil || len(more) == 0 {
			return err
		}
		maps.Copy(busy, more)
	}
}

// step takes a rollout through events.
func step(r rollout.Rollout, events []rollout.Event, now time.Time) (rollout.Rollout, []rollout.Action, error) {
	var acts []rollout.Action
	for _, e := range events {
		next, more, err := rollout.Step(r, e, now)
		if err != nil {
			return r, nil, err
		}
		r, acts = next, append(acts, more...)
	}
	return r, acts, nil
}

// commanded returns the nodes that actions tell to upgrade.
func commanded(acts []rollout.Action) []string {
	var ids []string
	for _, a := range acts {
		if c, ok := a.(rollout.Command); ok {
			ids = append(ids, c.NodeID)
		}
	}
	return ids
}

func (s *Server) save(ctx context.Context, stored store.Rollout, r rollout.Rollout, acts []rollout.Action, actor, before string, audits []api.AuditEntry) error {
	state, err := json.Marshal(r)
	if err != nil {
		return err
	}
	if string(state) == before && len(acts) == 0 && len(audits) == 0 {
		return nil
	}
	now := time.Now().UTC()
	action, err := json.Marshal(wire.Action{Type: wire.ActionUpgrade, Version: r.Version, Channel: r.Channel})
	if err != nil {
		return err
	}
	var commands []store.Command
	for _, a := range acts {
		switch a := a.(type) {
		case rollout.Command:
			commands = append(commands, store.Command{ID: a.CommandID, NodeID: a.NodeID, Version: r.Version, Channel: r.Channel, Action: action, CreatedAt: now, Actor: r.By})
		case rollout.Note:
			details := map[string]any{"version": r.Version}
			if a.Action == rollout.NotePaused {
				details["wave"], details["failure_count"] = a.Wave, a.Failed
			} else {
				details["completed_count"] = a.Updated
			}
			audits = append(audits, audit(now, actor, a.Action, r.GroupID, details))
		}
	}
	stored.State, stored.Active = state, !r.Status.Final()
	if err := s.Rollouts.SaveRollout(ctx, stored, commands, audits); err != nil {
		return err
	}
	s.Log.Info().Str("rollout_id", r.ID).Str("status", string(r.Status)).Int("wave", r.Wave+1).Int("commands", len(commands)).Msg("rollout")
	s.look() // the next tick may be another one now
	s.stream.send(api.RolloutRecord{Type: api.RecordRollout, Time: now, RolloutID: r.ID, GroupID: r.GroupID, Status: r.Status, Wave: r.Wave + 1})
	for _, c := range commands {
		if ss := s.online(c.NodeID); ss != nil {
			ss.sendCommand(c)
		}
	}
	return nil
}

// audit makes an entry; details are of plain values.
func audit(now time.Time, actor, action, target string, details map[string]any) api.AuditEntry {
	b, err := json.Marshal(details)
	if err != nil {
		b = []byte("{}")
	}
	return api.AuditEntry{Time: now, Actor: actor, Action: action, Target: target, Details: b}
}
