package main

import (
	"context"
	"fmt"
	"io"
	"slices"
	"syscall"

	"github.com/bilbycast/edge-agent/cmd/internal/cli"
	"github.com/bilbycast/edge-agent/install"
	"github.com/bilbycast/edge-agent/systemd"
	"github.com/spf13/cobra"
)

func newUnitCmd() *cobra.Command {
	var path, dir string
	var u systemd.Unit
	cmd := &cobra.Command{
		Use:   "unit --config FILE --user USER",
		Short: "Print the systemd unit for a config.toml",
		Long: `Unit prints the unit of the service that the configuration describes. --dir writes
it, and five more: NAME-watchdog.service, which systemd starts before each start
of the service, and two that repeat a start of a version on trial that systemd
skipped. Without these, a start that fails before the first command of the unit is
not counted. NAME-respawn.path and NAME-respawn.service restart the service at once
after an upgrade; without them it is down for up to 0.4 s longer.

If the configuration sets service.unit, there are six files: the agent's own unit,
a drop-in for the service's unit, two units that restart the service when the
agent, which has no privilege, requests it, and NAME-watchdog.service and
NAME-retry.service. --dir replaces no file that edge-agent did not write, and
changes no service that does not start through the install root. Without --arg,
--writable, --device, --environment, --restart-secs or --watchdog-secs, --dir keeps
those of the agent's unit that it replaces; an empty one (--arg=) removes all of its
kind.

A service that links the agent has arguments, directories and devices of its own:
--arg adds an argument after "run --config FILE", --writable a path that the sandbox
lets it write to, and --device a device that it reads and writes. TimeoutStopSec= is
5 seconds more than twice drain_secs, and at least 15.`,
		Example: `  edge-agent unit --config /opt/bilbycast/edge/config.toml --user edge --dir /etc/systemd/system
  edge-agent unit --config /opt/bilbycast/app/config.toml --user upgrader --dir /etc/systemd/system
  edge-agent unit --config /opt/acme/player/config.toml --user player --arg --listen=:8080 --writable /var/lib/player --device char-alsa`,
		Args: cli.ExactArgs(0, "config", "user"),
		RunE: func(cmd *cobra.Command, args []string) error {
			syscall.Umask(0o022) // units are for all to read
			u, err := install.LoadUnit(path, u)
			if err != nil {
				return err
			}
			for _, list := range []*[]string{&u.Args, &u.Writable, &u.Devices} {
				if slices.Equal(*list, []string{""}) {
					*list = []string{} // not nil: none is kept
				}
			}
			u, notes := install.ExistingGroups(u)
			u.Steps = systemd.HasRestartSteps(cmd.Context())
			if note := install.AgentNote(u.Agent); note != "" && u.Attached != "" {
				notes = append(notes, note)
			}
			if dir != "" {
				if !cmd.Flags().Changed("restart-secs") {
					u.RestartSecs = 0
				}
				if !cmd.Flags().Changed("watchdog-secs") {
					u.WatchdogSecs = 0
				}
				var left []string
				if u, left, err = install.KeepSettings(dir, u); err != nil {
					return err
				}
				notes = append(notes, left...)
			}
			for _, note := range notes {
				fmt.Fprintf(cmd.ErrOrStderr(), "note: %s\n", note)
			}
			files, err := u.Files()
			if err != nil {
				return err
			}
			if dir == "" && u.Attached == "" {
				fmt.Fprintln(cmd.ErrOrStderr(), "note: --dir also writes the units in which the watchdog runs by itself")
				files = files[:1] // for a redirection to one file
			}
			if dir == "" {
				return printUnits(cmd.OutOrStdout(), files)
			}
			return writeUnits(cmd.Context(), cmd.OutOrStdout(), dir, u)
		},
	}
	f := cmd.Flags()
	f.StringVar(&path, "config", "", "the node's config.toml (required)")
	f.StringVar(&u.User, "user", "", "the user that the agent runs as, and that owns the install root (required)")
	f.StringVar(&dir, "dir", "", "write the files to this directory instead of printing them")
	f.StringVar(&u.Agent, "agent", "", "with service.unit: path of edge-agent (default: this program)")
	f.Float64Var(&u.RestartSecs, "restart-secs", 0, "seconds between two starts of the service (default 0.1; 1 for the agent of a service.unit)")
	f.IntVar(&u.WatchdogSecs, "watchdog-secs", 30, "systemd restarts the agent if it does not answer for this many seconds")
	f.BoolVar(&u.Journal, "journal", true, "let the agent read the journal, to report why a version failed (group systemd-journal)")
	f.StringArrayVar(&u.Environment, "environment", nil, "NAME=VALUE for the agent; may be repeated")
	f.StringArrayVar(&u.Args, "arg", nil, "an argument of the service, after run --config FILE; may be repeated")
	f.StringArrayVar(&u.Writable, "writable", nil, "a path that the service writes to, besides its install root; may be repeated")
	f.StringArrayVar(&u.Devices, "device", nil, "a device that the service uses, like /dev/video0, or char-alsa for all of a driver; may be repeated")
	return cmd
}

// printUnits prints one file as it is, and several files like systemctl cat.
func printUnits(w io.Writer, files []systemd.File) error {
	for i, f := range files {
		if len(files) > 1 {
			sep := "\n"
			if i == 0 {
				sep = ""
			}
			if _, err := fmt.Fprintf(w, "%s# /etc/systemd/system/%s\n", sep, f.Name); err != nil {
				return err
			}
		}
		if _, err := io.WriteString(w, f.Text); err != nil {
			return err
		}
	}
	return nil
}

// writeUnits writes the files to dir, and prints their paths and the next command.
func writeUnits(ctx context.Context, w io.Writer, dir string, u systemd.Unit) error {
	paths, err := install.WriteUnits(ctx, dir, u)
	for _, path := range paths {
		fmt.Fprintf(w, "wrote %s\n", path)
	}
	if err != nil {
		return fmt.Errorf("unit: %w", err)
	}
	_, err = fmt.Fprintf(w, "then run: %s\n", install.StartCommand(u))
	return err
}
