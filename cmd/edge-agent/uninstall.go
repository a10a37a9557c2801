package main

import (
	"context"

	"github.com/bilbycast/edge-agent/cmd/internal/cli"
	"github.com/bilbycast/edge-agent/install"
	"github.com/spf13/cobra"
)

func newUninstallCmd() *cobra.Command {
	var n install.Node
	var purge bool
	cmd := &cobra.Command{
		Use:   "uninstall --device-type TYPE",
		Short: "Stop a service and remove its unit; with --purge also its install root",
		Long: `Uninstall stops the service and removes its unit. With --purge it also removes
the install root: versions, config.toml and its copies, credentials, events. In
directories that links in the root point to, it removes what edge-agent made.
Mount points are emptied and kept.`,
		Example: `  edge-agent uninstall --device-type edge
  edge-agent uninstall --device-type edge --purge`,
		Args: cli.ExactArgs(0, "device-type"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return runInstall(cmd, &n, "uninstall", func(ctx context.Context) error { return n.Uninstall(ctx, purge) })
		},
	}
	nodeFlags(cmd, &n)
	cmd.Flags().BoolVar(&purge, "purge", false, "also remove the install root")
	return cmd
}
