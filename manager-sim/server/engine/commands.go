package engine

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"

	"github.com/bilbycast/edge-agent/manager-sim/api"
	"github.com/bilbycast/edge-agent/manager-sim/store"
	"github.com/bilbycast/edge-agent/wire"
)

// Commands decides whether a node gets a command.
type Commands struct {
	store    *store.Store
	nodes    Nodes
	lock     *sync.Mutex // Config.CommandLock
	statuses Statuses
	rights   Rights
	unknown  *sync.Map // why the open command of a node cannot be sent: a record cannot be read; strings by node
}

// stateWords describes the states of an upgrade that has not ended, for a sentence.
var stateWords = map[api.UpgradeState]string{
	api.Queued: "waiting to be sent", api.Sent: "sent to the node", api.Staging: "staging", api.Staged: "staged; the node restarts", api.Proving: "on trial",
}

// heldWords describes a command that its rollout holds, for a sentence.
const heldWords = "held, because its rollout is paused"

const timeFormat = "2006-01-02 15:04:05 UTC"

// Refusal returns why n would be refused a command now, or nil. st is its status.
func (c *Commands) Refusal(n store.Node, st Status) *api.NotUpgradable {
	if f := incapable(n, c.nodes.Online(n.ID)); f != nil {
		return f
	}
	if !st.Busy() {
		if st.otherTrial(n) {
			return &api.NotUpgradable{Code: api.CodeUpgradeInProgress, Reason: "Version " + n.Version + " is on trial on the node, without a result yet.",
				Remedy: "Wait until the trial has a result."}
		}
		return nil
	}
	if st.Unreadable != "" {
		return &api.NotUpgradable{Code: api.CodeUpgradeInProgress, Reason: fmt.Sprintf("The manager cannot read the node's command %s to upgrade to %s, which is %s: %s.", st.Command.ID, st.Command.Version, st.Command.State, st.Unreadable),
			Remedy: "Withdraw that command, or repair its record in the manager's database."}
	}
	f := &api.NotUpgradable{Code: api.CodeUpgradeInProgress, Reason: fmt.Sprintf("%s requested %s on %s; it is %s.", cmp.Or(st.Command.Actor, "An operator"), st.Command.Version,
		st.Command.CreatedAt.UTC().Format(timeFormat), stateWords[st.State]), Remedy: "Wait until that upgrade has ended."}
	inItsPlace := fmt.Sprintf("request the new version in its place (--replace; in the API \"replaces\": %q).", st.Command.ID)
	held := st.Command.State == store.CommandHeld
	switch {
	case held && st.State == api.Queued:
		f.Reason = strings.Replace(f.Reason, stateWords[api.Queued], heldWords, 1)
		f.Remedy = "It was not sent: " + inItsPlace
	case st.State == api.Queued && !c.nodes.Online(n.ID):
		f.Remedy = "The node is offline and has not received it: " + inItsPlace
	case st.State == api.Sent:
		if held {
			f.Reason = strings.Replace(f.Reason, stateWords[api.Sent], stateWords[api.Sent]+", and "+heldWords, 1)
		}
		f.Remedy = fmt.Sprintf("The node has not reported that it began. Wait until that upgrade has ended, or withdraw it first (manager-sim withdraw %s).", n.ID)
	}
	c.waits(st, f)
	return f
}

// incapable returns why a node cannot carry out any command, or nil.
func incapable(n store.Node, online bool) *api.NotUpgradable {
	switch {
	case !n.RemovedAt.IsZero():
		return &api.NotUpgradable{Code: api.CodeRemoved, Reason: "The node was removed on " + n.RemovedAt.Format(timeFormat) + ".", Remedy: "Register the device again to manage it."}
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

// WhyWaits returns why a node that is online gets no command of a rollout now; "": it gets one.
func (c *Commands) WhyWaits(ctx context.Context, n store.Node) (string, error) {
	if !c.nodes.Reported(n.ID) {
		return "The node has not reported its health since it connected.", nil
	}
	st, err := c.statuses.OfNode(ctx, n)
	if err != nil {
		return "", err
	}
	if f := c.Refusal(n, st); f != nil {
		return f.Reason, nil
	}
	return "", nil
}

// Request stores a command that an operator requested, and sends it if its node is
// online. It returns why the node gets no command now, or nil. Of two requests at the
// same time one is refused. With cmd.Replaces, the command takes the place of that one if it
// was never sent. Replace alone does not name what its requester saw, so it replaces nothing.
func (c *Commands) Request(ctx context.Context, cmd store.Command, replace bool) (*api.NotUpgradable, error) {
	c.lock.Lock()
	defer c.lock.Unlock()
	n, err := c.store.Node(ctx, cmd.NodeID)
	if err != nil {
		return nil, err
	}
	st, err := c.statuses.OfNode(ctx, n)
	if err != nil {
		return nil, err
	}
	seen := cmd.Replaces
	if seen != "" && seen != st.Command.ID {
		return changedMeanwhile(st, seen), nil
	}
	cmd.Replaces = ""
	if f := c.Refusal(n, st); f != nil {
		// What an online node was given is being sent.
		neverSent := st.State == api.Queued && st.Command.SentAt.IsZero() && (st.Command.State == store.CommandHeld || !c.nodes.Online(n.ID))
		if f.Code != api.CodeUpgradeInProgress || !neverSent || st.Unreadable != "" || !replace && seen == "" {
			return f, nil
		}
		if seen == "" {
			f.Remedy = fmt.Sprintf("\"replace\" does not name the command that it replaces: give \"replaces\": %q in its place, or withdraw that command first (manager-sim withdraw %s).", st.Command.ID, n.ID)
			return f, nil
		}
		cmd.Replaces = st.Command.ID
	}
	details := map[string]any{"version": cmd.Version, "channel": cmd.Channel}
	if cmd.Replaces != "" {
		details["replaces"] = cmd.Replaces
	}
	if cmd.Repair {
		details["repair"] = true
	}
	if err := c.store.AddCommand(ctx, cmd, store.NewAuditEntry(cmd.CreatedAt, cmd.Actor, "node.upgrade.request", n.ID, details)); err != nil {
		return nil, err
	}
	cmd.State = store.CommandPending
	if old := st.Command; old.State.Open() && cmd.Replaces == "" { // over for the manager, and withdrawn now
		if old, err = c.store.Command(ctx, old.ID); err == nil {
			c.nodes.Send(old)
		}
	}
	c.nodes.Send(cmd)
	return nil, nil
}

// changedMeanwhile refuses a request that replaces a command which is not the node's any more.
func changedMeanwhile(st Status, seen string) *api.NotUpgradable {
	f := &api.NotUpgradable{Code: api.CodeConflict, Reason: fmt.Sprintf("Command %s is not the node's newest command.", seen), Remedy: "Look at the node again."}
	if c := st.Command; c.ID != "" {
		f.Reason += fmt.Sprintf(" That is %s: %s requested %s on %s; it is %s.", c.ID, cmp.Or(c.Actor, "an operator"), c.Version, c.CreatedAt.UTC().Format(timeFormat), cmp.Or(stateWords[st.State], string(st.State)))
	}
	return f
}

// avoidBusy calls try until none of the nodes that it would command is busy, each time
// with the busy nodes found so far. A rollout upgrades those later, like nodes that
// are offline. The lock is held.
func (c *Commands) avoidBusy(ctx context.Context, try func(busy map[string]bool) (commanded []string, err error)) error {
	busy := map[string]bool{}
	for {
		ids, err := try(busy)
		if err != nil {
			return err
		}
		more, err := c.busy(ctx, ids)
		if err != nil || len(more) == 0 {
			return err
		}
		maps.Copy(busy, more)
	}
}

// busy returns those of the nodes that must get no command now: an upgrade is in
// progress, also one that the device itself began, the node offers no upgrades, two devices use the
// identity, or the node was removed, or its record cannot be read.
func (c *Commands) busy(ctx context.Context, ids []string) (map[string]bool, error) {
	busy := map[string]bool{}
	for _, id := range ids {
		n, err := c.store.Node(ctx, id)
		if errors.Is(err, store.ErrUnreadable) || errors.Is(err, store.ErrNotFound) { // the others get theirs
			busy[id] = true
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("node %s: %w", id, err)
		}
		st, err := c.statuses.OfNode(ctx, n)
		if err != nil {
			return nil, fmt.Errorf("node %s: %w", id, err)
		}
		ownHeld := st.Unreadable == "" && st.Command.State == store.CommandHeld && (st.State == api.Queued || st.State == api.Sent) // which is released
		if st.Busy() && !ownHeld || st.otherTrial(n) || incapable(n, true) != nil {
			busy[id] = true
		}
	}
	return busy, nil
}
