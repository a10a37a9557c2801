package main

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"

	"github.com/bilbycast/edge-agent/cmd/internal/cli"
	"github.com/bilbycast/edge-agent/manager-sim/api"
	"github.com/bilbycast/edge-agent/manager-sim/web"
	"github.com/spf13/cobra"
)

// groupOf returns what a person calls a node's group. names has the groups by id, for a
// manager of an earlier version.
func groupOf(n api.Node, names map[string]string) string {
	return cmp.Or(n.GroupName, names[n.GroupID], n.GroupID)
}

// stateOf returns whether a node is online, in one word.
func stateOf(n api.Node) string {
	switch {
	case !n.RemovedAt.IsZero():
		return "removed"
	case n.Duplicate != nil:
		return "duplicate"
	case n.Online:
		return "online"
	}
	return "offline"
}

// upgradeState describes a node's last upgrade as the pages do.
func upgradeState(n api.Node) string {
	trial := n.TrialText()
	switch n.UpgradeState {
	case api.Queued, api.Sent:
		return "queued"
	case api.Staging:
		if done, total, ok := n.Progress(); ok {
			return fmt.Sprintf("staging %d %%", int(100*min(1, float64(done)/float64(total))))
		}
	case api.Staged:
		if trial == "" {
			return "restarting"
		}
	case api.Failed:
		return "upgrade failed"
	case api.RolledBack:
		if n.Dependency {
			return api.RolledBackDependency
		}
		return "rolled back"
	case api.Changed:
		return "runs another version"
	}
	switch {
	case n.UpgradeState == api.Staging:
	case n.Trial == api.TrialUnproven:
		return "unproven"
	case strings.HasPrefix(trial, "on trial"):
		return "on trial"
	}
	return string(n.UpgradeState)
}

// notUpgradable returns the code of the reason why a node cannot be upgraded now, or "".
func notUpgradable(n api.Node) string {
	switch {
	case n.NotUpgradable != nil:
		return n.NotUpgradable.Code
	case n.UpgradeUnavailable != "":
		return api.CodeNoCapability
	}
	return ""
}

func newNodesCmd() *cobra.Command {
	var c client
	var removed bool
	cmd := &cobra.Command{
		Use:     "nodes",
		Short:   "List the nodes of a running manager",
		Example: `  manager-sim nodes --json | jq '.nodes[] | select(.online | not)'`,
		Args:    cli.ExactArgs(0),
		RunE: func(cmd *cobra.Command, args []string) error {
			nodes, err := c.AllNodes(cmd.Context(), api.NodeQuery{Removed: removed})
			if err != nil {
				return err
			}
			if done, err := printEmpty(&c, cmd, "nodes", nodes, "No nodes."); done || err != nil {
				return err
			}
			names, err := c.groupNames(cmd.Context())
			if err != nil {
				return err
			}
			local := localNames(c.dir)
			t := newTable(cmd.OutOrStdout(), "NODE", "STATE", "HEALTH", "VERSION", "UPGRADE", "TARGET", "CODE", "CANNOT UPGRADE", "GROUP")
			for _, n := range nodes {
				id := n.ID
				if name := local[id]; name != "" {
					id += " (" + name + ")"
				}
				t.row(id, stateOf(n), n.Health, n.Version, upgradeState(n), n.TargetVersion, n.ErrorCode, notUpgradable(n), groupOf(n, names))
			}
			return t.flush()
		},
	}
	c.flags(cmd)
	cmd.Flags().BoolVar(&removed, "removed", false, "list the removed nodes instead")
	return cmd
}

// table prints rows of texts that it makes safe for a terminal.
type table struct {
	w  io.Writer
	b  *bytes.Buffer
	tw *tabwriter.Writer
}

func newTable(w io.Writer, head ...string) table {
	b := new(bytes.Buffer)
	t := table{w, b, tabwriter.NewWriter(b, 0, 0, 2, ' ', 0)}
	if len(head) > 0 {
		t.row(head...)
	}
	return t
}

func (t table) row(cells ...string) {
	for i, cell := range cells {
		cells[i] = cli.Plain(cell)
	}
	fmt.Fprintln(t.tw, strings.Join(cells, "\t"))
}

func (t table) flush() error {
	if err := t.tw.Flush(); err != nil {
		return err
	}
	for line := range strings.Lines(t.b.String()) {
		if _, err := fmt.Fprintln(t.w, strings.TrimRight(line, " \n")); err != nil {
			return err
		}
	}
	return nil
}

func newNodeCmd() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "node",
		Short: "Run a node, or show and change nodes of a running manager",
		Example: `  manager-sim node run
  manager-sim node show 1e8821f6
  manager-sim node command 1e8821f6 reboot --wait
  manager-sim node remove 1e8821f6 --reason 'sold'`,
		Args: cli.ExactArgs(0),
		RunE: func(cmd *cobra.Command, args []string) error { return cmd.Help() },
	}
	cmd.AddCommand(newNodeRunCmd(), newNodeShowCmd(), newNodeRemoveCmd(), newNodeResolveCmd(), newNodePendingCmd(), newNodeAcceptCmd(), newNodeCommandCmd(), newNodeCommandsCmd())
	return cmd
}

func newNodeShowCmd() *cobra.Command {
	var c client
	cmd := &cobra.Command{
		Use: "show NODE", Short: "Show a node: its version, its last upgrade, and why it cannot be upgraded", Args: cli.ExactArgs(1),
		Example: `  manager-sim node show 1e8821f6`,
		RunE: func(cmd *cobra.Command, args []string) error {
			id, err := c.anyNodeID(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			return c.showNode(cmd, func(o api.Option) (api.Node, error) { return c.Node(cmd.Context(), id, o) })
		},
	}
	c.flags(cmd)
	return cmd
}

// showNode makes a call whose answer is a node, and prints the node.
func (c *client) showNode(cmd *cobra.Command, call func(api.Option) (api.Node, error)) error {
	var answer []byte
	n, err := call(api.WithRaw(&answer))
	if err != nil || c.json {
		return errors.Join(err, write(cmd, answer))
	}
	names := map[string]string{}
	if n.GroupID != "" && n.GroupName == "" {
		if names, err = c.groupNames(cmd.Context()); err != nil {
			return err
		}
	}
	t := newTable(cmd.OutOrStdout())
	row := func(name, value string) {
		if value != "" {
			t.row(name, value)
		}
	}
	row("node", n.ID)
	row("name", localNames(c.dir)[n.ID])
	row("device type", n.DeviceType)
	row("group", groupOf(n, names))
	row("state", stateOf(n))
	row("health", n.Health)
	for _, w := range n.Warnings {
		row("warning", w)
	}
	row("version", n.Version)
	row("actions", strings.Join(n.Actions, ", "))
	row("upgrade", strings.TrimSpace(upgradeState(n)+" "+n.TargetVersion))
	if n.MayStillRun {
		row("withdrawn", "the node may still carry it out: it was sent before, and the node has not confirmed the withdrawal")
	}
	row("trial", n.TrialText())
	row("requested by", n.RequestedBy)
	row("code", n.ErrorCode)
	row("error", n.Error)
	if n.ErrorCode != "" {
		meaning, remedy := web.Meaning(n.ErrorCode)
		row("meaning", meaning)
		row("remedy", remedy)
	}
	if why := n.NotUpgradable; why != nil {
		row("cannot upgrade", why.Reason)
		row("what to do", withFlag(why.Remedy))
	} else {
		row("cannot upgrade", n.UpgradeUnavailable)
	}
	if d := n.Duplicate; d != nil {
		row("duplicate", "two devices use this identity since "+stamp(d.Since)+": "+strings.Join(d.Addresses, ", "))
	}
	row("address", n.Address)
	row("registered", stamp(n.RegisteredAt))
	row("last seen", stamp(n.LastSeen))
	row("removed", stamp(n.RemovedAt))
	return t.flush()
}

func newNodeRemoveCmd() *cobra.Command {
	var c client
	var reason string
	var yes bool
	cmd := &cobra.Command{
		Use:   "remove NODE",
		Short: "Remove a node: revoke its secret, end its session, keep its history",
		Long: `Remove revokes the secret of a node and ends its session. Its history stays:
"nodes --removed" and "events" show it. The device cannot connect until it is
registered again. Give at least 8 characters of the node's id. On a terminal the
command asks for confirmation.`,
		Example: `  manager-sim node remove 1e8821f6 --reason 'sold'`,
		Args:    cli.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			id, err := c.nodeID(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			if beginsWith(id, args[0]) && len(id) > len(args[0]) && len(args[0]) < minRemovePrefix {
				return cli.Usage(fmt.Errorf("node remove: give at least %d characters of the id: %s", minRemovePrefix, id))
			}
			n, err := c.Node(cmd.Context(), id)
			what := "its record cannot be read"
			if !api.Unreadable(err) {
				if err != nil {
					return err
				}
				what = n.DeviceType + ", " + stateOf(n)
			}
			if !n.RemovedAt.IsZero() {
				return fmt.Errorf("node %s was removed already, at %s", cli.Plain(id), stamp(n.RemovedAt))
			}
			err = cli.Confirm(cmd, yes, fmt.Sprintf("This removes node %s (%s): its secret is revoked and its session ends.\n"+
				"The device cannot connect until it is registered again. The history stays.", id, what))
			if err != nil {
				return err
			}
			if err := c.RemoveNode(cmd.Context(), id, reason); err != nil {
				return err
			}
			if c.json {
				return nil
			}
			_, err = fmt.Fprintf(cmd.OutOrStdout(), "node %s is removed\n", cli.Plain(id))
			return err
		},
	}
	c.flags(cmd)
	cmd.Flags().StringVar(&reason, "reason", "", "kept in the audit trail")
	yesFlag(cmd, &yes)
	return cmd
}

// yesFlag adds --yes to a command that asks for confirmation.
func yesFlag(cmd *cobra.Command, yes *bool) {
	cmd.Flags().BoolVar(yes, "yes", false, "do not ask for confirmation; a command without a terminal never asks")
}

// minRemovePrefix is the shortest abbreviation of an id for a command that cannot be undone.
const minRemovePrefix = 8

func newNodeResolveCmd() *cobra.Command {
	var c client
	var yes bool
	cmd := &cobra.Command{
		Use:   "resolve NODE",
		Short: "Remove the mark \"duplicate\" of a node whose identity two devices used",
		Long: `Resolve removes the mark "duplicate" of a node. First make sure that only one
device has the node's identity: install the other one again, so that it registers
as a new node. On a terminal the command asks for confirmation.`,
		Example: `  manager-sim node resolve 1e8821f6`,
		Args:    cli.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			id, err := c.nodeID(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			err = cli.Confirm(cmd, yes, fmt.Sprintf("This removes the mark \"duplicate\" of node %s: the manager sends it commands again.\n"+
				"If two devices still use its identity, either of them can receive a command.", id))
			if err != nil {
				return err
			}
			return c.showNode(cmd, func(o api.Option) (api.Node, error) { return c.ResolveNode(cmd.Context(), id, o) })
		},
	}
	c.flags(cmd)
	yesFlag(cmd, &yes)
	return cmd
}
