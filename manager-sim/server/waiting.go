package server

import (
	"context"

	"github.com/bilbycast/edge-agent/manager-sim/api"
	"github.com/bilbycast/edge-agent/manager-sim/rollout"
)

// addWaiting adds to the view of a rollout the offline nodes for which its present wave
// waits. While upgrades run, it waits for those.
func (h *rolloutRoutes) addWaiting(ctx context.Context, ro rollout.Rollout, v *api.Rollout) error {
	if ro.Status != rollout.Running && ro.Status != rollout.Waiting || ro.Wave < 0 || ro.Wave >= len(ro.Waves) {
		return nil
	}
	for _, n := range ro.Nodes[:min(ro.Waves[ro.Wave], len(ro.Nodes))] {
		if n.State == rollout.NodeCommanded {
			return nil
		}
	}
	for _, n := range ro.Nodes[:min(ro.Waves[ro.Wave], len(ro.Nodes))] {
		if n.State != rollout.NodeWaiting || h.engine.Nodes.Online(n.ID) {
			continue
		}
		rec, err := h.store.Node(ctx, n.ID)
		if err != nil {
			return err
		}
		v.WaitingFor = append(v.WaitingFor, api.WaitingFor{NodeID: n.ID, Since: rec.LastSeen})
	}
	return nil
}
