package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/bilbycast/edge-agent/agent"
	"github.com/bilbycast/edge-agent/cmd/internal/cli"
	"github.com/bilbycast/edge-agent/install"
	"github.com/spf13/cobra"
)

// exitSkipped is the exit code of 'probe' if a manager answered to which the probe did
// not authenticate.
const exitSkipped = 3

// exitNoManager is the exit code of 'probe' on a node without a manager. It is not 0: no
// link was proven.
const exitNoManager = 4

func newProbeCmd() *cobra.Command {
	var path string
	var asJSON bool
	o := agent.ProbeOptions{Version: version}
	cmd := &cobra.Command{
		Use:   "probe --config FILE",
		Short: "Test the link to the manager, beside a running agent",
		Long: fmt.Sprintf(`Probe tests the link to each manager in [manager] urls at the same time, and prints
each stage as it is reached: resolve, proxy, tcp, tls, websocket, auth and held. Held
means that the manager kept the authenticated connection for 10 s. A probe opens no
session, changes nothing, and ends within four minutes. As root it becomes the owner of
the install root, and uses the environment of the agent's unit.

The node's credentials go only to a manager that says that it knows probes, on the
same connection. Otherwise auth is skipped: an older manager would end the session
of the running agent.

With --json each stage is a line: url, stage, ok, skipped, ms, detail, key, error. Key
is the fingerprint of the manager's key, as manager.key_fingerprint has it.

Exits 0 if one URL reached held. Exits 1 if none did. Exits 2 for wrong usage.
Exits %d if none did, and auth was skipped at a manager that answered: it does not
know probes, its key is not one of --manager-key, or this node is not registered.
Exits %d if no manager is configured (urls is empty): there is nothing to probe.`, exitSkipped, exitNoManager),
		Example: `  edge-agent probe --config /opt/bilbycast/edge/config.toml
  edge-agent probe --config /opt/bilbycast/edge/config.toml --json | jq 'select(.ok | not)'`,
		Args: cli.ExactArgs(0, "config"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := agent.CheckKeys(o.Keys); err != nil {
				return cli.Usage(fmt.Errorf("--manager-key: %w", err))
			}
			c, err := install.OpenAsService(cmd.Context(), path)
			if err != nil {
				return fmt.Errorf("probe: %w", err)
			}
			if len(c.URLs) == 0 {
				return cli.Exit(exitNoManager, fmt.Errorf("probe: %s: there is nothing to probe ([manager] urls of %s is empty)", agent.NoManager, path))
			}
			out := cmd.OutOrStdout()
			if o.Report = newProbeTable(out, len(c.URLs)).print; asJSON {
				lines := json.NewEncoder(out)
				o.Report = func(s agent.ProbeStep) { lines.Encode(s) } // without a reader the exit code remains
			}
			r, err := agent.Probe(cmd.Context(), c.Config, o)
			switch {
			case err != nil:
				return fmt.Errorf("probe: %w", err)
			case r.Skipped():
				return cli.Exit(exitSkipped, errors.New("probe: a manager answers, and the probe did not authenticate there; the stage auth has the reason"))
			case !r.Held():
				return errors.New("probe: the link fails; the last stage of each URL has the reason")
			}
			return nil
		},
	}
	cmd.Flags().StringVar(&path, "config", "", "the node's config.toml (required)")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON, one object a line")
	cmd.Flags().StringVar(&o.Credentials, "credentials", "", "a copy of the node's credentials.json")
	cmd.Flags().StringSliceVar(&o.Keys, "manager-key", nil, "authenticate only to a manager with this key (SHA-256 in hex); may be repeated")
	cmd.MarkFlagFilename("config", "toml")
	cmd.MarkFlagFilename("credentials", "json")
	return cmd
}

// probeTable prints the steps of a probe for people.
type probeTable struct {
	w       io.Writer
	several bool           // URLs
	numbers map[string]int // by URL, in the order in which they appear
}

func newProbeTable(w io.Writer, urls int) *probeTable {
	return &probeTable{w: w, several: urls > 1, numbers: map[string]int{}}
}

// print prints a step, after the URL when it appears first.
func (t *probeTable) print(s agent.ProbeStep) {
	n, known := t.numbers[s.URL]
	if !known {
		n = len(t.numbers) + 1
		t.numbers[s.URL] = n
	}
	prefix := ""
	if t.several {
		prefix = fmt.Sprintf("[%d] ", n)
	}
	if !known {
		fmt.Fprintf(t.w, "%s%s\n", prefix, cli.Plain(s.URL))
	}
	result, text := "ok", s.Detail
	switch {
	case s.Skipped:
		result, text = "skipped", s.Error
	case !s.OK:
		result, text = "FAILED", s.Error
	}
	if s.Stage == agent.StageTLS && s.Key != "" {
		text += "; key " + s.Key
	}
	took := (time.Duration(s.Millis) * time.Millisecond).String()
	fmt.Fprintf(t.w, "%s  %-9s  %-7s  %7s  %s\n", prefix, cli.Plain(s.Stage), result, took, cli.Plain(text))
}
