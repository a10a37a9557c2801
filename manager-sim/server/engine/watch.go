package engine

import (
	"cmp"
	"context"
	"slices"
	"time"

	"github.com/bilbycast/edge-agent/manager-sim/api"
	"github.com/bilbycast/edge-agent/manager-sim/rollout"
	"github.com/bilbycast/edge-agent/manager-sim/store"
	"github.com/bilbycast/edge-agent/wire"
)

// Watch finds what is wrong with nodes that kept the version of a rollout.
type Watch struct {
	store    *store.Store
	nodes    Nodes
	statuses Statuses
	clock    *Clock
	patience time.Duration            // the shortest one
	longest  map[string]time.Duration // absences of nodes before a command, by its id; only Engine.Run uses it
}

func newWatch(c Config, statuses Statuses) Watch {
	return Watch{c.Store, c.Nodes, statuses, c.Clock, cmp.Or(c.VanishAfter, rollout.DefaultPatience), make(map[string]time.Duration)}
}

// fallen returns what is new about the nodes that kept the version of a rollout: of the
// changed ones, or of all.
func (w Watch) fallen(ctx context.Context, r rollout.Rollout, changed map[string]bool, all bool) ([]rollout.Event, error) {
	if !slices.ContainsFunc(r.Nodes, func(n rollout.Node) bool { return n.Watched() && (all || changed[n.ID]) }) {
		return nil, nil
	}
	members, err := w.store.GroupNodes(ctx, r.GroupID)
	if err != nil {
		return nil, err
	}
	records := make(map[string]store.Node, len(members))
	for _, rec := range members {
		records[rec.ID] = rec
	}
	var events []rollout.Event
	pins := pinsOf(r)
	for _, n := range r.Nodes {
		rec, member := records[n.ID]
		if !member || !n.Watched() || !all && !changed[n.ID] {
			continue
		}
		if pin := pins.missing(r, rec); pin != nil && n.State == rollout.NodeUpdated {
			events = append(events, pins.add(*pin))
		}
		code, err := w.condition(ctx, r, n, rec, pins.differ(r, rec))
		if err != nil {
			return nil, err
		}
		if code != n.Code {
			events = append(events, rollout.Condition{NodeID: n.ID, Attempt: n.Attempt, Code: code})
		}
	}
	return events, nil
}

// condition returns what is wrong with a watched node of a rollout, as rollout.Condition.
// What it knows stays if the node has another command since, or two devices use its
// identity. otherManifest is whether it runs another release of the version. A node that did not complete the upgrade falls if it runs another version.
func (w Watch) condition(ctx context.Context, r rollout.Rollout, n rollout.Node, rec store.Node, otherManifest bool) (string, error) {
	online := w.nodes.Online(n.ID)
	well := online && !otherManifest && rec.Version == r.Version && (rec.Health != wire.StatusDegraded || n.Degraded)
	if well && n.State == rollout.NodeUpdated || !rec.Duplicate.Since.IsZero() {
		return n.Code, nil
	}
	if otherManifest && n.Attempt == 0 { // it ran the version already
		return rollout.OtherManifest, nil
	}
	cs, err := w.store.Commands(ctx, n.ID, 1)
	if err != nil || len(cs) == 0 || cs[0].ID != r.CommandID(n) {
		return n.Code, err
	}
	st, err := w.statuses.OfCommand(ctx, cs[0], rec)
	if err != nil {
		return n.Code, err
	}
	// What the node reported before it completed is of its trial.
	open := !st.State.Ended() || st.Code == rollout.TimeLimit
	switch {
	case open && rec.Version != r.Version && !rec.HealthAt.IsZero(): // the event that says why comes before the health beat
		return rollout.OtherVersion, nil
	case open:
		return n.Code, nil
	case st.State == api.Changed:
		return rollout.OtherVersion, nil
	case otherManifest:
		return rollout.OtherManifest, nil
	case rec.Health == wire.StatusDegraded && !n.Degraded && w.clock.After(rec.HealthAt, st.Completed):
		return rollout.Degraded, nil
	case online:
		return "", nil
	}
	gone, err := w.vanished(ctx, cs[0], rec)
	if gone {
		return rollout.Vanished, err
	}
	return "", err
}

// vanished reports whether an offline node is away for longer than usual for it.
func (w Watch) vanished(ctx context.Context, c store.Command, rec store.Node) (bool, error) {
	away := w.clock.Age(rec.LastSeen)
	if away < w.patience {
		return false, nil
	}
	longest, known := w.longest[c.ID]
	if !known {
		var err error
		if longest, err = w.LongestAbsence(ctx, rec.ID, c.CreatedAt); err != nil {
			return false, err
		}
		if len(w.longest) > maxLongest {
			clear(w.longest)
		}
		w.longest[c.ID] = longest
	}
	return away >= rollout.Patience(w.patience, longest), nil
}

// maxLongest is how many longest absences are kept in memory.
const maxLongest = 10_000

// LongestAbsence returns the longest time that a node was offline before a time, as far as
// its connections are kept: see store.Store.Connections. Outages of the manager are no absence.
func (w Watch) LongestAbsence(ctx context.Context, nodeID string, before time.Time) (time.Duration, error) {
	cs, err := w.store.Connections(ctx, nodeID)
	if err != nil {
		return 0, err
	}
	now := time.Now()
	longest, outages := time.Duration(0), w.clock.Outages(now)
	for i := 1; i < len(cs); i++ { // newest first; a time in the future is wrong
		if back, left := cs[i-1], cs[i]; back.State == api.Authenticated && left.State == api.Disconnected && back.Time.Before(before) && !back.Time.After(now) {
			longest = max(longest, outages.Elapsed(left.Time, back.Time))
		}
	}
	return longest, nil
}
