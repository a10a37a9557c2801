package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/bilbycast/edge-agent/cmd/internal/cli"
	"github.com/bilbycast/edge-agent/manager-sim/api"
	"github.com/bilbycast/edge-agent/manager-sim/rollout"
	"github.com/bilbycast/edge-agent/manager-sim/web"
	"github.com/spf13/cobra"
)

func newRolloutCmd() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "rollout",
		Short: "Upgrade a group of a running manager, in waves",
		Long: `Rollout upgrades the nodes of a group in waves, and pauses at a failure.

Name a rollout by its id, by the first 4 or more characters of its id, or by its
group. The group means its newest rollout.`,
		Example: `  manager-sim rollout start demo 1.1.0 --wait
  manager-sim rollout show demo
  manager-sim rollout retry demo --wait`,
		Args: cli.ExactArgs(0),
		RunE: func(cmd *cobra.Command, args []string) error { return cmd.Help() },
	}
	cmd.AddCommand(newRolloutStartCmd(), newRolloutListCmd(), newRolloutShowCmd(),
		newRolloutActCmd(api.ActPause, "Start no further upgrades until the rollout is resumed; running upgrades continue"),
		newRolloutActCmd(api.ActResume, "Continue; earlier failures are ignored when deciding whether to pause again"),
		newRolloutActCmd(api.ActRetry, "Upgrade the failed nodes again, and continue"),
		newRolloutActCmd(api.ActSkip, "Leave a node out; its upgrade is withdrawn if the node has not begun it"),
		newRolloutActCmd(api.ActAbort, "End the rollout: no further upgrade starts, and upgrades that a node has not begun are withdrawn; running upgrades continue. Asks for confirmation on a terminal"))
	return cmd
}

// nodeStates are the states of a rollout's nodes, in the order of counts.
var nodeStates = []struct {
	state rollout.NodeState
	word  string
}{
	{rollout.NodeUpdated, "updated"}, {rollout.NodeCommanded, "upgrading"}, {rollout.NodeUnproven, "unproven"}, {rollout.NodeWaiting, "waiting"}, {rollout.NodeFailed, "failed"},
	{rollout.NodeRolledBack, "rolled back"}, {rollout.NodeDependency, api.RolledBackDependency}, {rollout.NodeSkipped, "skipped"}, {rollout.NodeMissed, "missed"},
}

// countsOf returns the number of nodes in each state, as a text.
func countsOf(r api.Rollout) string {
	var counts []string
	for _, s := range nodeStates {
		if k := r.Counts[s.state]; k > 0 {
			counts = append(counts, fmt.Sprintf("%d %s", k, s.word))
		}
	}
	return strings.Join(counts, ", ")
}

func waveOf(r api.Rollout) string { return fmt.Sprintf("%d of %d", r.Wave+1, len(r.Waves)) }

// summary describes a rollout in one line.
func summary(r api.Rollout) string {
	of := "rollout"
	if r.GroupName != "" {
		of += " of " + r.GroupName
	}
	s := fmt.Sprintf("%s to %s: %s, wave %s: %s", of, r.Version, cmp.Or(r.Result, string(r.Status)), waveOf(r), countsOf(r))
	if r.Reason != "" {
		s += " (" + r.Reason + ")"
	}
	return cli.Plain(s)
}

// printRollout prints a rollout, and each failure of a node with the node's own message,
// its meaning and the remedy. It omits the failures in shown, and adds the others to it;
// a nil map is empty.
func printRollout(w io.Writer, r api.Rollout, shown map[string]string) {
	fmt.Fprintln(w, summary(r))
	if waiting := r.WaitingText(); waiting != "" {
		fmt.Fprintln(w, "  "+cli.Plain(waiting))
	}
	for _, n := range r.Nodes {
		failure := failureOf(n)
		if failure == shown[n.ID] {
			continue
		}
		if shown != nil {
			shown[n.ID] = failure
		}
		if failure != "" {
			fmt.Fprintf(w, "  %s %s\n", cli.Plain(n.ID), failure)
		}
	}
}

// failureOf describes the failure of a node, or what an unproven one waits for; "" for any
// other.
func failureOf(n api.RolloutNode) string {
	if n.State == rollout.NodeUnproven {
		return "unproven: " + cli.Plain(n.Hold.String())
	}
	if n.Code == "" && n.Message == "" {
		return ""
	}
	state := string(n.State)
	for _, s := range nodeStates {
		if s.state == n.State {
			state = s.word
		}
	}
	text := cli.Plain(state)
	if n.Code != "" {
		text += " (" + cli.Plain(n.Code) + ")"
	}
	if n.Message != "" {
		text += ": " + cli.Plain(n.Message)
	}
	if meaning, remedy := web.Meaning(n.Code); meaning != "" {
		text += "\n    " + meaning + "\n    " + remedy
	}
	return text
}

// nameGroups sets the missing names of groups, which a manager of an earlier version does
// not send.
func (c *client) nameGroups(ctx context.Context, list ...*api.Rollout) error {
	var names map[string]string
	for _, r := range list {
		if r.GroupName != "" || r.GroupID == "" {
			continue
		}
		if names == nil {
			var err error
			if names, err = c.groupNames(ctx); err != nil {
				return err
			}
		}
		r.GroupName = cmp.Or(names[r.GroupID], r.GroupID)
	}
	return nil
}

// namedRollout returns a rollout with the name of its group.
func (c *client) namedRollout(ctx context.Context, id string, options ...api.Option) (api.Rollout, error) {
	r, err := c.Rollout(ctx, id, options...)
	if err != nil {
		return r, err
	}
	local := localNames(c.dir)
	for i, w := range r.WaitingFor {
		if name := local[w.NodeID]; name != "" {
			r.WaitingFor[i].Name = name
		}
	}
	return r, c.nameGroups(ctx, &r)
}

func newRolloutListCmd() *cobra.Command {
	var c client
	var group string
	var active bool
	cmd := &cobra.Command{
		Use: "list", Short: "List the rollouts, newest first", Args: cli.ExactArgs(0),
		Example: `  manager-sim rollout list --group demo --active`,
		RunE: func(cmd *cobra.Command, args []string) error {
			q := api.RolloutQuery{Active: active}
			if cmd.Flags().Changed("group") {
				id, err := c.groupID(cmd.Context(), group)
				if err != nil {
					return fmt.Errorf("--group: %w", err)
				}
				q.GroupID = id
			}
			list, err := c.AllRollouts(cmd.Context(), q)
			if err != nil {
				return err
			}
			if done, err := printEmpty(&c, cmd, "rollouts", list, "No rollouts match."); done || err != nil {
				return err
			}
			unnamed := make([]*api.Rollout, len(list))
			for i := range list {
				unnamed[i] = &list[i]
			}
			if err := c.nameGroups(cmd.Context(), unnamed...); err != nil {
				return err
			}
			t := newTable(cmd.OutOrStdout(), "ROLLOUT", "GROUP", "VERSION", "STATUS", "WAVE", "NODES", "BY", "REASON")
			for _, r := range list {
				t.row(r.ID, r.GroupName, r.Version, cmp.Or(r.Result, string(r.Status)), waveOf(r), countsOf(r), r.CreatedBy, r.Reason)
			}
			return t.flush()
		},
	}
	c.flags(cmd)
	cmd.Flags().StringVar(&group, "group", "", "only rollouts of this group (its name or id)")
	cmd.Flags().BoolVar(&active, "active", false, "only rollouts that have not ended")
	return cmd
}

func newRolloutShowCmd() *cobra.Command {
	var c client
	cmd := &cobra.Command{
		Use: "show ROLLOUT", Short: "Show a rollout, and its failed nodes", Args: cli.ExactArgs(1),
		Example: `  manager-sim rollout show demo --json | jq .counts`,
		RunE: func(cmd *cobra.Command, args []string) error {
			id, err := c.rolloutID(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			var answer []byte
			r, err := c.namedRollout(cmd.Context(), id, api.WithRaw(&answer))
			if err != nil || c.json {
				return errors.Join(err, write(cmd, answer))
			}
			if r.CreatedBy != "" {
				fmt.Fprintf(cmd.OutOrStdout(), "%s, requested by %s\n", cli.Plain(r.ID), cli.Plain(r.CreatedBy))
			} else {
				fmt.Fprintln(cmd.OutOrStdout(), cli.Plain(r.ID))
			}
			printRollout(cmd.OutOrStdout(), r, nil)
			return nil
		},
	}
	c.flags(cmd)
	return cmd
}
