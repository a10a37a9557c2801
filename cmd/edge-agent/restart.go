package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"

	"github.com/bilbycast/edge-agent/cmd/internal/cli"
	"github.com/bilbycast/edge-agent/internal/state"
	"github.com/bilbycast/edge-agent/systemd"
	"github.com/spf13/cobra"
)

func newRestartCmd() *cobra.Command {
	var unit, root string
	var request bool
	cmd := &cobra.Command{
		Use:    "restart --unit NAME --root DIR",
		Short:  "Restart an attached service as its agent requests (ExecStart of NAME-restart.service)",
		Hidden: true,
		Args:   cli.ExactArgs(0, "unit", "root"),
		RunE: func(cmd *cobra.Command, args []string) error {
			log, err := cli.NewSlog(cmd.ErrOrStderr(), "info")
			if err != nil {
				return err
			}
			l, err := state.At(root)
			if err != nil {
				return cli.Usage(fmt.Errorf("--root: %w", err))
			}
			a := systemd.Attached{Name: unit, Layout: l, Ask: l.AskRestart}
			if request {
				s, err := a.Look(cmd.Context())
				if err != nil { // the service is down: any start is to end
					return a.Restart(cmd.Context(), "", true)
				}
				return a.Restart(cmd.Context(), cmp.Or(s.Invocation, systemd.NeverStarted), true)
			}
			err = serveRestarts(cmd.Context(), a, l, log)
			if errors.Is(err, systemd.ErrNotStarted) {
				return cli.Exit(systemd.NotStartedStatus, err)
			}
			return err
		},
	}
	cmd.Flags().StringVar(&unit, "unit", "", "the service (required)")
	cmd.Flags().StringVar(&root, "root", "", "the service's install root (required)")
	cmd.Flags().BoolVar(&request, "request", false, "write the request for a start, as the agent does, instead of serving one")
	return cli.Service(cmd)
}

// maxRestarts bounds how many requests one run serves. A later one waits until the agent
// repeats it.
const maxRestarts = 10

// serveRestarts serves the request that is there, and others that are written meanwhile: the
// path unit does not see those.
func serveRestarts(ctx context.Context, a systemd.Attached, l state.Layout, log *slog.Logger) error {
	var failed error
	type request struct {
		invocation string
		start, ok  bool
	}
	var before request
	for range maxRestarts {
		var now request
		var err error
		if now.invocation, now.start, now.ok, err = l.ReadRestart(); err != nil {
			return errors.Join(failed, err)
		}
		if now == before || !now.ok {
			return failed
		}
		before = now
		did, err := a.Serve(ctx, now.invocation, now.start)
		if failed = errors.Join(failed, err); err == nil {
			log.Info(did, "unit", a.Name, "invocation", now.invocation)
		}
	}
	return failed
}
