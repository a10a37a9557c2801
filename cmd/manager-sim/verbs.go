package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/bilbycast/edge-agent/cmd/internal/cli"
	"github.com/spf13/cobra"
)

func newNodesCmd() *cobra.Command {
	var c client
	cmd := &cobra.Command{
		Use:     "nodes",
		Short:   "List the nodes of a running manager",
		Example: `  manager-sim nodes --json | jq '.nodes[] | select(.online | not)'`,
		Args:    cli.ExactArgs(0),
		RunE: func(cmd *cobra.Command, args []string) error {
			all := []json.RawMessage{}
			for path := "/api/v1/nodes?limit=1000"; ; {
				var page struct {
					Nodes []json.RawMessage `json:"nodes"`
					Next  string            `json:"next"`
				}
				if _, err := c.call(cmd.Context(), http.MethodGet, path, nil, &page); err != nil {
					return err
				}
				all = append(all, page.Nodes...)
				if page.Next == "" {
					break
				}
				path = "/api/v1/nodes?limit=1000&after=" + url.QueryEscape(page.Next)
			}
			if c.json {
				return json.NewEncoder(cmd.OutOrStdout()).Encode(map[string]any{"nodes": all})
			}
			tw := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 0, 2, ' ', 0)
			fmt.Fprintln(tw, "NODE\tONLINE\tVERSION\tUPGRADE\tTARGET\tCODE\tCAPABILITIES\tGROUP")
			for _, raw := range all {
				var n struct {
					ID           string   `json:"id"`
					Online       bool     `json:"online"`
					Version      string   `json:"version"`
					Target       string   `json:"target_version"`
					State        string   `json:"upgrade_state"`
					ErrorCode    string   `json:"error_code"`
					Capabilities []string `json:"capabilities"`
					GroupID      string   `json:"group_id"`
				}
				if err := json.Unmarshal(raw, &n); err != nil {
					return err
				}
				fmt.Fprintf(tw, "%s\t%t\t%s\t%s\t%s\t%s\t%s\t%s\n", n.ID, n.Online, n.Version, n.State, n.Target, n.ErrorCode, strings.Join(n.Capabilities, ","), n.GroupID)
			}
			return tw.Flush()
		},
	}
	c.flags(cmd)
	return cmd
}

func write(cmd *cobra.Command, b []byte) error {
	if len(b) == 0 {
		return nil
	}
	_, err := cmd.OutOrStdout().Write(b)
	return err
}

func newUpgradeCmd() *cobra.Command {
	var c client
	var channel string
	var wait bool
	cmd := &cobra.Command{
		Use:   "upgrade NODE VERSION",
		Short: "Upgrade one node of a running manager",
		Long: `Upgrade asks a node for a version. With --wait it prints what happens until the
node has proved the version healthy (exit code 0), has refused it, or has gone
back (1).`,
		Example: `  manager-sim upgrade 1e8821f6-0acc-4a65-a661-589910968e57 1.1.0 --wait`,
		Args:    cli.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			var answer struct {
				CommandID string `json:"command_id"`
			}
			ask := func() error {
				b, err := c.call(cmd.Context(), http.MethodPost, "/api/v1/nodes/"+url.PathEscape(args[0])+"/upgrade", map[string]string{"version": args[1], "channel": channel}, &answer)
				if err != nil {
					return err
				}
				if c.json {
					return write(cmd, b)
				}
				_, err = fmt.Fprintf(cmd.OutOrStdout(), "command %s\n", answer.CommandID)
				return err
			}
			if !wait {
				return ask()
			}
			return c.follow(cmd.Context(), ask, func(r record, raw []byte) (bool, error) {
				if r.CommandID != answer.CommandID || r.CommandID == "" {
					return false, nil
				}
				if c.json {
					if err := write(cmd, append(raw, '\n')); err != nil {
						return true, err
					}
				} else if r.Type == "event" {
					fmt.Fprintf(cmd.OutOrStdout(), "%-22s %s\n", r.ErrorCode, r.Message)
				}
				switch {
				case r.ErrorCode == "upgrade_completed", r.ErrorCode == "upgrade_staged_manual":
					return true, nil
				case r.Type == "event" && r.Severity != "info", r.Type == "ack" && !r.Success:
					return true, fmt.Errorf("upgrade to %s: %s", args[1], r.ErrorCode)
				}
				return false, nil
			})
		},
	}
	c.flags(cmd)
	cmd.Flags().StringVar(&channel, "channel", "", "release channel (default: stable)")
	cmd.Flags().BoolVar(&wait, "wait", false, "until it has ended")
	return cmd
}

func newEventsCmd() *cobra.Command {
	var c client
	var follow bool
	q := url.Values{}
	var node, severity, search string
	cmd := &cobra.Command{
		Use:     "events",
		Short:   "List the newest events of a running manager, or follow them",
		Example: `  manager-sim events --follow --json`,
		Args:    cli.ExactArgs(0),
		RunE: func(cmd *cobra.Command, args []string) error {
			for k, v := range map[string]string{"node_id": node, "severity": severity, "search": search} {
				if v != "" {
					q.Set(k, v)
				}
			}
			var page struct {
				Events []record `json:"events"`
			}
			b, err := c.call(cmd.Context(), http.MethodGet, "/api/v1/events?"+q.Encode(), nil, &page)
			if err != nil {
				return err
			}
			if c.json && !follow {
				return write(cmd, b)
			}
			line := func(r record) {
				fmt.Fprintf(cmd.OutOrStdout(), "%s  %-8s  %s  %-22s %s\n", r.Time, r.Severity, r.NodeID, r.ErrorCode, r.Message)
			}
			if !c.json {
				for _, r := range slices.Backward(page.Events) {
					line(r)
				}
			}
			if !follow {
				return nil
			}
			return c.follow(cmd.Context(), func() error { return nil }, func(r record, raw []byte) (bool, error) {
				if r.Type != "event" || node != "" && r.NodeID != node || severity != "" && r.Severity != severity {
					return false, nil
				}
				if c.json {
					return false, write(cmd, append(raw, '\n'))
				}
				line(r)
				return false, nil
			})
		},
	}
	c.flags(cmd)
	f := cmd.Flags()
	f.BoolVar(&follow, "follow", false, "go on with what happens from now on")
	f.StringVar(&node, "node", "", "of this node only")
	f.StringVar(&severity, "severity", "", "info, warning or critical only")
	f.StringVar(&search, "search", "", "with this text only")
	return cmd
}

func newRolloutCmd() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "rollout",
		Short: "Upgrade a group of a running manager, in waves",
		Example: `  manager-sim rollout start GROUP 1.1.0 --wait
  manager-sim rollout show ROLLOUT
  manager-sim rollout retry ROLLOUT`,
		Args: cli.ExactArgs(0),
		RunE: func(cmd *cobra.Command, args []string) error { return cmd.Help() },
	}
	cmd.AddCommand(newRolloutStartCmd(), newRolloutShowCmd())
	for act, short := range map[string]string{
		"pause":  "Tell no further node, until it is resumed",
		"resume": "Go on; the failures so far count no more",
		"retry":  "Give the nodes that failed another attempt, and go on",
		"abort":  "End it: no further node is told; what runs goes on",
	} {
		cmd.AddCommand(newRolloutActCmd(act, short))
	}
	return cmd
}

type rolloutAnswer struct {
	ID      string         `json:"id"`
	Version string         `json:"version"`
	Status  string         `json:"status"`
	Reason  string         `json:"reason"`
	Wave    int            `json:"wave"`
	Waves   []int          `json:"waves"`
	Counts  map[string]int `json:"counts"`
	Nodes   []struct {
		ID    string `json:"id"`
		State string `json:"state"`
		Code  string `json:"code"`
	} `json:"nodes"`
}

func (r rolloutAnswer) String() string {
	var counts []string
	for _, s := range []string{"updated", "commanded", "waiting", "failed", "rolled_back", "skipped", "missed"} {
		if k := r.Counts[s]; k > 0 {
			counts = append(counts, fmt.Sprintf("%d %s", k, s))
		}
	}
	s := fmt.Sprintf("%s to %s: wave %d of %d: %s", r.Status, r.Version, r.Wave+1, len(r.Waves), strings.Join(counts, ", "))
	if r.Reason != "" {
		s += " (" + r.Reason + ")"
	}
	return s
}

// show prints a rollout, and the nodes that hold it up.
func (c *client) show(cmd *cobra.Command, id string) (rolloutAnswer, error) {
	var r rolloutAnswer
	b, err := c.call(cmd.Context(), http.MethodGet, "/api/v1/rollouts/"+url.PathEscape(id), nil, &r)
	if err != nil || c.json {
		return r, errors.Join(err, write(cmd, b))
	}
	fmt.Fprintln(cmd.OutOrStdout(), r)
	for _, n := range r.Nodes {
		if n.Code != "" {
			fmt.Fprintf(cmd.OutOrStdout(), "  %s %s %s\n", n.ID, n.State, n.Code)
		}
	}
	return r, nil
}

func newRolloutShowCmd() *cobra.Command {
	var c client
	cmd := &cobra.Command{
		Use: "show ROLLOUT", Short: "Say where a rollout stands, and who holds it up", Args: cli.ExactArgs(1),
		Example: `  manager-sim rollout show ROLLOUT --json | jq .counts`,
		RunE: func(cmd *cobra.Command, args []string) error {
			_, err := c.show(cmd, args[0])
			return err
		},
	}
	c.flags(cmd)
	return cmd
}

func newRolloutActCmd(act, short string) *cobra.Command {
	var c client
	cmd := &cobra.Command{
		Use: act + " ROLLOUT", Short: short, Args: cli.ExactArgs(1),
		Example: "  manager-sim rollout " + act + " ROLLOUT",
		RunE: func(cmd *cobra.Command, args []string) error {
			var r rolloutAnswer
			b, err := c.call(cmd.Context(), http.MethodPost, "/api/v1/rollouts/"+url.PathEscape(args[0])+"/"+act, nil, &r)
			if err != nil || c.json {
				return errors.Join(err, write(cmd, b))
			}
			_, err = fmt.Fprintln(cmd.OutOrStdout(), r)
			return err
		},
	}
	c.flags(cmd)
	return cmd
}

func newRolloutStartCmd() *cobra.Command {
	var c client
	var strategy, channel string
	var settle, threshold int
	var dryRun, wait bool
	cmd := &cobra.Command{
		Use:   "start GROUP VERSION",
		Short: "Upgrade a group: 10 %, 50 %, 100 % of its nodes, or all at once",
		Long: `Start upgrades the eligible nodes of a group (by its id or name) in waves, and
pauses at the first failure. With --wait it prints how it goes until it has
completed (exit code 0), or is paused or aborted (1).`,
		Example: `  manager-sim rollout start 'site one' 1.1.0 --dry-run
  manager-sim rollout start 'site one' 1.1.0 --wait`,
		Args: cli.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			group, err := c.groupID(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			body := map[string]any{"version": args[1], "channel": channel, "strategy": strategy, "settle_secs": settle, "threshold": threshold, "dry_run": dryRun}
			var plan struct {
				RolloutID string     `json:"rollout_id"`
				NodeCount int        `json:"node_count"`
				Offline   int        `json:"offline"`
				Waves     [][]string `json:"waves"`
				LeftOut   []struct {
					NodeID string `json:"node_id"`
					Reason string `json:"reason"`
				} `json:"left_out"`
			}
			begin := func() error {
				b, err := c.call(cmd.Context(), http.MethodPost, "/api/v1/groups/"+group+"/upgrade", body, &plan)
				if err != nil || c.json {
					return errors.Join(err, write(cmd, b))
				}
				out := cmd.OutOrStdout()
				if plan.RolloutID != "" {
					fmt.Fprintf(out, "rollout %s\n", plan.RolloutID)
				}
				for i, w := range plan.Waves {
					fmt.Fprintf(out, "wave %d: %d node(s)\n", i+1, len(w))
				}
				if plan.Offline > 0 {
					fmt.Fprintf(out, "%d of %d are offline, and are taken when they are back\n", plan.Offline, plan.NodeCount)
				}
				for _, l := range plan.LeftOut {
					fmt.Fprintf(out, "left out: %s %s\n", l.NodeID, l.Reason)
				}
				return nil
			}
			if !wait || dryRun {
				return begin()
			}
			return c.follow(cmd.Context(), begin, func(r record, _ []byte) (bool, error) {
				if r.Type != "rollout" || r.RolloutID != plan.RolloutID {
					return false, nil
				}
				now, err := c.show(cmd, plan.RolloutID)
				if err != nil {
					return true, err
				}
				switch now.Status {
				case "completed":
					return true, nil
				case "paused", "aborted":
					return true, fmt.Errorf("the rollout is %s", now.Status)
				}
				return false, nil
			})
		},
	}
	c.flags(cmd)
	f := cmd.Flags()
	f.StringVar(&strategy, "strategy", "staged", "staged (10 %, 50 %, 100 %) or immediate")
	f.StringVar(&channel, "channel", "", "release channel (default: stable)")
	f.IntVar(&settle, "settle-secs", 300, "between a wave and the next")
	f.IntVar(&threshold, "threshold", 1, "failures that pause it")
	f.BoolVar(&dryRun, "dry-run", false, "only print the plan")
	f.BoolVar(&wait, "wait", false, "until it has ended, or is paused")
	return cmd
}

// groupID finds a group by id or name.
func (c *client) groupID(ctx context.Context, name string) (string, error) {
	var list struct {
		Groups []struct {
			ID   string `json:"id"`
			Name string `json:"name"`
		} `json:"groups"`
	}
	if _, err := c.call(ctx, http.MethodGet, "/api/v1/groups", nil, &list); err != nil {
		return "", err
	}
	for _, g := range list.Groups {
		if g.ID == name || g.Name == name {
			return g.ID, nil
		}
	}
	return "", fmt.Errorf("there is no group %q", name)
}
