package main

import (
	"errors"
	"fmt"

	"github.com/bilbycast/edge-agent/cmd/internal/cli"
	"github.com/bilbycast/edge-agent/manager-sim/api"
	"github.com/spf13/cobra"
)

func newNodePendingCmd() *cobra.Command {
	var c client
	cmd := &cobra.Command{
		Use:   "pending",
		Short: "List the nodes whose credentials this manager does not know",
		Long: `Pending lists the nodes that connect with credentials which this manager does not
know, because it was restored from an older backup. Accept one with "node accept".`,
		Example: `  manager-sim node pending`,
		Args:    cli.ExactArgs(0),
		RunE: func(cmd *cobra.Command, args []string) error {
			var answer []byte
			list, err := c.PendingNodes(cmd.Context(), api.WithRaw(&answer))
			if err != nil || c.json {
				return errors.Join(err, write(cmd, answer))
			}
			if len(list) == 0 {
				_, err := fmt.Fprintln(cmd.ErrOrStderr(), "No pending nodes.")
				return err
			}
			t := newTable(cmd.OutOrStdout(), "NODE", "ADDRESS", "DEVICE TYPE", "VERSION", "FIRST SEEN", "LAST SEEN")
			for _, n := range list {
				t.row(n.ID, n.Address, n.DeviceType, n.Version, stamp(n.FirstSeen), stamp(n.LastSeen))
			}
			return t.flush()
		},
	}
	c.flags(cmd)
	return cmd
}

func newNodeAcceptCmd() *cobra.Command {
	var c client
	var group string
	cmd := &cobra.Command{
		Use: "accept NODE", Short: "Accept a pending node with its own credentials", Args: cli.ExactArgs(1),
		Example: `  manager-sim node accept 1e8821f6 --group 'site one'`,
		RunE: func(cmd *cobra.Command, args []string) error {
			list, err := c.PendingNodes(cmd.Context())
			if err != nil {
				return err
			}
			ids := make([]string, len(list))
			for i, n := range list {
				ids[i] = n.ID
			}
			id, err := pick("pending node", args[0], ids)
			if err != nil {
				return err
			}
			groupID := ""
			if cmd.Flags().Changed("group") {
				if groupID, err = c.groupID(cmd.Context(), group); err != nil {
					return fmt.Errorf("--group: %w", err)
				}
			}
			var answer []byte
			if _, err := c.AcceptPendingNode(cmd.Context(), id, groupID, api.WithRaw(&answer)); err != nil || c.json {
				return errors.Join(err, write(cmd, answer))
			}
			_, err = fmt.Fprintf(cmd.OutOrStdout(), "node %s is accepted; it connects within some minutes\n", cli.Plain(id))
			return err
		},
	}
	c.flags(cmd)
	cmd.Flags().StringVar(&group, "group", "", "name or id of the group for the node")
	return cmd
}
