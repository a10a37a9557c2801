// Command sidecar is a complete service that its manager can upgrade. It has all the
// code that an author must write, and marks where the service's own work goes.
//
// Build it with -tags grpcnotrace,nethttpomithttp2 -ldflags "-s -w -funcalign=16". Without the tags
// the program has 20.3 MB instead of 14.5 MB.
package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"syscall"

	"github.com/bilbycast/edge-agent/agent"
	"github.com/bilbycast/edge-agent/config"
	"github.com/bilbycast/edge-agent/state"
	"github.com/bilbycast/edge-agent/systemd"
	"github.com/bilbycast/edge-agent/verify"
	"github.com/bilbycast/edge-agent/watchdog"
)

var version = "0.0.0-dev" // stamped: go build -ldflags "-X main.version=1.0.0"

// signers are the workflows whose releases the service accepts. Nothing at run time
// adds one.
var signers = []verify.Signer{{
	Issuer: verify.GitHubIssuer, Repository: "https://github.com/acme/player",
	Workflow: ".github/workflows/release.yml", Ref: "refs/tags/v*",
}}

func main() {
	// A journal that is gone ends no process: without this, Go ends it by SIGPIPE.
	signal.Notify(make(chan os.Signal, 1), syscall.SIGPIPE)
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	err := run(ctx, append(os.Args[1:], "", "", "", "", ""))
	stop()
	if code := agent.ExitCode(err); code != 0 { // a restart into another version is no failure
		fmt.Fprintln(os.Stderr, "player:", err)
		os.Exit(code)
	}
}

func run(ctx context.Context, args []string) error {
	log := slog.New(slog.NewJSONHandler(os.Stderr, nil))
	switch args[0] + " " + args[1] {
	case "version ": // the self-check of a new version before the swap
		_, err := fmt.Println("player", version)
		return err
	case "watchdog --root": // ExecStartPre=
		root, err := at(args[2])
		if err != nil {
			return err
		}
		rep := watchdog.RunAfter(ctx, root, watchdog.Systemd{LastEnd: systemd.LastEnd, Restarts: systemd.Restarts})
		write(log, rep)
		return nil
	case "watchdog --before", "watchdog --after": // in the units beside it: UNIT --root DIR
		root, err := at(args[4])
		if err != nil {
			return err
		}
		unit := systemd.Other(args[2])
		sd := watchdog.Systemd{LastEnd: unit.LastEnd, Restarts: unit.Restarts, Starting: unit.Starting, Skipped: unit.Skipped,
			NotMade: unit.NotMade, OwnFault: systemd.Service{Unit: args[2], Layout: root}.OwnFault}
		if args[1] == "--before" {
			if rep, done := watchdog.Before(ctx, root, sd); done {
				write(log, rep)
			}
			return nil
		}
		if again, why, err := watchdog.After(ctx, root, sd); !again {
			return errors.Join(errors.New("nothing to repeat: "+why), err)
		}
		return nil
	case "rescue --root": // ExecStartPre= of the previous version
		root, err := at(args[2])
		if err != nil {
			return err
		}
		if rep, done := watchdog.Rescue(ctx, root); done {
			write(log, rep)
		}
		return nil
	case "probe --config": // tests the link, also for a newer version on trial
		return agent.ProbeCommand(ctx, version, os.Args[2:], os.Stdout)
	case "run --config": // ExecStart=
		c, warnings, err := config.Open(args[2])
		if err != nil {
			return err
		}
		unit := systemd.Service{Layout: c.Layout, Binary: c.Service.Binary, Config: args[2],
			Window: c.Window}
		a, err := agent.New(c.Config, agent.Options{
			Version: version, Signers: signers, Notify: systemd.Notify, Log: log, Warnings: warnings,
			CheckUnit: unit.FitSelf, CheckVersion: unit.FitVersionSelf, // no upgrades if this unit cannot roll back
			Journal: systemd.LastLines,
			Check:   func(context.Context) error { return nil }, // the service's own health check
		})
		if err != nil {
			return err
		}
		return a.Run(ctx) // the service's own work runs in other goroutines
	}
	return errors.New("use: version | watchdog --root DIR | rescue --root DIR | probe --config FILE | run --config FILE")
}

// at returns an install root, in which this program must be in each version.
func at(dir string) (state.Layout, error) {
	root, err := state.At(dir)
	return root.WithProgramAt(os.Args[0]), err
}

// write logs what the watchdog did.
func write(log *slog.Logger, rep watchdog.Report) {
	for _, r := range rep.Records() {
		log.Log(context.Background(), r.Level, r.Message, r.Fields...)
	}
}
