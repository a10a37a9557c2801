package server

import (
	"context"
	"encoding/json"

	"github.com/bilbycast/edge-agent/manager-sim/api"
	"github.com/bilbycast/edge-agent/manager-sim/rollout"
	"github.com/bilbycast/edge-agent/manager-sim/store"
)

// maxMessages bounds of how many failed nodes of a rollout the messages are looked up.
const maxMessages = 100

// addMessages adds the messages of the failed nodes to the view of a rollout.
func (s *Server) addMessages(ctx context.Context, ro rollout.Rollout, v *api.Rollout) error {
	left := maxMessages
	for i, n := range ro.Nodes {
		if n.Code == "" || n.Code == rollout.TimeLimit || left == 0 {
			continue
		}
		left--
		c, err := s.Store.Command(ctx, ro.CommandID(n))
		if err != nil {
			return err
		}
		st, err := s.standingOf(ctx, c, store.Node{ID: n.ID})
		if err != nil {
			return err
		}
		if st.code == n.Code {
			v.Nodes[i].Message = st.message
		}
	}
	return nil
}

// viewRollout returns a stored rollout, and how the API shows it.
func viewRollout(stored store.Rollout, groups map[string]string) (rollout.Rollout, api.Rollout, error) {
	var r rollout.Rollout
	if err := json.Unmarshal(stored.State, &r); err != nil {
		return r, api.Rollout{}, err
	}
	v := api.Rollout{
		ID: r.ID, GroupID: r.GroupID, Version: r.Version, Channel: r.Channel, Strategy: r.Strategy, From: r.From, CreatedBy: r.By,
		Settle: r.Settle, Limit: r.Limit, Life: r.Life, Threshold: r.Threshold, Status: r.Status, Reason: r.PauseReason(),
		Waves: r.Waves, Wave: r.Wave, SettleUntil: r.SettleUntil, CreatedAt: r.CreatedAt, EndedAt: r.EndedAt,
		GroupName: groups[stored.GroupID], Counts: map[rollout.NodeState]int{}, Revision: stored.Revision,
	}
	for _, n := range r.Nodes {
		v.Nodes = append(v.Nodes, api.RolloutNode{ID: n.ID, State: n.State, Attempt: n.Attempt, Since: n.Since, Code: n.Code, Known: n.Known})
		v.Counts[n.State]++
	}
	return r, v, nil
}
