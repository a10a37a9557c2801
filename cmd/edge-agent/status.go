package main

import (
	"encoding/json"
	"fmt"
	"io"
	"text/tabwriter"
	"time"

	"github.com/bilbycast/edge-agent/cmd/internal/cli"
	"github.com/bilbycast/edge-agent/release"
	"github.com/bilbycast/edge-agent/state"
	"github.com/spf13/cobra"
)

// statusReport is what `status --json` prints; its fields keep their names.
type statusReport struct {
	Root            string            `json:"root"`
	Status          state.Status      `json:"status"`
	Since           time.Time         `json:"since,omitzero"`
	Current         release.Version   `json:"current"`
	Previous        release.Version   `json:"previous"`
	LastGood        release.Version   `json:"last_good"`
	Target          release.Version   `json:"target,omitzero"`
	BootAttempts    int               `json:"boot_attempts"`
	MaxBootAttempts int               `json:"max_boot_attempts,omitzero"`
	Reason          string            `json:"reason,omitzero"`
	Versions        []release.Version `json:"versions"`
	Undelivered     int               `json:"undelivered_events"`
	Notes           []string          `json:"notes,omitempty"`
	Summary         string            `json:"summary"`
}

func newStatusCmd() *cobra.Command {
	var root string
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "status --root DIR",
		Short: "Say which version runs, and what the last upgrade came to",
		Example: `  edge-agent status --root /opt/bilbycast/edge
  edge-agent status --root /opt/bilbycast/edge --json | jq -r .status`,
		Args: cli.ExactArgs(0, "root"),
		RunE: func(cmd *cobra.Command, args []string) error {
			l, err := state.At(root)
			if err != nil {
				return cli.Usage(fmt.Errorf("--root: %w", err))
			}
			res, err := l.Read()
			if err != nil {
				return fmt.Errorf("status: %w", err)
			}
			entries, _, err := l.Outbox().List()
			if err != nil {
				res.Notes = append(res.Notes, fmt.Sprintf("the outbox is unreadable: %v", err))
			}
			res.Notes = append(res.Notes, l.Inspect()...)
			s, t := res.State, res.Tree
			if t.Previous == t.Current {
				t.Previous = release.Version{} // there is none to go back to
			}
			rep := statusReport{
				Root: root, Status: s.Status, Since: s.Since,
				Current: t.Current, Previous: t.Previous, LastGood: t.LastGood, Target: s.Target,
				BootAttempts: s.BootAttempts, MaxBootAttempts: s.MaxBootAttempts, Reason: s.Reason,
				Versions: t.Versions, Undelivered: len(entries) + len(s.Owed), Notes: res.Notes, Summary: summary(s, t),
			}
			if asJSON {
				e := json.NewEncoder(cmd.OutOrStdout())
				e.SetIndent("", "  ")
				return e.Encode(rep)
			}
			return rep.table(cmd.OutOrStdout())
		},
	}
	cmd.Flags().StringVar(&root, "root", "", "the service's install root (required)")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

func summary(s state.State, t state.Tree) string {
	switch s.Status {
	case state.Stable:
		return fmt.Sprintf("%s runs and has proved healthy.", t.Current)
	case state.StagedManual:
		return fmt.Sprintf("%s runs; %s is staged and waits for an operator: edge-agent apply.", t.Current, s.Target)
	case state.PendingHealth:
		return fmt.Sprintf("%s is on trial (start %d of %d); %s comes back if it does not prove healthy.", s.Target, s.BootAttempts, s.MaxBootAttempts, s.Previous)
	case state.RolledBack:
		return fmt.Sprintf("%s runs; %s was taken back: %s. See journalctl of the service for why it failed.", t.Current, s.Target, s.Reason)
	}
	return "No version is installed here. Put one under versions/ and point the link current at it."
}

func (r statusReport) table(w io.Writer) error {
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	row := func(k string, v any) { fmt.Fprintf(tw, "%s\t%v\n", k, v) }
	row("status", r.Status)
	row("current", r.Current)
	row("previous", r.Previous)
	row("last-good", r.LastGood)
	if !r.Target.IsZero() {
		row("target", r.Target)
		row("starts", fmt.Sprintf("%d of %d", r.BootAttempts, r.MaxBootAttempts))
	}
	row("installed", fmt.Sprint(r.Versions))
	row("undelivered", r.Undelivered)
	for _, n := range r.Notes {
		row("note", n)
	}
	if err := tw.Flush(); err != nil {
		return err
	}
	_, err := fmt.Fprintf(w, "\n%s\n", r.Summary)
	return err
}
