package main

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"time"

	"github.com/bilbycast/edge-agent/cmd/internal/cli"
	"github.com/bilbycast/edge-agent/fsutil"
	"github.com/bilbycast/edge-agent/state"
	"github.com/bilbycast/edge-agent/systemd"
	"github.com/bilbycast/edge-agent/watchdog"
	"github.com/spf13/cobra"
)

func newWatchdogCmd() *cobra.Command {
	var before, after string
	again := false
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
	}, func(ctx context.Context, l state.Layout, log *slog.Logger) (watchdog.Report, bool) {
		switch {
		case before != "":
			unit := systemd.Other(before)
			return watchdog.Before(ctx, l, watchdog.Systemd{LastEnd: unit.LastEnd, Restarts: unit.Restarts, Starting: unit.Starting,
				NotMade: unit.NotMade, OwnFault: systemd.Service{Unit: before, Layout: l}.OwnFault})
		case after != "":
			again = repeat(ctx, l, after, log)
			return watchdog.Report{}, false
		}
		return watchdog.RunAfter(ctx, l, watchdog.Systemd{LastEnd: systemd.LastEnd, Restarts: systemd.Restarts}), true
	}, pause)
	cmd.Flags().StringVar(&before, "before", "", "the service that systemd is about to start, in another unit than this one")
	cmd.Flags().StringVar(&after, "after", "", "the service that systemd has started, in another unit than this one")
	cmd.MarkFlagsMutuallyExclusive("before", "after")
	run := cmd.RunE
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		err := run(cmd, args)
		if err == nil && after != "" && !again {
			return cli.ErrPrinted
		}
		return err
	}
	return cmd
}

// pause waits before a start of a service that ends again and again. It ends at SIGTERM.
func pause(ctx context.Context, l state.Layout, rep watchdog.Report, log *slog.Logger) {
	wait, row := rep.Pause(ctx, l, func(ctx context.Context) (p watchdog.Pace, err error) {
		p.Restarts, p.Wait, p.Limit, err = systemd.Pace(ctx)
		return p, err
	})
	if wait <= 0 {
		return
	}
	log.Warn("the service ends again and again; this start waits", "starts", row, "wait", wait.String())
	select {
	case <-ctx.Done():
	case <-time.After(wait):
	}
}

// repeat reports whether the service must be started again.
func repeat(ctx context.Context, l state.Layout, service string, log *slog.Logger) bool {
	again, why, err := watchdog.After(ctx, l, watchdog.Systemd{
		LastEnd: systemd.Other(service).LastEnd, Restarts: systemd.Other(service).Restarts, Skipped: systemd.Other(service).Skipped, OwnFault: systemd.Service{Unit: service, Layout: l}.OwnFault,
	})
	if err != nil {
		log.Error("the watchdog failed", "error", err, "unit", service, "reason", why)
	}
	switch {
	case again:
		log.Warn("the version on trial could not be started; the start counts, and is repeated", "unit", service, "reason", why)
	case why != "":
		log.Warn("systemd did not start the version on trial; that is not its fault, so the start does not count", "unit", service, "reason", why)
	}
	return again
}

func newRescueCmd() *cobra.Command {
	return newStartCmd(&cobra.Command{
		Use:   "rescue --root DIR",
		Short: "Repair a missing or dangling current link (ExecStartPre of the unit)",
		Long: `Rescue runs before every start, from the previous version, in case the running
version was removed, and its watchdog with it. If current points to a version, it
does nothing. It exits 0 whatever it finds.`,
		Example: `  ExecStartPre=-/opt/bilbycast/edge/previous/edge-agent rescue --root /opt/bilbycast/edge`,
	}, func(ctx context.Context, l state.Layout, _ *slog.Logger) (watchdog.Report, bool) {
		return watchdog.Rescue(ctx, l)
	}, nil)
}

// newStartCmd completes a command that runs before each start of the service. then, which may
// be nil, gets the report once it is logged.
func newStartCmd(cmd *cobra.Command, run func(context.Context, state.Layout, *slog.Logger) (watchdog.Report, bool), then func(context.Context, state.Layout, watchdog.Report, *slog.Logger)) *cobra.Command {
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
		l = l.WithProgramAt(os.Args[0])
		// The journal of this group has how the last start ended.
		if err := fsutil.BecomeOwner(root, "systemd-journal"); err != nil {
			log.Error("the watchdog does nothing; the service starts anyway", "error", err)
			return nil
		}
		rep, done := run(cmd.Context(), l, log)
		if !done {
			return nil
		}
		for _, r := range rep.Records() {
			log.Log(cmd.Context(), r.Level, r.Message, r.Fields...)
		}
		if then != nil {
			then(cmd.Context(), l, rep, log)
		}
		return nil
	}
	cmd.Flags().StringVar(&root, "root", "", "the service's install root (required)")
	return cli.Service(cmd)
}
