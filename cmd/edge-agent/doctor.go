package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/bilbycast/edge-agent/agent"
	"github.com/bilbycast/edge-agent/cmd/internal/cli"
	"github.com/bilbycast/edge-agent/release"
	"github.com/bilbycast/edge-agent/state"
	"github.com/bilbycast/edge-agent/systemd"
	"github.com/bilbycast/edge-agent/verify"
	"github.com/spf13/cobra"
)

// finding is one line of doctor; `doctor --json` prints a list of them.
type finding struct {
	What    string `json:"what"`
	OK      bool   `json:"ok"`
	Problem string `json:"problem,omitzero"` // and what to do
}

func newDoctorCmd() *cobra.Command {
	var config string
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "doctor --config FILE",
		Short: "Say what would keep this node from an upgrade, or from going back",
		Long: `Doctor looks at the configuration, the install root, the unit in systemd, and
the trust root, and changes nothing. Exit code 1 says that something is to be
mended.`,
		Example: `  edge-agent doctor --config /opt/bilbycast/edge/config.toml`,
		Args:    cli.ExactArgs(0, "config"),
		RunE: func(cmd *cobra.Command, args []string) error {
			findings := examine(cmd.Context(), config)
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
			for _, f := range findings {
				if !f.OK {
					return errors.New("doctor: something is to be mended")
				}
			}
			return nil
		},
	}
	cmd.Flags().StringVar(&config, "config", "", "the node's config.toml (required)")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

func printFindings(w io.Writer, findings []finding) {
	for _, f := range findings {
		if f.OK {
			fmt.Fprintf(w, "ok    %s\n", f.What)
		} else {
			fmt.Fprintf(w, "MEND  %s: %s\n", f.What, f.Problem)
		}
	}
}

func examine(ctx context.Context, config string) []finding {
	var all []finding
	add := func(what string, err error) bool {
		f := finding{What: what, OK: err == nil}
		if err != nil {
			f.Problem = err.Error()
		}
		all = append(all, f)
		return f.OK
	}
	c, err := agent.Load(config)
	if err == nil {
		c, err = agent.Check(c)
	}
	if !add("configuration", err) {
		return all
	}
	if !c.Upgrade.Enabled {
		add("upgrades", errors.New("they are off; set enabled = true in [upgrade] to let the manager schedule them"))
	}
	l, err := state.At(c.Service.InstallRoot)
	if err != nil {
		add("install root", err)
		return all
	}
	res, err := l.Read()
	var refused *release.Error
	if err == nil || errors.As(err, &refused) {
		err = nil
		if res.Tree.Current.IsZero() {
			err = errors.New("no version is installed")
		}
	}
	add("install root", err)
	for _, n := range append(res.Notes, l.Inspect()...) {
		add("install root", errors.New(n))
	}
	_, unfit, err := verify.LoadKept(nil, os.DirFS(l.TrustDir()))
	add("trust", errors.Join(err, unfit))
	if unit := c.Service.Unit; unit != "" {
		add("unit "+unit, systemd.Attached{Name: unit, Root: l.Root()}.Fit(ctx))
	} else {
		unit := c.Service.Name + ".service"
		add("unit "+unit, systemd.Fit(ctx, unit, l.Root()))
	}
	return all
}
