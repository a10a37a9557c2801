package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"github.com/bilbycast/edge-agent/cmd/internal/cli"
	"github.com/bilbycast/edge-agent/install"
	"github.com/spf13/cobra"
)

func newDoctorCmd() *cobra.Command {
	var config string
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "doctor --config FILE",
		Short: "Check that this node can run, upgrade and roll back",
		Long: `Doctor checks the configuration, the install root, the unit in systemd, the
service, the link to the manager, the disk and the trust root. It changes
nothing, besides temporary files in the install root, which it removes. Each line
that begins with FIX has a problem, its cause and the remedy. Run it as root or as
the service's user. As root it becomes that user.

Exits 1 if a check fails, 2 for wrong usage.`,
		Example: `  edge-agent doctor --config /opt/bilbycast/edge/config.toml
  edge-agent doctor --config /opt/bilbycast/edge/config.toml --json | jq '.[] | select(.ok | not)'`,
		Args: cli.ExactArgs(0, "config"),
		RunE: func(cmd *cobra.Command, args []string) error {
			findings := install.Doctor(cmd.Context(), config)
			out := cmd.OutOrStdout()
			if asJSON {
				e := json.NewEncoder(out)
				e.SetIndent("", "  ")
				if err := e.Encode(findings); err != nil {
					return err
				}
			} else {
				printFindings(out, findings)
			}
			if !install.Well(findings) {
				return errors.New("doctor: problems found; see the FIX lines")
			}
			return nil
		},
	}
	cmd.Flags().StringVar(&config, "config", "", "the node's config.toml (required)")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

// printFindings prints one line for each finding.
func printFindings(w io.Writer, findings []install.Finding) {
	for _, f := range findings {
		if f.OK {
			fmt.Fprintf(w, "ok    %s\n", cli.Plain(f.What))
		} else {
			fmt.Fprintf(w, "FIX   %s: %s\n", cli.Plain(f.What), cli.PlainLines(f.Problem))
		}
	}
}
