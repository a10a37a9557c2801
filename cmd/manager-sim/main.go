// Command manager-sim is a small but real manager with fake signed releases, to try real
// agents with. `manager-sim demo` shows an upgrade and a rollback.
package main

import (
	"context"
	"io"

	"github.com/bilbycast/edge-agent/cmd/internal/cli"
	"github.com/spf13/cobra"
)

func main() { cli.Main(newRootCmd()) }

func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	return cli.Run(ctx, newRootCmd(), args, stdout, stderr)
}

func newRootCmd() *cobra.Command {
	root := &cobra.Command{
		Use:   "manager-sim",
		Short: "A small manager with fake signed releases, to try edge-agent with",
		Long: `manager-sim is a small but real manager with fake signed releases, to try edge-agent
with. "serve" runs the manager. The other commands are for operators, and call its
REST API.

Exit codes: 0 success, 1 failure, 2 wrong usage, 6 manager unreachable; with --wait
also 3 rolled back, 4 refused, failed, paused or aborted, 5 timed out.`,
		Example: `  manager-sim demo
  manager-sim release publish --dir sim --version 1.0.0 ./edge-agent
  manager-sim serve --dir sim`,
	}
	root.AddCommand(newDemoCmd(), newServeCmd(), newReleaseCmd(), newNodesCmd(), newNodeCmd(), newUpgradeCmd(), newWithdrawCmd(), newRolloutCmd(), newEventsCmd(), newTokenCmd())
	return root
}
