package main

import (
	"context"
	"errors"

	"github.com/bilbycast/edge-agent/cmd/internal/cli"
	"github.com/bilbycast/edge-agent/manager-sim/api"
	"github.com/spf13/cobra"
)

func newWithdrawCmd() *cobra.Command {
	var c client
	var command, reason string
	cmd := &cobra.Command{
		Use:   "withdraw NODE",
		Short: "Withdraw the upgrade of a node that has not ended",
		Long: `Withdraw withdraws a node's last upgrade. What was never sent is not sent any more.
The manager tells a node that has it already to stop before the restart; a
node that does not know withdrawals may still carry it out, and the answer says so.`,
		Example: `  manager-sim withdraw 1e8821f6 --reason 'wrong version'`,
		Args:    cli.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			id, err := c.nodeID(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			if command == "" {
				n, err := c.Node(cmd.Context(), id)
				if api.Unreadable(err) {
					n.CommandID, err = c.lastCommand(cmd.Context(), id)
				}
				if err != nil {
					return err
				}
				if command = n.CommandID; command == "" {
					return errors.New("the node never had an upgrade")
				}
			}
			return c.showNode(cmd, func(o api.Option) (api.Node, error) {
				return c.WithdrawUpgrade(cmd.Context(), id, api.Withdrawal{CommandID: command, Reason: reason}, o)
			})
		},
	}
	c.flags(cmd)
	cmd.Flags().StringVar(&command, "command", "", "withdraw only this command (default: the node's last one)")
	cmd.Flags().StringVar(&reason, "reason", "", "why, for the audit trail")
	return cmd
}

// lastCommand returns the id of a node's last command, "" if there is none. The record of the
// node need not be readable.
func (c *client) lastCommand(ctx context.Context, nodeID string) (string, error) {
	list, err := c.Commands(ctx, nodeID, 1, "")
	if err != nil || len(list.Commands) == 0 {
		return "", err
	}
	return list.Commands[0].ID, nil
}
