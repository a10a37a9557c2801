package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"

	"github.com/bilbycast/edge-agent/cmd/internal/cli"
	"github.com/bilbycast/edge-agent/manager-sim/api"
	"github.com/bilbycast/edge-agent/manager-sim/rollout"
	"github.com/spf13/cobra"
)

// rolloutAct is a command that acts on a rollout.
type rolloutAct struct {
	rolloutWait
	act      string
	yes      bool
	reason   string
	revision string
}

func newRolloutActCmd(act, short string) *cobra.Command {
	a := rolloutAct{act: act}
	args := []string{"ROLLOUT"}
	if act == api.ActSkip {
		args = append(args, "NODE")
	}
	use := act
	for _, arg := range args {
		use += " " + arg
	}
	cmd := &cobra.Command{
		Use: use, Short: short, Args: cli.ExactArgs(len(args)),
		Example: "  manager-sim rollout " + use,
		RunE:    a.run,
	}
	a.client.flags(cmd)
	switch act {
	case api.ActAbort:
		cmd.Flags().StringVar(&a.reason, "reason", "", "kept in the audit trail")
		yesFlag(cmd, &a.yes)
	case api.ActResume, api.ActRetry:
		a.rolloutWait.flags(cmd)
	}
	if a.decides() {
		cmd.Long = short + `.

It first prints what it decides on: the wave and the failures. On a terminal it then
asks for confirmation. The manager refuses it if what was printed has changed
meanwhile; the exit code is then 4. A script that has shown the
rollout before gives what it saw as --revision: the decision of "rollout show --json".`
		cmd.Flags().StringVar(&a.revision, "revision", "", "decision of the rollout that was shown before; it is then not printed again, and nothing is asked")
		yesFlag(cmd, &a.yes)
	}
	return cmd
}

// effects describes the acts that are decisions, for a question.
var effects = map[string]string{
	api.ActResume: "This resumes rollout %s: earlier failures are ignored.",
	api.ActRetry:  "This retries rollout %s: the failed nodes are upgraded again.",
	api.ActSkip:   "This leaves out a node of rollout %s: %s.",
}

// decides reports whether the act is a decision on what a person saw.
func (a *rolloutAct) decides() bool { return a.act != api.ActPause && a.act != api.ActAbort }

func (a *rolloutAct) run(cmd *cobra.Command, args []string) error {
	ctx := cmd.Context()
	if err := checkTimeout(cmd, a.timeout, a.wait); err != nil {
		return err
	}
	if cmd.Flags().Changed("revision") && a.revision == "" {
		return cli.Usage(errors.New("--revision is empty"))
	}
	id, err := a.rolloutID(ctx, args[0])
	if err != nil {
		return err
	}
	if a.act == api.ActAbort {
		if err := a.confirmAbort(cmd, id); err != nil {
			return err
		}
	}
	body := api.RolloutAct{Reason: a.reason, Revision: a.revision}
	if a.decides() {
		r, err := a.namedRollout(ctx, id)
		if err != nil {
			return err
		}
		if a.act == api.ActSkip {
			if body.NodeID, err = pick("node", args[1], nodesOf(r)); err != nil {
				return err
			}
		}
		if body.Revision == "" {
			fmt.Fprint(cmd.ErrOrStderr(), "deciding on the ")
			printRollout(cmd.ErrOrStderr(), r, nil)
			body.Revision = r.Decision // an earlier manager has none, and needs none
			about := []any{id}
			if body.NodeID != "" {
				about = append(about, body.NodeID)
			}
			if err := cli.Confirm(cmd, a.yes, fmt.Sprintf(effects[a.act], about...)); err != nil {
				return err
			}
		}
	}
	return a.rolloutWait.run(cmd, func() (string, error) { return id, a.send(ctx, cmd, id, body) })
}

// send makes the act, and prints the rollout after it.
func (a *rolloutAct) send(ctx context.Context, cmd *cobra.Command, id string, body api.RolloutAct) error {
	var answer []byte
	r, err := a.ActOnRollout(ctx, id, a.act, body, api.WithRaw(&answer))
	p, refused := errors.AsType[*api.Problem](err)
	switch {
	case isConflict(err), refused && p.Status == http.StatusPreconditionFailed:
		return cli.Exit(cli.Refused, err)
	case err != nil:
		return err
	case a.json:
		return write(cmd, answer)
	case !a.wait:
		fmt.Fprintln(cmd.OutOrStdout(), summary(r))
	}
	return nil
}

// nodesOf returns the ids of the nodes of a rollout that may be left out.
func nodesOf(r api.Rollout) []string {
	var ids []string
	for _, n := range r.Nodes {
		if n.State != rollout.NodeSkipped {
			ids = append(ids, n.ID)
		}
	}
	return ids
}

// confirmAbort asks for confirmation that a rollout ends.
func (a *rolloutAct) confirmAbort(cmd *cobra.Command, id string) error {
	r, err := a.namedRollout(cmd.Context(), id)
	if err != nil {
		return err
	}
	return cli.Confirm(cmd, a.yes, fmt.Sprintf("This ends rollout %s for good: no further upgrade starts; running upgrades continue.\n%s", id, summary(r)))
}
