package main

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"text/tabwriter"

	"github.com/bilbycast/edge-agent/cmd/internal/cli"
	"github.com/bilbycast/edge-agent/manager-sim/api"
	"github.com/bilbycast/edge-agent/manager-sim/web"
	"github.com/spf13/cobra"
)

// nodeAnswer is a node as the API shows it. Fields that a manager of an earlier
// version does not know are empty.
type nodeAnswer struct {
	ID            string `json:"id"`
	DeviceType    string `json:"device_type"`
	GroupID       string `json:"group_id"`
	GroupName     string `json:"group_name"`
	Online        bool   `json:"online"`
	Address       string `json:"address"`
	Health        string `json:"health"`
	Version       string `json:"version"`
	TargetVersion string `json:"target_version"`
	State         string `json:"upgrade_state"`
	ErrorCode     string `json:"error_code"`
	Error         string `json:"error"`
	CommandID     string `json:"command_id"`
	RequestedBy   string `json:"requested_by"`
	Unavailable   string `json:"upgrade_unavailable"`
	NotUpgradable *struct {
		Code   string `json:"code"`
		Reason string `json:"reason"`
		Remedy string `json:"remedy"`
	} `json:"not_upgradable"`
	Duplicate *struct {
		Addresses []string `json:"addresses"`
		Since     string   `json:"since"`
	} `json:"duplicate"`
	Upgrade      json.RawMessage `json:"upgrade"` // as the node reports it
	RegisteredAt string          `json:"registered_at"`
	LastSeen     string          `json:"last_seen"`
	RemovedAt    string          `json:"removed_at"`
}

// group is what a person calls the node's group.
func (n nodeAnswer) group(names map[string]string) string {
	return cmp.Or(n.GroupName, names[n.GroupID], n.GroupID)
}

func (n nodeAnswer) online() string {
	switch {
	case n.RemovedAt != "":
		return "removed"
	case n.Duplicate != nil:
		return "duplicate"
	case n.Online:
		return "online"
	}
	return "offline"
}

// upgradeWord is where the last upgrade stands, in the words of the pages.
func (n nodeAnswer) upgradeWord() string {
	switch api.UpgradeState(n.State) {
	case api.Queued, api.Sent:
		return "queued"
	case api.Staging:
		var u struct {
			Progress struct {
				BytesDone  int64 `json:"bytes_done"`
				BytesTotal int64 `json:"bytes_total"`
			} `json:"progress"`
		}
		if p := &u.Progress; json.Unmarshal(n.Upgrade, &u) == nil && p.BytesTotal > 0 && p.BytesDone >= 0 {
			return fmt.Sprintf("staging %d %%", int(100*min(1, float64(p.BytesDone)/float64(p.BytesTotal))))
		}
	case api.Staged:
		return "restarting"
	case api.Failed:
		return "upgrade failed"
	case api.RolledBack:
		return "rolled back"
	case api.Changed:
		return "runs another version"
	}
	return n.State
}

// cannot is why the node cannot be upgraded now, in one word.
func (n nodeAnswer) cannot() string {
	switch {
	case n.NotUpgradable != nil:
		return n.NotUpgradable.Code
	case n.Unavailable != "":
		return "no_capability"
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
			path := "/api/v1/nodes?limit=1000"
			if removed {
				path += "&removed=true"
			}
			nodes, err := entries[nodeAnswer](&c, cmd, path, "nodes", "No nodes.")
			if err != nil || len(nodes) == 0 {
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
				t.row(id, n.online(), n.Health, n.Version, n.upgradeWord(), n.TargetVersion, n.ErrorCode, n.cannot(), n.group(names))
			}
			return t.flush()
		},
	}
	c.flags(cmd)
	cmd.Flags().BoolVar(&removed, "removed", false, "list the removed nodes instead")
	return cmd
}

// table prints rows of texts from elsewhere, each made safe for a terminal.
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
		Short: "Run a node, or look at one of a running manager",
		Example: `  manager-sim node run
  manager-sim node show 1e8821f6
  manager-sim node remove 1e8821f6 --reason 'sold'`,
		Args: cli.ExactArgs(0),
		RunE: func(cmd *cobra.Command, args []string) error { return cmd.Help() },
	}
	cmd.AddCommand(newNodeRunCmd(), newNodeShowCmd(), newNodeRemoveCmd(), newNodeResolveCmd(), newNodePendingCmd(), newNodeAcceptCmd())
	return cmd
}

func newNodeShowCmd() *cobra.Command {
	var c client
	cmd := &cobra.Command{
		Use: "show NODE", Short: "Show a node: its version, its last upgrade, and what keeps it from one", Args: cli.ExactArgs(1),
		Example: `  manager-sim node show 1e8821f6`,
		RunE: func(cmd *cobra.Command, args []string) error {
			id, err := c.anyNodeID(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			return c.showNode(cmd, http.MethodGet, "/api/v1/nodes/"+url.PathEscape(id))
		},
	}
	c.flags(cmd)
	return cmd
}

// showNode makes a call whose answer is a node, and prints the node.
func (c *client) showNode(cmd *cobra.Command, method, path string) error {
	var n nodeAnswer
	b, err := c.call(cmd.Context(), method, path, nil, &n)
	if err != nil || c.json {
		return errors.Join(err, write(cmd, b))
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
	row("group", n.group(names))
	row("state", n.online())
	row("health", n.Health)
	row("version", n.Version)
	row("upgrade", strings.TrimSpace(n.upgradeWord()+" "+n.TargetVersion))
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
		row("cannot upgrade", n.Unavailable)
	}
	if d := n.Duplicate; d != nil {
		row("duplicate", "two devices use this identity since "+d.Since+": "+strings.Join(d.Addresses, ", "))
	}
	row("address", n.Address)
	row("registered", n.RegisteredAt)
	row("last seen", n.LastSeen)
	row("removed", n.RemovedAt)
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
"nodes --removed" and "events" show it. The device cannot connect any more until
somebody registers it again. The node's id cannot be abbreviated to fewer than 8
characters here. On a terminal it asks first.`,
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
			var n nodeAnswer
			if _, err := c.call(cmd.Context(), http.MethodGet, "/api/v1/nodes/"+url.PathEscape(id), nil, &n); err != nil {
				return err
			}
			if n.RemovedAt != "" {
				return fmt.Errorf("node %s was removed already, at %s", cli.Plain(id), cli.Plain(n.RemovedAt))
			}
			err = cli.Confirm(cmd, yes, fmt.Sprintf("This removes node %s (%s, %s): its secret is revoked and its session ends.\n"+
				"The device cannot connect until somebody registers it again. The history stays.", id, n.DeviceType, n.online()))
			if err != nil {
				return err
			}
			if _, err := c.call(cmd.Context(), http.MethodDelete, "/api/v1/nodes/"+url.PathEscape(id), reasonBody(reason), nil); err != nil {
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

// yesFlag adds --yes to a command that asks first.
func yesFlag(cmd *cobra.Command, yes *bool) {
	cmd.Flags().BoolVar(yes, "yes", false, "do not ask for confirmation; without a terminal nothing is asked")
}

// minRemovePrefix is minPrefix for what cannot be undone.
const minRemovePrefix = 8

// reasonBody is the body of a call that takes a reason; nil: there is none.
func reasonBody(reason string) any {
	if reason == "" {
		return nil
	}
	return map[string]string{"reason": reason}
}

func newNodeResolveCmd() *cobra.Command {
	var c client
	var yes bool
	cmd := &cobra.Command{
		Use:   "resolve NODE",
		Short: "End the mark \"duplicate\" of a node whose identity two devices used",
		Long: `Resolve ends the mark "duplicate" of a node. Do it after only one device has the
node's identity: install the other one again, so that it registers by itself. On a
terminal it asks first.`,
		Example: `  manager-sim node resolve 1e8821f6`,
		Args:    cli.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			id, err := c.nodeID(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			err = cli.Confirm(cmd, yes, fmt.Sprintf("This ends the mark \"duplicate\" of node %s: the manager sends it commands again.\n"+
				"If two devices still use its identity, either of them can receive a command.", id))
			if err != nil {
				return err
			}
			return c.showNode(cmd, http.MethodPost, "/api/v1/nodes/"+url.PathEscape(id)+"/resolve")
		},
	}
	c.flags(cmd)
	yesFlag(cmd, &yes)
	return cmd
}
