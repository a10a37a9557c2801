package main

import (
	"context"
	"fmt"

	"github.com/bilbycast/edge-agent/cmd/internal/cli"
	"github.com/bilbycast/edge-agent/config"
	"github.com/bilbycast/edge-agent/fsutil"
	"github.com/bilbycast/edge-agent/install"
	"github.com/bilbycast/edge-agent/internal/state"
	"github.com/bilbycast/edge-agent/probe"
	"github.com/bilbycast/edge-agent/release"
	"github.com/bilbycast/edge-agent/stage"
	"github.com/bilbycast/edge-agent/upgrade"
	"github.com/spf13/cobra"
)

func newApplyCmd() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "apply --root DIR",
		Short: "Put the staged version on trial at the next start of the service",
		Long: `With manual_only = true the agent stages what its manager requests, and leaves
the swap to you. Apply points current to the staged version. Its trial begins
when you restart the service; a running agent restarts by itself after 30 s. If
the version does not prove healthy, the previous version returns. Apply refuses a
version that lacks a file which the service's unit names below current, and one
that would not run with the present config.toml. It also refuses if a program or a
library of that version, or of the running one, is not as it was staged.

Apply asks the [health] checks of config.toml first. It refuses if they fail for
some seconds: the trial could not tell a bad version from a sick node. --repair
says that this version is the repair; then only its own check counts, and what
[health] dependency names.`,
		Args: cli.ExactArgs(0, "root"),
	}
	var repair, accept bool
	cmd.Flags().BoolVar(&repair, "repair", false, repairHelp)
	cmd.Flags().BoolVar(&accept, "accept", false, acceptHelp)
	return newManualCmd(cmd, func([]string) (manualStep, error) {
		return func(ctx context.Context, l state.Layout) (state.Result, error) {
			if err := install.FitApply(ctx, l); err != nil {
				return state.Result{}, err
			}
			c, _, err := config.Open(l.ConfigFile())
			if err != nil { // apply needs no config.toml; status and doctor report it
				return upgrade.Apply(ctx, l, upgrade.Running{Repair: repair, Accept: accept})
			}
			return upgrade.Apply(ctx, l, running(c, repair, accept))
		}, nil
	})
}

const acceptHelp = "keep the version once its own check has held, also if its link to the manager is not proven"

func newAcceptCmd() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "accept --root DIR",
		Short: "Keep the version on trial without the proof of its link to the manager",
		Long: `A version on trial must reach its manager before it is kept. Where the manager is
out of reach, as at a site without a network, accept says that you take the version
without that proof. Its own check must hold all the same; if it fails, the previous
version returns. Of a service beside its agent, accept takes a version whose check
cannot tell (exit status 75, HTTP 424), and none whose check fails. The event of the
upgrade says that an operator accepted it.`,
		Args: cli.ExactArgs(0, "root"),
	}
	cmd = newManualCmd(cmd, func([]string) (manualStep, error) { return upgrade.Accept, nil })
	cmd.Example = "  edge-agent accept --root /opt/bilbycast/edge"
	return cmd
}

func newDiscardCmd() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "discard --root DIR",
		Short: "Withdraw an upgrade that has not been swapped: one in progress, or one that waits for apply",
		Long: `Discard ends the upgrade that the manager requested and that the node still
fetches, checks or waits for, or takes back the version that waits for apply. The
running version stays. A running agent stops within some seconds and reports
upgrade_withdrawn; the node accepts other upgrades again. What was downloaded stays,
and a later request for the same version continues from there.

After the swap it is too late: roll back instead.`,
		Args: cli.ExactArgs(0, "root"),
	}
	cmd = newManualCmd(cmd, func([]string) (manualStep, error) { return upgrade.Discard, nil })
	cmd.Example = "  edge-agent discard --root /opt/bilbycast/edge"
	return cmd
}

func newRollbackCmd() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "rollback [VERSION] --root DIR",
		Short: "Roll back to the previous version, or to VERSION, at the next start of the service",
		Long: `During a trial, rollback ends the trial. Otherwise it puts the previous version,
or the installed version that you name, on trial, with the running one to return
to. Restart the service to run it; a running agent restarts by itself after
30 s. A version whose programs or libraries are not as they were staged is not put
on trial. If it cannot roll back, it lists the installed versions.`,
		Args: func(cmd *cobra.Command, args []string) error {
			return cli.ExactArgs(min(len(args), 1), "root")(cmd, args)
		},
	}
	return newManualCmd(cmd, func(args []string) (manualStep, error) {
		var to release.Version
		if len(args) > 0 {
			var err error
			if to, err = release.ParseVersion(args[0]); err != nil {
				return nil, cli.Usage(err)
			}
		}
		return func(ctx context.Context, l state.Layout) (state.Result, error) {
			return upgrade.RollBack(ctx, l, to)
		}, nil
	})
}

// repairHelp is the help of --repair.
const repairHelp = "this version is the repair: put it on trial even if the checks of [health] fail now"

// running returns what asks [health] of a config.toml before a swap. What only the running
// service knows is left out.
func running(c config.Settings, repair, accept bool) upgrade.Running {
	clock := stage.ClockOf(c.Layout)
	r := upgrade.Running{
		Dependency: func(ctx context.Context) error { return probe.Dependency(ctx, c.Health, clock) },
		Check:      func(ctx context.Context) error { return probe.Run(ctx, c.Health, clock) },
		Repair:     repair, Accept: accept,
	}
	if c.Service.Unit == "" {
		return r
	}
	service := install.Service(c)
	r.Check = func(ctx context.Context) error { return probe.BeforeSwap(ctx, c.Health, clock) }
	r.Unit, r.Up = service.FitNow, func(ctx context.Context) error { return service.Up(ctx, repair) }
	return r
}

// manualStep is one change of a root by an operator.
type manualStep func(context.Context, state.Layout) (state.Result, error)

// newManualCmd completes a command that makes the step that its arguments name.
func newManualCmd(cmd *cobra.Command, step func(args []string) (manualStep, error)) *cobra.Command {
	var root string
	name := cmd.Name()
	cmd.Example = fmt.Sprintf("  edge-agent %s --root /opt/bilbycast/edge && systemctl restart edge", name)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		l, err := state.At(root)
		if err != nil {
			return cli.Usage(fmt.Errorf("--root: %w", err))
		}
		do, err := step(args)
		if err != nil {
			return err
		}
		if err := fsutil.BecomeOwner(root); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		if err := install.Blocked(root); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		if _, err := l.Read(); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		res, err := do(cmd.Context(), l)
		for _, n := range res.Notes {
			fmt.Fprintf(cmd.ErrOrStderr(), "note: %s\n", cli.Plain(n))
		}
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		switch {
		case res.State.Status == state.PendingHealth && l.Accepted(res.State) && name == "accept":
			fmt.Fprintf(cmd.OutOrStdout(), "%s is kept once its own check has held.\n", res.State.Target)
			return nil
		case name == "discard":
			fmt.Fprintf(cmd.OutOrStdout(), "Withdrawn. The node stays at %s.\n", res.Tree.Current)
			return nil
		}
		fmt.Fprint(cmd.OutOrStdout(), restartHint(root, res.Tree.Current.String()+" will run at the next restart: %s\nA running agent restarts by itself after 30 s.\n"))
		return nil
	}
	cmd.Flags().StringVar(&root, "root", "", "the service's install root (required)")
	return cmd
}

// restartHint is format with the command that restarts the service of a root.
func restartHint(root, format string) string {
	unit, err := install.UnitOf(root)
	if err != nil {
		unit = "SERVICE"
	}
	return fmt.Sprintf(format, "systemctl restart "+unit)
}
