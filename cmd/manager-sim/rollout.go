package main

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"github.com/bilbycast/edge-agent/cmd/internal/cli"
	"github.com/bilbycast/edge-agent/manager-sim/web"
	"github.com/spf13/cobra"
)

func newRolloutCmd() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "rollout",
		Short: "Upgrade a group of a running manager, in waves",
		Long: `Rollout upgrades the nodes of a group in waves, and pauses at a failure.

A rollout is named by its id, by 4 or more characters of it, or by its group: then
the group's newest rollout is meant.`,
		Example: `  manager-sim rollout start demo 1.1.0 --wait
  manager-sim rollout show demo
  manager-sim rollout retry demo --wait`,
		Args: cli.ExactArgs(0),
		RunE: func(cmd *cobra.Command, args []string) error { return cmd.Help() },
	}
	cmd.AddCommand(newRolloutStartCmd(), newRolloutListCmd(), newRolloutShowCmd(),
		newRolloutActCmd("pause", "Start no further upgrades until it is resumed; running upgrades continue"),
		newRolloutActCmd("resume", "Continue; earlier failures are ignored when deciding whether to pause again"),
		newRolloutActCmd("retry", "Give the nodes that failed another attempt, and continue"),
		newRolloutActCmd("abort", "End it, after asking on a terminal: no further upgrade starts; running upgrades continue"))
	return cmd
}

// rolloutAnswer is a rollout as the API shows it.
type rolloutAnswer struct {
	ID        string         `json:"id"`
	GroupID   string         `json:"group_id"`
	GroupName string         `json:"group_name"`
	CreatedBy string         `json:"created_by"`
	Version   string         `json:"version"`
	Status    string         `json:"status"`
	Reason    string         `json:"reason"`
	Wave      int            `json:"wave"`
	Waves     []int          `json:"waves"`
	Counts    map[string]int `json:"counts"`
	Nodes     []struct {
		ID      string `json:"id"`
		State   string `json:"state"`
		Code    string `json:"code"`
		Message string `json:"message"` // the node's own
	} `json:"nodes"`
}

// rolloutWords are what the states of a rollout's nodes are called.
var rolloutWords = []struct{ state, word string }{
	{"updated", "updated"}, {"commanded", "upgrading"}, {"waiting", "waiting"}, {"failed", "failed"},
	{"rolled_back", "rolled back"}, {"skipped", "skipped"}, {"missed", "missed"},
}

// counts says how many nodes are in which state.
func (r rolloutAnswer) counts() string {
	var counts []string
	for _, s := range rolloutWords {
		if k := r.Counts[s.state]; k > 0 {
			counts = append(counts, fmt.Sprintf("%d %s", k, s.word))
		}
	}
	return strings.Join(counts, ", ")
}

func (r rolloutAnswer) wave() string { return fmt.Sprintf("%d of %d", r.Wave+1, len(r.Waves)) }

// String is one line about the rollout.
func (r rolloutAnswer) String() string {
	of := "rollout"
	if r.GroupName != "" {
		of += " of " + r.GroupName
	}
	s := fmt.Sprintf("%s to %s: %s, wave %s: %s", of, r.Version, r.Status, r.wave(), r.counts())
	if r.Reason != "" {
		s += " (" + r.Reason + ")"
	}
	return cli.Plain(s)
}

// show prints a rollout, and each failure of a node with the node's own message, its
// meaning and the remedy. It leaves out the failures in shown, and adds the others to
// it; a nil map holds none.
func (r rolloutAnswer) show(w io.Writer, shown map[string]string) {
	fmt.Fprintln(w, r)
	for _, n := range r.Nodes {
		failure := r.failure(n.State, n.Code, n.Message)
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

// failure says how a node failed; "": it did not.
func (rolloutAnswer) failure(state, code, message string) string {
	if code == "" && message == "" {
		return ""
	}
	for _, s := range rolloutWords {
		if s.state == state {
			state = s.word
		}
	}
	text := cli.Plain(state)
	if code != "" {
		text += " (" + cli.Plain(code) + ")"
	}
	if message != "" {
		text += ": " + cli.Plain(message)
	}
	if meaning, remedy := web.Meaning(code); meaning != "" {
		text += "\n    " + meaning + "\n    " + remedy
	}
	return text
}

// named fills in the group's name where the manager does not give it.
func (c *client) named(cmd *cobra.Command, list []rolloutAnswer) error {
	var names map[string]string
	for i := range list {
		if list[i].GroupName != "" || list[i].GroupID == "" {
			continue
		}
		if names == nil {
			var err error
			if names, err = c.groupNames(cmd.Context()); err != nil {
				return err
			}
		}
		list[i].GroupName = cmp.Or(names[list[i].GroupID], list[i].GroupID)
	}
	return nil
}

func newRolloutListCmd() *cobra.Command {
	var c client
	var group string
	var active bool
	cmd := &cobra.Command{
		Use: "list", Short: "List the rollouts, newest first", Args: cli.ExactArgs(0),
		Example: `  manager-sim rollout list --group demo --active`,
		RunE: func(cmd *cobra.Command, args []string) error {
			q := url.Values{"limit": {"1000"}}
			if cmd.Flags().Changed("group") {
				id, err := c.groupID(cmd.Context(), group)
				if err != nil {
					return fmt.Errorf("--group: %w", err)
				}
				q.Set("group_id", id)
			}
			if active {
				q.Set("active", strconv.FormatBool(active))
			}
			list, err := entries[rolloutAnswer](&c, cmd, "/api/v1/rollouts?"+q.Encode(), "rollouts", "No rollouts match.")
			if err != nil || len(list) == 0 {
				return err
			}
			if err := c.named(cmd, list); err != nil {
				return err
			}
			t := newTable(cmd.OutOrStdout(), "ROLLOUT", "GROUP", "VERSION", "STATUS", "WAVE", "NODES", "BY", "REASON")
			for _, r := range list {
				t.row(r.ID, r.GroupName, r.Version, r.Status, r.wave(), r.counts(), r.CreatedBy, r.Reason)
			}
			return t.flush()
		},
	}
	c.flags(cmd)
	cmd.Flags().StringVar(&group, "group", "", "of this group only (its name or id)")
	cmd.Flags().BoolVar(&active, "active", false, "only those that have not ended")
	return cmd
}

func newRolloutShowCmd() *cobra.Command {
	var c client
	cmd := &cobra.Command{
		Use: "show ROLLOUT", Short: "Show a rollout, and the nodes that hold it up", Args: cli.ExactArgs(1),
		Example: `  manager-sim rollout show demo --json | jq .counts`,
		RunE: func(cmd *cobra.Command, args []string) error {
			id, err := c.rolloutID(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			list := make([]rolloutAnswer, 1)
			b, err := c.call(cmd.Context(), http.MethodGet, "/api/v1/rollouts/"+url.PathEscape(id), nil, &list[0])
			if err != nil || c.json {
				return errors.Join(err, write(cmd, b))
			}
			if err := c.named(cmd, list); err != nil {
				return err
			}
			if list[0].CreatedBy != "" {
				fmt.Fprintf(cmd.OutOrStdout(), "%s, requested by %s\n", cli.Plain(list[0].ID), cli.Plain(list[0].CreatedBy))
			} else {
				fmt.Fprintln(cmd.OutOrStdout(), cli.Plain(list[0].ID))
			}
			list[0].show(cmd.OutOrStdout(), nil)
			return nil
		},
	}
	c.flags(cmd)
	return cmd
}

// confirmAbort asks whether a rollout shall end.
func (c *client) confirmAbort(cmd *cobra.Command, id string, yes bool) error {
	list := make([]rolloutAnswer, 1)
	if _, err := c.call(cmd.Context(), http.MethodGet, "/api/v1/rollouts/"+url.PathEscape(id), nil, &list[0]); err != nil {
		return err
	}
	if err := c.named(cmd, list); err != nil {
		return err
	}
	return cli.Confirm(cmd, yes, fmt.Sprintf("This ends rollout %s for good: no further upgrade starts; running upgrades continue.\n%s", id, list[0]))
}

func newRolloutActCmd(act, short string) *cobra.Command {
	w := rolloutWait{}
	var reason string
	var yes bool
	cmd := &cobra.Command{
		Use: act + " ROLLOUT", Short: short, Args: cli.ExactArgs(1),
		Example: "  manager-sim rollout " + act + " ROLLOUT",
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := checkTimeout(cmd, w.timeout, w.wait); err != nil {
				return err
			}
			id, err := w.rolloutID(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			if act == "abort" {
				if err := w.confirmAbort(cmd, id, yes); err != nil {
					return err
				}
			}
			return w.run(cmd, func() (string, error) {
				var r rolloutAnswer
				b, err := w.call(cmd.Context(), http.MethodPost, "/api/v1/rollouts/"+url.PathEscape(id)+"/"+act, reasonBody(reason), &r)
				var refused *refusal
				if errors.As(err, &refused) && refused.status == http.StatusConflict {
					return id, cli.Exit(cli.Refused, err)
				}
				if err != nil || w.json {
					return id, errors.Join(err, write(cmd, b))
				}
				if !w.wait {
					fmt.Fprintln(cmd.OutOrStdout(), r)
				}
				return id, nil
			})
		},
	}
	w.client.flags(cmd)
	switch act {
	case "abort":
		cmd.Flags().StringVar(&reason, "reason", "", "kept in the audit trail")
		yesFlag(cmd, &yes)
	case "resume", "retry":
		w.flags(cmd)
	}
	return cmd
}
