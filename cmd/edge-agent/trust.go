package main

import (
	"encoding/json"
	"fmt"
	"text/tabwriter"
	"time"

	"github.com/bilbycast/edge-agent/cmd/internal/cli"
	"github.com/bilbycast/edge-agent/fsutil"
	"github.com/bilbycast/edge-agent/internal/state"
	"github.com/bilbycast/edge-agent/upgrade"
	"github.com/bilbycast/edge-agent/verify"
	"github.com/spf13/cobra"
)

func newTrustCmd() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "trust",
		Short: "Show which signers and keys this node trusts, or renew Sigstore's trust root",
		Args:  cli.ExactArgs(0),
		RunE:  func(cmd *cobra.Command, args []string) error { return cmd.Help() },
	}
	cmd.AddCommand(newTrustShowCmd(), newTrustUpdateCmd())
	return cmd
}

// trustReport is what `trust show --json` prints; its fields keep their names.
type trustReport struct {
	Source         string `json:"source"` // "compiled in" or "renewed"
	RootVersion    int64  `json:"tuf_root_version,omitzero"`
	TargetsVersion int64  `json:"tuf_targets_version,omitzero"`
	Unfit          string `json:"unfit,omitzero"`
	// LeftOut are the parties that this program does not understand, and does not trust.
	LeftOut []string        `json:"left_out,omitempty"`
	Signers []verify.Signer `json:"signers"`
	Keys    []verify.Key    `json:"keys"`
}

func newTrustShowCmd() *cobra.Command {
	var root string
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "show [--root DIR]",
		Short: "Print the allowed signers, and the keys that prove their signatures",
		Example: `  edge-agent trust show --root /opt/bilbycast/edge
  edge-agent trust show --json | jq '.signers[].repository'`,
		Args: cli.ExactArgs(0),
		RunE: func(cmd *cobra.Command, args []string) error {
			kept := fsutil.DirFS("/nonexistent")
			if root != "" {
				l, err := state.At(root)
				if err != nil {
					return cli.Usage(fmt.Errorf("--root: %w", err))
				}
				if err := fsutil.BecomeOwner(root); err != nil {
					return fmt.Errorf("trust show: %w", err)
				}
				kept = fsutil.DirFS(l.TrustDir())
			}
			t, unfit, err := verify.LoadKept(nil, kept)
			if err != nil {
				return err
			}
			rep := trustReport{Source: "compiled in", Signers: t.Signers(), Keys: t.Keys(), LeftOut: t.LeftOut()}
			var renewed bool
			if rep.RootVersion, rep.TargetsVersion, renewed = t.Renewed(); renewed {
				rep.Source = "renewed"
			}
			if unfit != nil {
				rep.Unfit = unfit.Error()
			}
			if asJSON {
				e := json.NewEncoder(cmd.OutOrStdout())
				e.SetIndent("", "  ")
				return e.Encode(rep)
			}
			return rep.print(cmd)
		},
	}
	cmd.Flags().StringVar(&root, "root", "", "the service's install root, whose renewed trust root is shown")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

func (r trustReport) print(cmd *cobra.Command) error {
	tw := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 0, 2, ' ', 0)
	fmt.Fprintf(tw, "trust root\t%s\n", r.Source)
	if r.Source == "renewed" {
		fmt.Fprintf(tw, "TUF\troot %d, targets %d\n", r.RootVersion, r.TargetsVersion)
	}
	if r.Unfit != "" {
		fmt.Fprintf(tw, "not used\t%s\n", cli.Plain(r.Unfit))
	}
	for _, s := range r.Signers {
		ids := ""
		if s.RepositoryID != "" {
			ids += ", repository id " + s.RepositoryID
		}
		if s.OwnerID != "" {
			ids += ", owner id " + s.OwnerID
		}
		fmt.Fprintf(tw, "signer\t%s/%s@%s, of %s%s\n", s.Repository, s.Workflow, s.Ref, s.Issuer, ids)
	}
	for _, k := range r.Keys {
		end := "open"
		if !k.End.IsZero() {
			end = k.End.Format(time.DateOnly)
		}
		fmt.Fprintf(tw, "%s\t%s, %s to %s\n", cli.Plain(k.Kind), cli.Plain(k.URL), k.Start.Format(time.DateOnly), end)
	}
	for _, party := range r.LeftOut {
		fmt.Fprintf(tw, "not understood\t%s\n", cli.Plain(party))
	}
	return tw.Flush()
}

func newTrustUpdateCmd() *cobra.Command {
	var root, from string
	cmd := &cobra.Command{
		Use:   "update --root DIR --from DIR",
		Short: "Install a newer trust root, if Sigstore's own keys prove it",
		Long: `Update installs the newer trusted_root.json in --from, with what proves it: the
files N.root.json of every TUF root since the one that this program knows,
targets.json, and trusted_root.json, as https://tuf-repo-cdn.sigstore.dev and
the repository sigstore/root-signing have them. It does not matter where the
files come from: only Sigstore's TUF keys count, and nothing older than what is
known is accepted. It needs no network and no clock.`,
		Example: `  edge-agent trust update --root /opt/bilbycast/edge --from /media/stick/sigstore && systemctl restart edge`,
		Args:    cli.ExactArgs(0, "root", "from"),
		RunE: func(cmd *cobra.Command, args []string) error {
			l, err := state.At(root)
			if err != nil {
				return cli.Usage(fmt.Errorf("--root: %w", err))
			}
			if err := fsutil.BecomeOwner(root); err != nil {
				return fmt.Errorf("trust update: %w", err)
			}
			r, err := upgrade.RenewTrust(cmd.Context(), l, fsutil.DirFS(from))
			if err != nil {
				return fmt.Errorf("trust update: %w", err)
			}
			fmt.Fprintf(cmd.OutOrStdout(), "renewed: TUF root %d, targets %d. Restart the service to use it.\n", r.RootVersion, r.TargetsVersion)
			for _, party := range r.LeftOut {
				fmt.Fprintf(cmd.OutOrStdout(), "not understood by this version, and so not trusted: %s\n", cli.Plain(party))
			}
			return nil
		},
	}
	cmd.Flags().StringVar(&root, "root", "", "the service's install root (required)")
	cmd.Flags().StringVar(&from, "from", "", "the directory with the files (required)")
	return cmd
}
