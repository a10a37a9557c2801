package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"path/filepath"
	"runtime"
	"time"

	"github.com/bilbycast/edge-agent/agent"
	"github.com/bilbycast/edge-agent/cmd/internal/cli"
	"github.com/bilbycast/edge-agent/config"
	"github.com/bilbycast/edge-agent/fsutil"
	"github.com/bilbycast/edge-agent/install"
	"github.com/bilbycast/edge-agent/internal/footprint"
	"github.com/bilbycast/edge-agent/systemd"
	"github.com/bilbycast/edge-agent/verify"
	"github.com/spf13/cobra"
)

// shrinkAfter is when a started agent has its session, and idles. It also shrinks after the
// verification of a release, which uses more code than anything else, beside the download.
const shrinkAfter = 10 * time.Second

// tuneAfter is when an agent has started, which the collector need not delay.
const tuneAfter = time.Second

func newRunCmd() *cobra.Command {
	var path, level string
	cmd := &cobra.Command{
		Use:   "run --config FILE",
		Short: "Keep the connection to the manager and run upgrades (what the unit starts)",
		Long: `Run keeps the connection to the manager until it gets SIGTERM, a new version is
staged (exits 0; systemd starts the new version), or the trial of this version
has failed (exits 1; the watchdog counts the starts).

With service.unit in the configuration it looks after that unit instead, and
restarts it, not itself.

A registered node always starts. Run warns about keys that this version does not
know, and about a mode or owner of config.toml by which others may read it. It
withholds upgrades while [upgrade] has an unknown key, and while config.toml cannot
be used; it then runs with a copy of the last valid file.

Run as root it becomes the owner of the install root, so that no file of root is
left there. Where that owner could not use the root, it fails if a person started
it, and stays root if systemd did.`,
		Example: `  edge-agent run --config /opt/bilbycast/edge/config.toml`,
		Args:    cli.ExactArgs(0, "config"),
		RunE: func(cmd *cobra.Command, args []string) error {
			log, err := cli.NewSlog(cmd.ErrOrStderr(), level)
			if err != nil {
				return err
			}
			c, warnings, err := openAsOwner(cmd.Context(), path, log)
			if err != nil {
				return err
			}
			defer time.AfterFunc(tuneAfter, footprint.Tune).Stop()
			defer time.AfterFunc(shrinkAfter, footprint.Shrink).Stop()
			o := agent.Options{Version: version, Notify: systemd.Notify, Log: log, Warnings: warnings, Verified: footprint.Shrink}
			if err := runAgent(cmd.Context(), c, o); err != nil {
				log.Error("agent failed", "error", err)
				return err
			}
			return nil
		},
	}
	cmd.Flags().StringVar(&path, "config", "", "the node's config.toml (required)")
	cmd.Flags().StringVar(&level, "log-level", "info", "debug, info, warn or error")
	return cli.Service(cmd)
}

// openAsOwner opens the configuration of the agent. A process of root becomes the owner of
// the install root, before it reads a configuration that is there.
func openAsOwner(ctx context.Context, path string, log *slog.Logger) (config.Settings, config.Warnings, error) {
	warning, err := install.RunAsOwnerOf(ctx, path)
	if err != nil {
		return config.Settings{}, config.Warnings{}, err
	}
	c, warnings, err := config.Open(path)
	if err != nil {
		return c, warnings, err
	}
	if warning == "" {
		warning, err = install.RunAsOwner(ctx, c.Layout, path, install.AgentUnit(c.Config))
	}
	if warning != "" {
		log.Warn(warning)
	}
	return c, warnings, err
}

func runAgent(ctx context.Context, c config.Settings, o agent.Options) error {
	l := c.Layout
	if c.Service.Unit != "" {
		o.CheckVersion = install.Service(c).FitVersion
		return agent.Attend(ctx, c.Config, o, systemd.Attached{
			Name: c.Service.Unit, Layout: l, Ask: l.AskRestart,
		})
	}
	service := install.Service(c)
	o.CheckUnit, o.CheckVersion, o.CheckRestart, o.Journal = service.FitSelf, service.FitVersionSelf, service.FitRestart, systemd.LastLines
	a, err := agent.New(c.Config, o)
	if err != nil {
		return err
	}
	if err := a.Run(ctx); !errors.Is(err, agent.ErrRestart) {
		return err
	}
	return nil
}

func newVersionCmd() *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Print the version (staging runs this as the self-check of a new release)",
		Args:  cli.ExactArgs(0),
		RunE: func(cmd *cobra.Command, args []string) error {
			_, err := fmt.Fprintf(cmd.OutOrStdout(), "edge-agent %s%s %s/%s %s\n", version, verify.VersionSuffix, runtime.GOOS, runtime.GOARCH, runtime.Version())
			return err
		},
	}
}

func newConfigCmd() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "config",
		Short: "Work with config.toml",
		Args:  cli.ExactArgs(0),
		RunE:  func(cmd *cobra.Command, args []string) error { return cmd.Help() },
	}
	cmd.AddCommand(&cobra.Command{
		Use:   "check FILE",
		Short: "Check a config.toml, and change nothing",
		Long: fmt.Sprintf(`Check prints every error of a config.toml. As root it becomes the owner of its
directory.

Exits 0 if the file is good. Exits 1 if a node would not run with it, or would
withhold upgrades because of it. Exits 2 for wrong usage. Exits %d if a registered
node would run with it and offer upgrades, but ignore keys that this version does
not know, or correct its mode. Before an upgrade the agent runs this command of the
new version: 1 refuses the upgrade.`, exitWarns),
		Example: `  edge-agent config check /opt/bilbycast/edge/config.toml`,
		Args:    cli.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := fsutil.BecomeOwner(filepath.Dir(args[0])); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return fmt.Errorf("config check: %w", err)
			}
			c, err := config.Read(args[0])
			if err != nil {
				if config.OnlyWarns(args[0]) {
					return cli.Exit(exitWarns, fmt.Errorf("%w; a registered node ignores this and runs", err))
				}
				return err
			}
			fmt.Fprintf(cmd.OutOrStdout(), "%s is good\n", args[0])
			if len(c.URLs) == 0 {
				note := "note: " + agent.NoManager + " (urls is empty); an operator upgrades this node with edge-agent stage"
				if !c.Manager.RegistrationToken.IsZero() {
					note += "; registration_token has no use"
				}
				fmt.Fprintln(cmd.OutOrStdout(), note)
			} else if !c.Upgrade.Enabled {
				fmt.Fprintln(cmd.OutOrStdout(), "note: upgrades are off; set enabled = true in [upgrade] to let the manager schedule them")
			}
			return nil
		},
	})
	return cmd
}

// exitWarns is the exit code of 'config check' for a file with which a registered node runs
// and offers upgrades, although it is not good. Package stage knows it.
const exitWarns = 3
