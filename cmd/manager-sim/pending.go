package main

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"

	"github.com/bilbycast/edge-agent/cmd/internal/cli"
	"github.com/spf13/cobra"
)

// pendingAnswer is a pending node as the API lists it.
type pendingAnswer struct {
	ID         string `json:"id"`
	Address    string `json:"address"`
	DeviceType string `json:"device_type"`
	Version    string `json:"version"`
	FirstSeen  string `json:"first_seen"`
	LastSeen   string `json:"last_seen"`
}

func newNodePendingCmd() *cobra.Command {
	var c client
	cmd := &cobra.Command{
		Use:   "pending",
		Short: "List the nodes that have credentials this manager does not know",
		Long: `Pending lists the nodes that connect with credentials which this manager does not
know, because it was restored from an older backup. "node accept" accepts one.`,
		Example: `  manager-sim node pending`,
		Args:    cli.ExactArgs(0),
		RunE: func(cmd *cobra.Command, args []string) error {
			list, b, err := c.pending(cmd)
			if err != nil || c.json {
				return errors.Join(err, write(cmd, b))
			}
			if len(list) == 0 {
				_, err := fmt.Fprintln(cmd.ErrOrStderr(), "No pending nodes.")
				return err
			}
			t := newTable(cmd.OutOrStdout(), "NODE", "ADDRESS", "DEVICE TYPE", "VERSION", "FIRST SEEN", "LAST SEEN")
			for _, n := range list {
				t.row(n.ID, n.Address, n.DeviceType, n.Version, n.FirstSeen, n.LastSeen)
			}
			return t.flush()
		},
	}
	c.flags(cmd)
	return cmd
}

func (c *client) pending(cmd *cobra.Command) ([]pendingAnswer, []byte, error) {
	var list struct {
		Nodes []pendingAnswer `json:"nodes"`
	}
	b, err := c.call(cmd.Context(), http.MethodGet, "/api/v1/pending-nodes", nil, &list)
	return list.Nodes, b, err
}

func newNodeAcceptCmd() *cobra.Command {
	var c client
	var group string
	cmd := &cobra.Command{
		Use: "accept NODE", Short: "Accept a pending node with the credentials that it has", Args: cli.ExactArgs(1),
		Example: `  manager-sim node accept 1e8821f6 --group 'site one'`,
		RunE: func(cmd *cobra.Command, args []string) error {
			list, _, err := c.pending(cmd)
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
			body := map[string]string{}
			if cmd.Flags().Changed("group") {
				if body["group_id"], err = c.groupID(cmd.Context(), group); err != nil {
					return fmt.Errorf("--group: %w", err)
				}
			}
			b, err := c.call(cmd.Context(), http.MethodPost, "/api/v1/pending-nodes/"+url.PathEscape(id)+"/accept", body, nil)
			if err != nil || c.json {
				return errors.Join(err, write(cmd, b))
			}
			_, err = fmt.Fprintf(cmd.OutOrStdout(), "node %s is accepted; it connects within some minutes\n", cli.Plain(id))
			return err
		},
	}
	c.flags(cmd)
	cmd.Flags().StringVar(&group, "group", "", "name or id of the group that it belongs to")
	return cmd
}
