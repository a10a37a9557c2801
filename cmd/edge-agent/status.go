package main

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/bilbycast/edge-agent/cmd/internal/cli"
	"github.com/bilbycast/edge-agent/fsutil"
	"github.com/bilbycast/edge-agent/install"
	"github.com/bilbycast/edge-agent/internal/state"
	"github.com/bilbycast/edge-agent/release"
	"github.com/spf13/cobra"
)

// statusReport is what `status --json` prints; its fields keep their names.
type statusReport struct {
	Root            string                   `json:"root"`
	Status          state.Status             `json:"status"`
	Since           time.Time                `json:"since,omitzero"` // of Status
	Current         release.Version          `json:"current"`
	Previous        release.Version          `json:"previous"`
	LastGood        release.Version          `json:"last_good"`
	Target          release.Version          `json:"target,omitzero"`
	BootAttempts    int                      `json:"boot_attempts"`
	MaxBootAttempts int                      `json:"max_boot_attempts,omitzero"`
	Reason          string                   `json:"reason,omitzero"`
	FailedStarts    []string                 `json:"failed_starts,omitempty"` // of Target, in order; "": not known
	Ends            []state.StartEnd         `json:"ends,omitempty"`          // of each start of the version on trial, oldest first
	Trial           *trialReport             `json:"trial,omitempty"`         // nil: no trial, or earlier rules apply to it
	Upgrade         *upgradeReport           `json:"upgrade,omitempty"`       // in progress; nil: none
	Versions        []release.Version        `json:"versions"`
	Undelivered     int                      `json:"undelivered_events"`
	Service         install.ServiceStatus    `json:"service"`
	Connection      install.ConnectionStatus `json:"connection"`
	Notes           []string                 `json:"notes,omitempty"`
	Summary         string                   `json:"summary"`
}

// upgradeReport is an upgrade in progress.
type upgradeReport struct {
	CommandID  string          `json:"command_id"`
	Version    release.Version `json:"version"`
	Downloaded int64           `json:"downloaded_bytes"`
	Waits      *state.Wait     `json:"waits,omitempty"` // what its download waits for; nil: it does not
}

func upgradeOf(l state.Layout, s state.State) *upgradeReport {
	c := s.InProgress()
	if c.ID == "" {
		return nil
	}
	return &upgradeReport{CommandID: c.ID, Version: c.Version, Downloaded: l.Downloaded(), Waits: c.Wait}
}

func (u *upgradeReport) table(row func(string, any), since func(string, time.Time, string) string) {
	if u == nil {
		return
	}
	row("upgrade", fmt.Sprintf("to %s in progress (%d bytes downloaded); edge-agent discard withdraws it", u.Version, u.Downloaded))
	if w := u.Waits; w != nil {
		row("waits for", since(w.Reason, w.Since, ""))
		if !w.Until.IsZero() {
			row("gives up", w.Until.UTC().Format(time.RFC3339))
		}
	}
}

func newStatusCmd() *cobra.Command {
	var root string
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "status --root DIR",
		Short: "Print which version runs, the service, the connection and the last upgrade",
		Long: `Status prints the versions of an install root, the result of the last upgrade,
the state of the service in systemd, and the connection to the manager. It
changes nothing. As root it becomes the owner of the root.`,
		Example: `  edge-agent status --root /opt/bilbycast/edge
  edge-agent status --root /opt/bilbycast/edge --json | jq -r .service.state`,
		Args: cli.ExactArgs(0, "root"),
		RunE: func(cmd *cobra.Command, args []string) error {
			l, err := state.At(root)
			if err != nil {
				return cli.Usage(fmt.Errorf("--root: %w", err))
			}
			user, wrongOwner := install.WrongOwner(cmd.Context(), l)
			l = install.WithGroup(l)
			if err := fsutil.BecomeOwner(root); err != nil {
				return fmt.Errorf("status: %w", err)
			}
			if err := install.Blocked(root); err != nil {
				return fmt.Errorf("status: %w", err)
			}
			res, err := l.AtStart().Read() // notes what the next start will do
			if errors.Is(err, state.ErrUnreadable) {
				res.Notes = append(res.Notes, err.Error()+"; nothing is changed until it can be read")
			} else if err != nil {
				return fmt.Errorf("status: %w", err)
			}
			entries, _, _ := l.Outbox().List() // Inspect reports what is wrong with it
			broken := ""
			for _, f := range l.Inspect(user) {
				if f.Check == "links" && broken == "" {
					broken = f.String()
				}
				if f.Check == "state" || f.Check == "owners" && wrongOwner != "" {
					continue // Read or WrongOwner noted it
				}
				res.Notes = append(res.Notes, f.String())
			}
			if wrongOwner != "" {
				res.Notes = append(res.Notes, wrongOwner)
			}
			res.Notes = append(res.Notes, install.ConfigNotes(root)...)
			if clock := install.ClockProblem(l); clock != "" {
				res.Notes = append(res.Notes, clock+"; set it")
			}
			s, t := res.State, res.Tree
			if t.Previous == t.Current {
				t.Previous = release.Version{} // there is none to roll back to
			}
			service, connection := install.QueryStatus(cmd.Context(), root, s.Since, s.Status == state.PendingHealth)
			rep := statusReport{
				Root: root, Status: s.Status, Since: s.Since,
				Current: t.Current, Previous: t.Previous, LastGood: t.LastGood, Target: s.Target,
				BootAttempts: s.BootAttempts, MaxBootAttempts: s.MaxBootAttempts, Reason: s.Reason, FailedStarts: s.FailedStarts,
				Versions: t.Versions, Undelivered: len(entries) + len(s.PendingReports), Service: service, Connection: connection, Notes: res.Notes,
			}
			if starts, ok := l.ReadStarts(s); ok && (s.Status == state.PendingHealth || s.Status == state.RolledBack) {
				rep.Ends = starts.Ends
			}
			rep.Trial, rep.Upgrade = trialOf(l, s), upgradeOf(l, s)
			rep.Summary = summary(s, t, service, broken)
			if s.Status == state.PendingHealth && service.State == "running" && rep.Trial != nil {
				rep.Summary = rep.Trial.summary(s)
			}
			if asJSON {
				e := json.NewEncoder(cmd.OutOrStdout())
				e.SetIndent("", "  ")
				return e.Encode(rep)
			}
			return rep.table(cmd.OutOrStdout(), time.Now())
		},
	}
	cmd.Flags().StringVar(&root, "root", "", "the service's install root (required)")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

// summary is one sentence or two that are true of the service, too. broken is
// the first flaw of the links, with its remedy.
func summary(s state.State, t state.Tree, service install.ServiceStatus, broken string) string {
	if t.Current.IsZero() && len(t.Versions) > 0 {
		return "The link current points to no installed version. The next start repairs it, or: edge-agent doctor names the remedy."
	}
	if t.Current.IsZero() && strings.Contains(broken, "dangling") {
		return fmt.Sprintf("The versions are not there: %s.", broken)
	}
	if t.Current.IsZero() {
		return "No version is installed here. Install one: edge-agent install --help."
	}
	last := ""
	switch s.Status {
	case state.Stable:
		last = fmt.Sprintf("%s proved healthy.", t.Current)
	case state.StagedManual:
		last = fmt.Sprintf("%s is staged and waits for an operator: edge-agent apply.", s.Target)
	case state.PendingHealth:
		last = fmt.Sprintf("%s is on trial (start %d of %d); if it does not prove healthy, %s returns.", s.Target, s.BootAttempts, s.MaxBootAttempts, s.Previous)
	case state.RolledBack:
		last = fmt.Sprintf("Version %s was rolled back: %s.", s.Target, strings.TrimSuffix(s.Reason, "."))
	}
	why := ""
	if service.Reason != "" {
		why = ": " + service.Reason
	}
	switch service.State {
	case "running":
		if s.Status == state.PendingHealth {
			return last
		}
		if s.Status == state.Stable {
			return fmt.Sprintf("%s runs and has proved healthy.", t.Current)
		}
		return fmt.Sprintf("Running %s. %s", t.Current, last)
	case "starting":
		return fmt.Sprintf("The service is starting %s. %s", t.Current, last)
	case "crash loop":
		return fmt.Sprintf("The service is in a crash loop with %s (%d restarts)%s. %s See journalctl -u %s.", t.Current, service.Restarts, why, last, service.Unit)
	case "failed":
		return fmt.Sprintf("The service has failed and does not run%s. Its version is %s. %s See journalctl -u %s.", why, t.Current, last, service.Unit)
	case "stopped":
		return fmt.Sprintf("The service is stopped%s. Its version is %s. %s Start it: %s.", why, t.Current, last, cmp.Or(service.Remedy, "systemctl start "+service.Unit))
	}
	if s.Status == state.Stable {
		return fmt.Sprintf("%s is installed and has proved healthy. Whether the service runs is unknown%s.", t.Current, why)
	}
	return fmt.Sprintf("%s is installed. %s Whether the service runs is unknown%s.", t.Current, last, why)
}

func (r statusReport) table(w io.Writer, now time.Time) error {
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	row := func(k string, v any) { fmt.Fprintf(tw, "%s\t%s\n", k, cli.Plain(fmt.Sprint(v))) }
	since := func(text string, at time.Time, reason string) string {
		if !at.IsZero() {
			text += fmt.Sprintf(" since %s (%s)", at.UTC().Format(time.RFC3339), ago(now.Sub(at)))
		}
		if reason != "" {
			text += ": " + reason
		}
		return text
	}
	row("status", r.Status)
	if !r.Since.IsZero() {
		row("since", fmt.Sprintf("%s (%s)", r.Since.UTC().Format(time.RFC3339), ago(now.Sub(r.Since))))
	}
	if r.Reason != "" {
		row("reason", r.Reason)
	}
	name := r.Service.State
	if r.Service.Unit != "" {
		name = r.Service.Unit + " " + name
	}
	if r.Service.Restarts > 0 {
		name += fmt.Sprintf(" (restarts: %d)", r.Service.Restarts)
	}
	row("service", since(name, r.Service.Since, r.Service.Reason))
	link := r.Connection.State
	if r.Connection.URL != "" {
		link += " to " + r.Connection.URL
	}
	if r.Service.NoUpgrades != "" {
		row("upgrades", "not possible: "+r.Service.NoUpgrades)
	}
	row("connection", since(link, r.Connection.Since, r.Connection.Problem))
	row("current", r.Current)
	row("previous", r.Previous)
	row("last-good", r.LastGood)
	if !r.Target.IsZero() {
		row("target", r.Target)
		row("starts", fmt.Sprintf("%d of %d", r.BootAttempts, r.MaxBootAttempts))
		for i, why := range r.FailedStarts {
			if why == "" {
				why = "unknown"
			}
			row(fmt.Sprintf("start %d failed", i+1), why)
		}
		for _, e := range r.Ends {
			if !e.Counted {
				row("not counted", e.How)
			}
		}
		r.Trial.table(row)
	}
	r.Upgrade.table(row, since)
	row("installed", fmt.Sprint(r.Versions))
	row("undelivered", r.Undelivered)
	for _, n := range r.Notes {
		row("note", n)
	}
	if err := tw.Flush(); err != nil {
		return err
	}
	_, err := fmt.Fprintf(w, "\n%s\n", cli.Plain(r.Summary))
	return err
}

// ago is a duration for people, in its largest unit.
func ago(d time.Duration) string {
	switch {
	case d < 0:
		return "in the future: the clock was changed"
	case d < 2*time.Minute:
		return fmt.Sprintf("%d s ago", int(d.Seconds()))
	case d < 2*time.Hour:
		return fmt.Sprintf("%d min ago", int(d.Minutes()))
	case d < 48*time.Hour:
		return fmt.Sprintf("%d h ago", int(d.Hours()))
	}
	return fmt.Sprintf("%d days ago", int(d.Hours()/24))
}
