// Command manager-sim is a minimal but real simulated manager, with fake
// signed releases to drive real agents. `manager-sim demo` shows all of it.
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
		Short: "A simulated manager, and fake signed releases, for edge-agent",
		Long: `manager-sim is a small real manager with fake signed releases, to try edge-agent
with. "serve" runs it; the other commands are those of an operator and call its
REST API.

Exit codes: 0 done, 1 failed, 2 wrong usage, 6 the manager cannot be reached; with
--wait also 3 rolled back, 4 refused, failed, paused or aborted, 5 timed out.`,
		Example: `  manager-sim demo
  manager-sim release publish --dir sim --version 1.0.0 ./edge-agent
  manager-sim serve --dir sim`,
	}
	root.AddCommand(newDemoCmd(), newServeCmd(), newReleaseCmd(), newNodesCmd(), newNodeCmd(), newUpgradeCmd(), newRolloutCmd(), newEventsCmd(), newTokenCmd())
	return root
}
