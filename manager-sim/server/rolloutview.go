package server

import (
	"context"
	"encoding/json"

	"github.com/bilbycast/edge-agent/manager-sim/rollout"
	"github.com/bilbycast/edge-agent/manager-sim/store"
)

// rolloutView is a rollout as the API shows it.
type rolloutView struct {
	rollout.Rollout
	Nodes     []rolloutNode             `json:"nodes"` // in place of the rollout\'s
	GroupName string                    `json:"group_name"`
	Counts    map[rollout.NodeState]int `json:"counts"`
	Revision  int64                     `json:"revision"`
}

// rolloutNode is a node of a rollout, with its own message to a failure.
type rolloutNode struct {
	rollout.Node
	Message string `json:"message,omitempty"`
}

// maxMessages bounds of how many failed nodes of a rollout the messages are looked up.
const maxMessages = 100

// messages returns the messages of the failed nodes of a rollout.
func (s *Server) messages(ctx context.Context, v *rolloutView) error {
	left := maxMessages
	for i, n := range v.Nodes {
		if n.Code == "" || n.Code == rollout.TimeLimit || left == 0 {
			continue
		}
		left--
		c, err := s.Store.Command(ctx, v.CommandID(n.Node))
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

func viewRollout(stored store.Rollout, groups map[string]string) (rolloutView, error) {
	v := rolloutView{GroupName: groups[stored.GroupID], Counts: map[rollout.NodeState]int{}, Revision: stored.Revision}
	if err := json.Unmarshal(stored.State, &v.Rollout); err != nil {
		return v, err
	}
	for _, n := range v.Rollout.Nodes {
		v.Nodes = append(v.Nodes, rolloutNode{Node: n})
		v.Counts[n.State]++
	}
	v.Reason = v.PauseReason()
	return v, nil
}
