package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/bilbycast/edge-agent/cmd/internal/cli"
	"github.com/bilbycast/edge-agent/manager-sim/api"
	"github.com/bilbycast/edge-agent/manager-sim/rollout"
	"github.com/bilbycast/edge-agent/release"
	"github.com/spf13/cobra"
)

// rolloutWait is a command that changes a rollout, and waits for its end with --wait.
type rolloutWait struct {
	client
	wait    bool
	timeout time.Duration

	last  string            // what was printed
	shown map[string]string // failures that were printed, by node
}

func (w *rolloutWait) flags(cmd *cobra.Command) {
	cmd.Flags().BoolVar(&w.wait, "wait", false, "wait until the rollout has ended or is paused")
	cmd.Flags().DurationVar(&w.timeout, "timeout", 0, "limit of --wait; 0s is no limit")
}

// run makes the change, which returns the rollout's id, and waits with --wait.
func (w *rolloutWait) run(cmd *cobra.Command, change func() (string, error)) error {
	if !w.wait {
		_, err := change()
		return err
	}
	ctx, cancel := deadline(cmd.Context(), w.timeout)
	defer cancel()
	id := ""
	w.shown = map[string]string{}
	watch := &watch{
		begin: func() (err error) { id, err = change(); return err },
		record: func(r api.Record) (bool, error) {
			if r.Type != api.RecordRollout || r.RolloutID != id {
				return false, nil
			}
			return w.check(ctx, cmd, id)
		},
		check: func() (bool, error) { return w.check(ctx, cmd, id) },
	}
	err := w.follow(cmd, ctx, watch)
	switch {
	case errors.Is(err, errTimeout) && watch.silent():
		return unreachable(fmt.Errorf("the manager does not answer; the rollout continues, see: manager-sim rollout show %s", id))
	case errors.Is(err, errTimeout):
		return cli.Exit(cli.TimedOut, fmt.Errorf("the rollout has not ended within %v; it continues, see: manager-sim rollout show %s", w.timeout, id))
	case errors.Is(err, context.Canceled) && watch.begun:
		return fmt.Errorf("interrupted; the rollout continues, see: manager-sim rollout show %s", id)
	}
	return err
}

// check prints the rollout if it changed, and reports whether waiting ends.
func (w *rolloutWait) check(ctx context.Context, cmd *cobra.Command, id string) (bool, error) {
	var answer []byte
	r, err := w.namedRollout(ctx, id, api.WithRaw(&answer))
	if err != nil {
		return false, err
	}
	if text := summary(r); text != w.last {
		w.last = text
		if !w.json {
			printRollout(cmd.OutOrStdout(), r, w.shown)
		} else if err := write(cmd, answer); err != nil {
			return true, err
		}
	}
	switch r.Status {
	case rollout.Completed:
		return true, nil
	case rollout.Paused:
		return true, cli.Exit(cli.Refused, fmt.Errorf("the rollout is paused: %s\nThen: manager-sim rollout retry|resume|abort %s", cli.Plain(r.Reason), id))
	case rollout.Aborted:
		return true, cli.Exit(cli.Refused, errors.New("the rollout was aborted"))
	}
	return false, nil
}

func newRolloutStartCmd() *cobra.Command {
	w := rolloutWait{}
	var strategy, channel string
	var settle, threshold int
	var dryRun, unlisted, repair bool
	cmd := &cobra.Command{
		Use:   "start GROUP VERSION",
		Short: "Upgrade a group: 10 %, 50 %, 100 % of its nodes, or all at once",
		Long: `Start upgrades the eligible nodes of a group (by its name or id) in waves, and
pauses at the first failure. With --wait it prints the progress until the rollout
has completed, is paused, or was aborted. It survives a restart of the manager.

Exit codes:
  0  completed
  1  another error, or interrupted
  2  wrong usage
  4  refused, paused or aborted
  5  timed out; the rollout continues
  6  the manager is unreachable`,
		Example: `  manager-sim rollout start 'site one' 1.1.0 --dry-run
  manager-sim rollout start 'site one' 1.1.0 --wait --timeout 1h`,
		Args: cli.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			if _, err := release.ParseVersion(args[1]); err != nil {
				return cli.Usage(err)
			}
			err := errors.Join(checkStart(strategy, settle, threshold), checkTimeout(cmd, w.timeout, w.wait))
			if err != nil {
				return err
			}
			group, err := w.groupID(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			request := api.RolloutRequest{Version: args[1], Strategy: strategy, Channel: channel, SettleSecs: &settle, Threshold: threshold, DryRun: dryRun, AllowUnlisted: unlisted, Repair: repair}
			w.wait = w.wait && !dryRun
			return w.run(cmd, func() (string, error) { return w.start(cmd, group, request) })
		},
	}
	w.client.flags(cmd)
	w.flags(cmd)
	f := cmd.Flags()
	f.StringVar(&strategy, "strategy", "staged", "staged (10 %, 50 %, 100 %) or immediate")
	f.StringVar(&channel, "channel", "", "release channel (default: stable)")
	f.IntVar(&settle, "settle-secs", 300, "seconds between two waves")
	f.IntVar(&threshold, "threshold", 1, "number of failures that pauses the rollout")
	f.BoolVar(&unlisted, "allow-unlisted", false, "allow a version that is not published for the nodes' device types")
	f.BoolVar(&repair, "repair", false, "this version is the repair: nodes accept it even if their own check fails now")
	f.BoolVar(&dryRun, "dry-run", false, "only print the plan")
	return cmd
}

// start begins a rollout, and prints its plan.
func (w *rolloutWait) start(cmd *cobra.Command, group string, request api.RolloutRequest) (string, error) {
	var answer []byte
	plan, err := w.UpgradeGroup(cmd.Context(), group, request, api.WithRaw(&answer))
	if isConflict(err) {
		return "", cli.Exit(cli.Refused, fmt.Errorf("the manager refuses the rollout: %w", err))
	}
	if err != nil || w.json {
		return plan.RolloutID, errors.Join(err, write(cmd, answer))
	}
	out := cmd.OutOrStdout()
	if plan.RolloutID != "" {
		fmt.Fprintf(out, "rollout %s\n", cli.Plain(plan.RolloutID))
	}
	for i, wave := range plan.Waves {
		fmt.Fprintf(out, "wave %d: %s\n", i+1, nodeCount(len(wave)))
	}
	if plan.Offline > 0 {
		fmt.Fprintf(out, "%d of %s offline, to be upgraded after reconnecting\n", plan.Offline, nodeCount(plan.NodeCount))
	}
	for _, l := range plan.LeftOut {
		fmt.Fprintf(out, "left out: %s %s\n", cli.Plain(l.NodeID), cli.Plain(l.Reason))
	}
	return plan.RolloutID, nil
}

func nodeCount(n int) string {
	if n == 1 {
		return "1 node"
	}
	return fmt.Sprintf("%d nodes", n)
}
