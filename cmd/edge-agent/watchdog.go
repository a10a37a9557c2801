package main

import (
	"context"
	"fmt"
	"os"

	"github.com/bilbycast/edge-agent/cmd/internal/cli"
	"github.com/bilbycast/edge-agent/fsutil"
	"github.com/bilbycast/edge-agent/state"
	"github.com/bilbycast/edge-agent/systemd"
	"github.com/bilbycast/edge-agent/watchdog"
	"github.com/rs/zerolog"
	"github.com/spf13/cobra"
)

func newWatchdogCmd() *cobra.Command {
	return newStartCmd(&cobra.Command{
		Use:   "watchdog --root DIR",
		Short: "Count this start of the service, or roll back (ExecStartPre of the unit)",
		Long: `Watchdog runs before every start of the service, from the version that last
proved healthy. While a new version is on trial it counts the start; when the
starts are used up it points current back to the previous version, in this same
start. In a stable root it changes nothing.

As root it becomes the owner of DIR first. It exits 0 whatever it finds, so that
it never keeps a working version from starting; it logs what is wrong.`,
		Example: `  ExecStartPre=-/opt/bilbycast/edge/last-good/edge-agent watchdog --root /opt/bilbycast/edge`,
	}, func(ctx context.Context, l state.Layout) (watchdog.Report, bool) {
		return watchdog.RunAfter(ctx, l, watchdog.Systemd{LastEnd: systemd.LastEnd, Restarts: systemd.Restarts}), true
	})
}

func newRescueCmd() *cobra.Command {
	return newStartCmd(&cobra.Command{
		Use:   "rescue --root DIR",
		Short: "Repair a missing or dangling current link (ExecStartPre of the unit)",
		Long: `Rescue runs before every start, from the previous version, in case the running
version was removed, and its watchdog with it. If current points to a version, it
does nothing. It exits 0 whatever it finds.`,
		Example: `  ExecStartPre=-/opt/bilbycast/edge/previous/edge-agent rescue --root /opt/bilbycast/edge`,
	}, watchdog.Rescue)
}

// newStartCmd completes a command that runs before each start of the service.
func newStartCmd(cmd *cobra.Command, run func(context.Context, state.Layout) (watchdog.Report, bool)) *cobra.Command {
	var root string
	cmd.Args = cli.ExactArgs(0, "root")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		log, err := cli.NewLogger(cmd.ErrOrStderr(), "info")
		if err != nil {
			return err
		}
		l, err := state.At(root)
		if err != nil {
			return cli.Usage(fmt.Errorf("--root: %w", err))
		}
		l = l.WithProgramAt(os.Args[0])
		// The journal of this group has how the last start ended.
		if err := fsutil.BecomeOwner(root, "systemd-journal"); err != nil {
			log.Error().Err(err).Msg("the watchdog does nothing; the service starts anyway")
			return nil
		}
		rep, done := run(cmd.Context(), l)
		if !done {
			return nil
		}
		for _, r := range rep.Records() {
			level, _ := zerolog.ParseLevel(r.Level)
			log.WithLevel(level).Fields(r.Fields).Msg(r.Message)
		}
		return nil
	}
	cmd.Flags().StringVar(&root, "root", "", "the service's install root (required)")
	return cli.Service(cmd)
}
