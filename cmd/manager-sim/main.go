// Command manager-sim is a minimal but real simulated manager, with fake
// signed releases to drive real agents. `manager-sim demo` shows all of it.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"
)

// Exit codes. They are stable.
const (
	exitOK     = 0
	exitFailed = 1
	exitUsage  = 2
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	code := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

// usageError is a mistake in the call, as against one in its work.
type usageError struct{ error }

// errTold is a failure that was printed already.
var errTold = errors.New("failed")

func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	root := &cobra.Command{
		Use:   "manager-sim",
		Short: "A simulated manager, and fake signed releases, for edge-agent",
		Example: `  manager-sim demo
  manager-sim release publish --dir sim --version 1.0.0 ./edge-agent
  manager-sim serve --dir sim`,
		SilenceErrors: true,
		SilenceUsage:  true,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 {
				return usageError{fmt.Errorf("no command %q", args[0])}
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error { return cmd.Help() },
	}
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return usageError{err} })
	root.AddCommand(newDemoCmd(), newServeCmd(), newReleaseCmd(), newNodesCmd(), newUpgradeCmd(), newRolloutCmd(), newEventsCmd())
	root.SetArgs(args)
	root.SetOut(stdout)
	root.SetErr(stderr)
	err := root.ExecuteContext(ctx)
	if err == nil {
		return exitOK
	}
	if !errors.Is(err, errTold) {
		fmt.Fprintf(stderr, "manager-sim: %v\n", err)
	}
	var usage usageError
	if errors.As(err, &usage) {
		fmt.Fprintf(stderr, "Run 'manager-sim --help' for usage.\n")
		return exitUsage
	}
	return exitFailed
}

// exactArgs is cobra.ExactArgs, and asks for flags that cannot be left out;
// both are usage errors.
func exactArgs(n int, flags ...string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if err := cobra.ExactArgs(n)(cmd, args); err != nil {
			return usageError{err}
		}
		for _, name := range flags {
			if !cmd.Flags().Changed(name) {
				return usageError{fmt.Errorf("--%s is missing; see '%s --help'", name, cmd.CommandPath())}
			}
		}
		return nil
	}
}
