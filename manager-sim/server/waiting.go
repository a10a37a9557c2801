package server

import (
	"context"
	"errors"
	"strings"

	"github.com/bilbycast/edge-agent/manager-sim/api"
	"github.com/bilbycast/edge-agent/manager-sim/rollout"
	"github.com/bilbycast/edge-agent/manager-sim/store"
)

// addWaiting adds to the view of a rollout the nodes for which its present wave waits: those
// that are offline, those that are online and cannot be upgraded now, and those whose record
// cannot be read. While upgrades run, it waits for those.
func (h *rolloutRoutes) addWaiting(ctx context.Context, ro rollout.Rollout, v *api.Rollout) error {
	if ro.Status != rollout.Running && ro.Status != rollout.Waiting || ro.Wave < 0 || ro.Wave >= len(ro.Waves) {
		return nil
	}
	for _, n := range ro.Nodes[:min(ro.Waves[ro.Wave], len(ro.Nodes))] {
		if n.State == rollout.NodeCommanded {
			return nil
		}
	}
	for i, n := range ro.Nodes[:min(ro.Waves[ro.Wave], len(ro.Nodes))] {
		if n.State != rollout.NodeWaiting {
			continue
		}
		rec, err := h.store.Node(ctx, n.ID)
		name, reason := nameOf(rec), ""
		if err == nil && h.engine.Nodes.Online(n.ID) {
			if reason, err = h.engine.Commands.WhyWaits(ctx, rec); err == nil && reason == "" {
				continue // it is about to get its command
			}
		}
		if errors.Is(err, store.ErrNotFound) || errors.Is(err, store.ErrUnreadable) {
			name, v.Nodes[i].Message = "its record cannot be read", err.Error()
		} else if err != nil {
			return err
		}
		v.WaitingFor = append(v.WaitingFor, api.WaitingFor{NodeID: n.ID, Name: name, Since: rec.LastSeen, Reason: reason})
	}
	return nil
}

// nameOf returns what an operator knows a node by, beside its id: a node reports no name, but
// what it is, and where it connected from last.
func nameOf(n store.Node) string {
	var parts []string
	if n.DeviceType != "" {
		parts = append(parts, n.DeviceType)
	}
	if n.Address != "" {
		parts = append(parts, "at "+n.Address)
	}
	return strings.Join(parts, " ")
}
