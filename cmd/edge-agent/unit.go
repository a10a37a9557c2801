package main

import (
	"fmt"

	"github.com/bilbycast/edge-agent/agent"
	"github.com/bilbycast/edge-agent/systemd"
	"github.com/spf13/cobra"
)

func newUnitCmd() *cobra.Command {
	var config string
	var u systemd.Unit
	cmd := &cobra.Command{
		Use:     "unit --config FILE --user USER",
		Short:   "Print the systemd unit for a config.toml",
		Example: `  edge-agent unit --config /opt/bilbycast/edge/config.toml --user edge >/etc/systemd/system/edge.service`,
		Args:    exactArgs(0, "config", "user"),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := agent.Load(config)
			if err != nil {
				return err
			}
			if c, err = agent.Check(c); err != nil {
				return fmt.Errorf("%s: %w", config, err)
			}
			u.Name, u.Root, u.Binary = c.Service.Name, c.Service.InstallRoot, c.Service.Binary
			u.WindowSecs = c.Upgrade.BootHealthWindowSecs
			text, err := u.Text()
			if err != nil {
				return err
			}
			_, err = fmt.Fprint(cmd.OutOrStdout(), text)
			return err
		},
	}
	f := cmd.Flags()
	f.StringVar(&config, "config", "", "the node's config.toml (required)")
	f.StringVar(&u.User, "user", "", "the user that the service runs as, and that owns the install root (required)")
	f.Float64Var(&u.RestartSecs, "restart-secs", 1, "between two starts")
	f.IntVar(&u.WatchdogSecs, "watchdog-secs", 30, "without an answer, after which systemd restarts the service")
	f.BoolVar(&u.Journal, "journal", true, "let the service read the journal, for the event of a rollback (group systemd-journal)")
	f.StringArrayVar(&u.Environment, "environment", nil, "NAME=VALUE for the service; may be repeated")
	return cmd
}
