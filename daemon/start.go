package daemon

import (
	"context"
	"log/slog"
	"os"
	"time"

	"github.com/bilbycast/edge-agent/fsutil"
	"github.com/bilbycast/edge-agent/internal/safelog"
	"github.com/bilbycast/edge-agent/internal/state"
	"github.com/bilbycast/edge-agent/systemd"
	"github.com/bilbycast/edge-agent/watchdog"
)

// Watchdog runs the watchdog of an install root: as ExecStartPre= of the service if both units
// are "", and otherwise before or after each start of a service, from another unit. Only with
// after it returns true: a start of a version on trial must be repeated. It never fails: a
// watchdog keeps no working version from starting. The log has what is wrong. A program with a
// command line of its own calls it for its command watchdog.
func Watchdog(ctx context.Context, l state.Layout, before, after string, log *slog.Logger) (again bool) {
	log = safelog.New(log)
	l, ok := asOwner(l, log)
	switch {
	case !ok:
	case before != "":
		unit := systemd.Other(before)
		if rep, done := watchdog.Before(ctx, l, watchdog.Systemd{LastEnd: unit.LastEnd, Restarts: unit.Restarts, Starting: unit.Starting,
			NotMade: unit.NotMade, OwnFault: systemd.Service{Unit: before, Layout: l}.OwnFault}); done {
			logReport(ctx, log, rep)
			pause(ctx, l, rep, log)
		}
	case after != "":
		return repeat(ctx, l, after, log)
	default:
		rep := watchdog.RunAfter(ctx, l, watchdog.Systemd{LastEnd: systemd.LastEnd, Restarts: systemd.Restarts})
		logReport(ctx, log, rep)
		pause(ctx, l, rep, log)
	}
	return false
}

// Rescue runs the watchdog of an install root whose link current is missing or dangling. It
// never fails.
func Rescue(ctx context.Context, l state.Layout, log *slog.Logger) {
	log = safelog.New(log)
	l, ok := asOwner(l, log)
	if !ok {
		return
	}
	if rep, done := watchdog.Rescue(ctx, l); done {
		logReport(ctx, log, rep)
	}
}

// asOwner has root become the owner of the install root.
func asOwner(l state.Layout, log *slog.Logger) (state.Layout, bool) {
	// The journal of this group has how the last start ended.
	if err := fsutil.BecomeOwner(l.Root(), "systemd-journal"); err != nil {
		log.Error("the watchdog does nothing; the service starts anyway", "error", err)
		return l, false
	}
	return l.WithProgramAt(os.Args[0]), true
}

// logReport logs what the watchdog did.
func logReport(ctx context.Context, log *slog.Logger, rep watchdog.Report) {
	for _, r := range rep.Records() {
		log.Log(ctx, r.Level, r.Message, r.Fields...)
	}
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
	unit := systemd.Other(service)
	again, why, err := watchdog.After(ctx, l, watchdog.Systemd{
		LastEnd: unit.LastEnd, Restarts: unit.Restarts, Skipped: unit.Skipped, OwnFault: systemd.Service{Unit: service, Layout: l}.OwnFault,
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
