package server

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/bilbycast/edge-agent/manager-sim/api"
	"github.com/bilbycast/edge-agent/manager-sim/store"
	"github.com/bilbycast/edge-agent/release"
	"github.com/bilbycast/edge-agent/wire"
	"github.com/google/uuid"
)

// stateWords are the unsettled states, for a sentence.
var stateWords = map[api.UpgradeState]string{
	api.Queued: "waiting to be sent", api.Sent: "sent to the node", api.Staging: "staging", api.Staged: "staged; the node restarts", api.Proving: "on trial",
}

// refuses returns why n would be refused a command now, or nil.
func (s *Server) refuses(n store.Node, st standing) *api.NotUpgradable {
	if f := unfit(n, s.online(n.ID) != nil); f != nil {
		return f
	}
	if st.state.Settled() {
		return nil
	}
	f := &api.NotUpgradable{Code: api.CodeUpgradeInProgress, Reason: fmt.Sprintf("%s requested %s on %s; it is %s.", cmp.Or(st.command.Actor, "An operator"), st.command.Version,
		st.command.CreatedAt.UTC().Format("2006-01-02 15:04:05 UTC"), stateWords[st.state]), Remedy: "Wait until that upgrade has ended."}
	if st.state == api.Queued && s.online(n.ID) == nil {
		f.Remedy = "The node is offline and has not received it: request the new version with replace to withdraw it."
	}
	return f
}

// unfit returns why a node can take no command at all, or nil.
func unfit(n store.Node, online bool) *api.NotUpgradable {
	switch {
	case !n.RemovedAt.IsZero():
		return &api.NotUpgradable{Code: api.CodeRemoved, Reason: "The node was removed on " + n.RemovedAt.Format("2006-01-02 15:04:05 UTC") + ".", Remedy: "Register the device again to manage it."}
	case !n.Duplicate.Since.IsZero():
		return &api.NotUpgradable{Code: api.CodeDuplicateIdentity, Reason: "Two devices use the identity of this node: " + n.Duplicate.From() + ".",
			Remedy: "Give one of them an identity of its own, then mark this as resolved."}
	case slices.Contains(n.Capabilities, wire.CapabilityUpgrade):
		return nil
	case n.Unavailable != "":
		return &api.NotUpgradable{Code: api.CodeNoCapability, Reason: "The node offers no upgrades. It reports: " + strings.TrimSuffix(n.Unavailable, ".") + ".",
			Remedy: "Correct this on the device; edge-agent doctor lists every problem with its remedy."}
	case n.Health == "" && online:
		return &api.NotUpgradable{Code: api.CodeNoCapability, Reason: "The node has not reported its health yet.", Remedy: "Wait some seconds."}
	case n.Health == "":
		return &api.NotUpgradable{Code: api.CodeNoCapability, Reason: "The node went offline before it reported its health.", Remedy: "Check its service and its network on the device."}
	}
	return &api.NotUpgradable{Code: api.CodeNoCapability, Reason: "The node offers no upgrades and reports no cause.",
		Remedy: "Set enabled = true in [upgrade] of its config.toml and restart its service, or install a version that has the upgrade module."}
}

func (s *Server) upgradeNode(w http.ResponseWriter, r *http.Request) {
	var body api.NodeUpgrade
	if !readBody(w, r, &body) {
		return
	}
	if _, err := release.ParseVersion(body.Version); err != nil {
		fail(w, http.StatusBadRequest, string(release.VersionInvalid), "%v", err)
		return
	}
	body.Channel = cmp.Or(body.Channel, release.DefaultChannel)
	for what, name := range map[string]string{"channel": body.Channel, "target_arch": body.TargetArch, "variant": body.Variant} {
		if err := release.CheckName(what, name); name != "" && err != nil {
			fail(w, http.StatusBadRequest, api.CodeBadRequest, "%v", err)
			return
		}
	}
	n, ok := s.node(w, r)
	if !ok {
		return
	}
	if !body.AllowUnlisted {
		if f := s.unpublished(r.Context(), n.DeviceType, body.Channel, body.Version); f != nil {
			fail(w, http.StatusConflict, f.Code, "%s", f.Detail())
			return
		}
	}
	now := time.Now().UTC()
	c := store.Command{ID: uuid.NewString(), NodeID: n.ID, Version: body.Version, Channel: body.Channel, CreatedAt: now, Actor: who(r).Name}
	var err error
	c.Action, err = json.Marshal(wire.Action{Type: wire.ActionUpgrade, Version: body.Version, Channel: body.Channel, TargetArch: body.TargetArch, Variant: body.Variant})
	if err != nil {
		s.storeFailed(w, err)
		return
	}
	f, err := s.give(r.Context(), c, body.Replace)
	switch {
	case err != nil:
		s.storeFailed(w, err)
	case f != nil:
		fail(w, http.StatusConflict, f.Code, "%s", f.Detail())
	default:
		s.Log.Info().Str("node_id", n.ID).Str("command_id", c.ID).Str("to", c.Version).Str("actor", c.Actor).Msg("upgrade requested")
		reply(w, http.StatusAccepted, api.CommandCreated{CommandID: c.ID})
	}
}

// give stores a command that an operator requested and sends it, unless the node is to
// have none now. Both are one step: of two operators one is refused.
func (s *Server) give(ctx context.Context, c store.Command, replace bool) (*api.NotUpgradable, error) {
	s.commanding.Lock()
	defer s.commanding.Unlock()
	n, err := s.Store.Node(ctx, c.NodeID)
	if err != nil {
		return nil, err
	}
	st, err := s.standing(ctx, n)
	if err != nil {
		return nil, err
	}
	ss := s.online(n.ID)
	if f := s.refuses(n, st); f != nil {
		if f.Code != api.CodeUpgradeInProgress || st.state != api.Queued || ss != nil || !replace {
			return f, nil
		}
		c.Replaces = st.command.ID
	}
	details := map[string]any{"version": c.Version, "channel": c.Channel}
	if c.Replaces != "" {
		details["replaces"] = c.Replaces
	}
	if err := s.Store.AddCommand(ctx, c, audit(c.CreatedAt, c.Actor, "node.upgrade.request", n.ID, details)); err != nil {
		return nil, err
	}
	if ss != nil {
		ss.sendCommand(c)
	}
	return nil, nil
}

// busy returns those of the nodes that are to have no command now: an upgrade is in
// progress, or two devices use the identity. s.commanding is held.
func (s *Server) busy(ctx context.Context, ids []string) (map[string]bool, error) {
	busy := map[string]bool{}
	for _, id := range ids {
		n, err := s.Store.Node(ctx, id)
		if err != nil {
			return nil, err
		}
		st, err := s.standing(ctx, n)
		if err != nil {
			return nil, err
		}
		if !st.state.Settled() || !n.Duplicate.Since.IsZero() || !n.RemovedAt.IsZero() {
			busy[id] = true
		}
	}
	return busy, nil
}
