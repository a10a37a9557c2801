package main

import (
	"fmt"
	"time"

	"github.com/bilbycast/edge-agent/cmd/internal/cli"
	"github.com/bilbycast/edge-agent/fsutil"
	"github.com/bilbycast/edge-agent/release"
	"github.com/bilbycast/edge-agent/state"
	"github.com/spf13/cobra"
)

func newApplyCmd() *cobra.Command {
	return newManualCmd("apply", "Put the version that is staged on trial at the next start",
		`With manual_only = true the agent stages what its manager asks for and leaves the
swap to you. apply points current at the staged version; restart the service to
begin its trial. If it does not prove healthy, the version before comes back.`,
		func(s state.State, t state.Tree) (state.State, state.Tree, error) {
			return state.Apply(s, t, time.Now().UTC())
		})
}

func newRollbackCmd() *cobra.Command {
	return newManualCmd("rollback", "Go back to the version before at the next start",
		`In a trial, rollback ends it. Otherwise the version before goes on trial, with the
present one to come back to. Restart the service to run it.`,
		func(s state.State, t state.Tree) (state.State, state.Tree, error) {
			return state.RollBack(s, t, release.Version{}, time.Now().UTC())
		})
}

func newManualCmd(name, short, long string, change state.Change) *cobra.Command {
	var root string
	cmd := &cobra.Command{
		Use: name + " --root DIR", Short: short, Long: long,
		Example: fmt.Sprintf("  edge-agent %s --root /opt/bilbycast/edge && systemctl restart edge", name),
		Args:    cli.ExactArgs(0, "root"),
		RunE: func(cmd *cobra.Command, args []string) error {
			l, err := state.At(root)
			if err != nil {
				return cli.Usage(fmt.Errorf("--root: %w", err))
			}
			if err := fsutil.BecomeOwner(root); err != nil {
				return fmt.Errorf("%s: %w", name, err)
			}
			if _, err := l.Read(); err != nil {
				return fmt.Errorf("%s: %w", name, err)
			}
			res, err := l.Do(cmd.Context(), change)
			for _, n := range res.Notes {
				fmt.Fprintf(cmd.ErrOrStderr(), "note: %s\n", n)
			}
			if err != nil {
				return fmt.Errorf("%s: %w", name, err)
			}
			fmt.Fprintf(cmd.OutOrStdout(), "current leads to %s. Restart the service to run it (if a start limit was hit: systemctl reset-failed, then restart).\n", res.Tree.Current)
			return nil
		},
	}
	cmd.Flags().StringVar(&root, "root", "", "the service's install root (required)")
	return cmd
}
