// Command manyagents runs the agents of many install roots in one process: each with its
// watchdog before each start, as systemd does, and with the probe of last-good as a real
// child. It is for tests of a fleet.
//
//	manyagents DIR [PIN]
//
// DIR has the install roots. With PIN the link of the release 1.1.0 is bad: it accepts the
// manager's certificate only if it has that fingerprint.
package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"github.com/bilbycast/edge-agent/agent"
	"github.com/bilbycast/edge-agent/config"
	"github.com/bilbycast/edge-agent/internal/state"
	"github.com/bilbycast/edge-agent/watchdog"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	if len(args) < 1 {
		return errors.New("use: manyagents DIR [PIN]")
	}
	roots, err := filepath.Glob(filepath.Join(args[0], "*"))
	if err != nil {
		return err
	}
	pin := ""
	if len(args) > 1 {
		pin = args[1]
	}
	log := slog.New(slog.NewJSONHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelError})) // a failed attempt is no news here
	var all sync.WaitGroup
	for _, root := range roots {
		l, err := state.At(root)
		if err != nil {
			return err
		}
		all.Go(func() {
			log := log.With("node", filepath.Base(root))
			for ctx.Err() == nil {
				if err := start(ctx, l, pin, log); err != nil {
					log.Error("agent failed", "error", err)
				}
				select {
				case <-ctx.Done():
				case <-time.After(100 * time.Millisecond): // RestartSec=
				}
			}
		})
	}
	all.Wait()
	return nil
}

// start is one start of a service.
func start(ctx context.Context, l state.Layout, pin string, log *slog.Logger) error {
	watchdog.Run(ctx, l)
	t, err := l.Tree()
	if err != nil {
		return err
	}
	c, warnings, err := config.Open(l.ConfigFile())
	if err != nil {
		return err
	}
	if pin != "" && t.Current.String() == "1.1.0" {
		c.Manager.CertFingerprint = config.Pins{pin}
	}
	a, err := agent.New(c.Config, agent.Options{Version: t.Current.String(), Warnings: warnings, Log: log})
	if err != nil {
		return err
	}
	if err := a.Run(ctx); !errors.Is(err, agent.ErrRestart) {
		return err
	}
	return nil
}
