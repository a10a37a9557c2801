package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/bilbycast/edge-agent/cmd/internal/cli"
	"github.com/bilbycast/edge-agent/fsutil"
	"github.com/spf13/cobra"
)

func newUninstallCmd() *cobra.Command {
	var i installation
	cmd := &cobra.Command{
		Use:   "uninstall --device-type TYPE",
		Short: "Stop a service and remove its unit; with --purge, its versions and configuration, too",
		Example: `  edge-agent uninstall --device-type edge
  edge-agent uninstall --device-type edge --purge`,
		Args: cli.ExactArgs(0, "device-type"),
		RunE: func(cmd *cobra.Command, args []string) error {
			i.out = cmd.OutOrStdout()
			if err := i.defaults(); err != nil {
				return err
			}
			if err := i.uninstall(cmd.Context()); err != nil {
				return fmt.Errorf("uninstall: %w", err)
			}
			return nil
		},
	}
	i.flags(cmd)
	cmd.Flags().BoolVar(&i.purge, "purge", false, "remove the install root, too")
	return cmd
}

func (i *installation) uninstall(ctx context.Context) error {
	service := i.name + ".service"
	path := i.unitPath()
	_, err := os.Lstat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		i.say("there is no %s", path)
	case err != nil:
		return err
	default:
		if err := command(ctx, "systemctl", "disable", "--quiet", "--now", service); err != nil {
			return err
		}
		if err := (fsutil.Disk{}).Remove(path); err != nil {
			return err
		}
		if err := command(ctx, "systemctl", "daemon-reload"); err != nil {
			return err
		}
		i.say("stopped %s, and removed its unit", service)
	}
	if !i.purge {
		i.say("%s stays, with its versions and config.toml; --purge removes it", i.root)
		return nil
	}
	if _, err := os.Lstat(i.root); errors.Is(err, fs.ErrNotExist) {
		i.say("there is no %s", i.root)
		return nil
	}
	for _, name := range []string{"versions", "config.toml"} {
		if _, err := os.Lstat(filepath.Join(i.root, name)); err != nil {
			return fmt.Errorf("%s is not removed, as it is no install root: %w", i.root, err)
		}
	}
	if err := (fsutil.Disk{}).Discard(i.root); err != nil {
		return err
	}
	i.say("removed %s; the user %s stays (userdel %s)", i.root, i.user, i.user)
	return nil
}
