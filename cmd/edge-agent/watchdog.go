package main

import (
	"context"
	"fmt"
	"log/slog"

	"github.com/bilbycast/edge-agent/cmd/internal/cli"
	"github.com/bilbycast/edge-agent/daemon"
	"github.com/bilbycast/edge-agent/internal/state"
	"github.com/spf13/cobra"
)

func newWatchdogCmd() *cobra.Command {
	var before, after string
	cmd := newStartCmd(&cobra.Command{
		Use:   "watchdog --root DIR",
		Short: "Count this start of the service, or roll back (ExecStartPre of the unit)",
		Long: `Watchdog runs before every start of the service, from the version that last
proved healthy. While a new version is on trial it counts the start; when the
starts are used up it points current back to the previous version, in this same
start. In a stable root it changes nothing. If the service ends again and again,
each within a minute, it waits up to 10 s before the start; not on trial.

A setting of the service's unit can fail before ExecStartPre, or make systemd skip
the start. So two more units run the watchdog: NAME-watchdog.service before each
start (--before), and NAME-retry.service after it (--after). A start is counted once.

As root it becomes the owner of DIR first. It exits 0 whatever it finds, so that
it never keeps a working version from starting; it logs what is wrong. With --after
it exits 0 if a start of a version on trial must be repeated, since the version lacks
a path that the unit names, and otherwise 1.`,
		Example: `  ExecStartPre=-/opt/bilbycast/edge/last-good/edge-agent watchdog --root /opt/bilbycast/edge`,
	}, func(ctx context.Context, l state.Layout, log *slog.Logger) error {
		if again := daemon.Watchdog(ctx, l, before, after, log); after != "" && !again {
			return cli.ErrPrinted
		}
		return nil
	})
	cmd.Flags().StringVar(&before, "before", "", "the service that systemd is about to start, in another unit than this one")
	cmd.Flags().StringVar(&after, "after", "", "the service that systemd has started, in another unit than this one")
	cmd.MarkFlagsMutuallyExclusive("before", "after")
	return cmd
}

func newRescueCmd() *cobra.Command {
	return newStartCmd(&cobra.Command{
		Use:   "rescue --root DIR",
		Short: "Repair a missing or dangling current link (ExecStartPre of the unit)",
		Long: `Rescue runs before every start, from the previous version, in case the running
version was removed, and its watchdog with it. If current points to a version, it
does nothing. It exits 0 whatever it finds.`,
		Example: `  ExecStartPre=-/opt/bilbycast/edge/previous/edge-agent rescue --root /opt/bilbycast/edge`,
	}, func(ctx context.Context, l state.Layout, log *slog.Logger) error {
		daemon.Rescue(ctx, l, log)
		return nil
	})
}

// newStartCmd completes a command that systemd runs around each start of the service.
func newStartCmd(cmd *cobra.Command, run func(context.Context, state.Layout, *slog.Logger) error) *cobra.Command {
	var root string
	cmd.Args = cli.ExactArgs(0, "root")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		log, err := cli.NewSlog(cmd.ErrOrStderr(), "info")
		if err != nil {
			return err
		}
		l, err := state.At(root)
		if err != nil {
			return cli.Usage(fmt.Errorf("--root: %w", err))
		}
		return run(cmd.Context(), l, log)
	}
	cmd.Flags().StringVar(&root, "root", "", "the service's install root (required)")
	return cli.Service(cmd)
}
