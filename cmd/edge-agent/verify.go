package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/bilbycast/edge-agent/cmd/internal/cli"
	"github.com/bilbycast/edge-agent/config"
	"github.com/bilbycast/edge-agent/release"
	"github.com/bilbycast/edge-agent/upgrade"
	"github.com/bilbycast/edge-agent/verify"
	"github.com/spf13/cobra"
)

// verifyReport is what `verify --json` prints; its fields keep their names.
type verifyReport struct {
	Verified     bool              `json:"verified"`      // the signature holds, and its signer is allowed
	WouldInstall bool              `json:"would_install"` // and this node would take it
	Code         release.Code      `json:"code,omitzero"` // why not
	Reason       string            `json:"reason,omitzero"`
	Running      string            `json:"running,omitzero"`
	Release      *release.Manifest `json:"manifest,omitempty"`
	Signature    *verify.Signature `json:"signature,omitempty"`
	Artefact     string            `json:"artefact,omitzero"` // SHA-256 of the one for this machine
	Tarball      string            `json:"tarball,omitzero"`
	Cosign       string            `json:"cosign"` // the same check by cosign
}

func newVerifyCmd() *cobra.Command {
	var path string
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "verify DIR|FILE.tar|URL|VERSION",
		Short: "Print who signed a release, and whether this node would install it",
		Long: `Verify checks a release as an upgrade does, and installs nothing: signature,
certificate, transparency log, signer, channel, version, architecture and, if
the tarball is local, its digest.

A URL names the directory with manifest.json. A VERSION is fetched from the
release host of this program. With --config the policy, the running version and
the rollback floor of that node apply; without it, those of a new node.

Exit codes: 0 it would be installed, 1 it would not, 2 wrong usage.`,
		Example: `  edge-agent verify 1.5.0 --config /opt/bilbycast/edge/config.toml
  edge-agent verify /media/stick/edge-1.5.0.tar --json | jq .signature
  edge-agent verify https://github.com/acme/edge/releases/download/v1.5.0`,
		Args: cli.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			var c upgrade.Config
			if path != "" {
				node, err := config.Read(path)
				if err != nil {
					return err
				}
				c.Node = &node
				if c.Log, err = cli.NewSlog(cmd.ErrOrStderr(), "warn"); err != nil {
					return err
				}
			}
			e, err := upgrade.Examine(cmd.Context(), c, args[0])
			if err != nil {
				return fmt.Errorf("verify: %w", err)
			}
			rep := reportOf(e)
			if asJSON {
				enc := json.NewEncoder(cmd.OutOrStdout())
				enc.SetIndent("", "  ")
				err = enc.Encode(rep)
			} else {
				err = rep.print(cmd.OutOrStdout())
			}
			if err == nil && !rep.WouldInstall {
				err = fmt.Errorf("verify: %s would not be installed: %w", args[0], e.Refused)
			}
			return err
		},
	}
	cmd.Flags().StringVar(&path, "config", "", "the node's config.toml")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

func reportOf(e upgrade.Examination) verifyReport {
	r := verifyReport{Verified: e.Release.OK(), WouldInstall: e.Refused == nil, Tarball: e.Tarball, Running: e.Running.String(), Artefact: e.Chosen.SHA256}
	if e.Refused != nil {
		r.Reason = e.Refused.Error()
		var coded *release.Error
		if errors.As(e.Refused, &coded) {
			r.Code = coded.Code
		}
	}
	issuer, identity := "ISSUER", "IDENTITY"
	if r.Verified {
		m, s := e.Release.Manifest(), e.Release.Signature()
		r.Release, r.Signature = &m, &s
		issuer, identity = s.Issuer, s.Workflow
	}
	r.Cosign = fmt.Sprintf("cosign verify-blob --bundle %s --certificate-oidc-issuer %s --certificate-identity %s %s",
		release.BundleName, issuer, identity, release.ManifestName)
	return r
}

func (r verifyReport) print(w io.Writer) error {
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	line := func(what, format string, args ...any) {
		fmt.Fprintf(tw, "%s\t%s\n", what, cli.Plain(fmt.Sprintf(format, args...)))
	}
	if r.Verified {
		m, s := r.Release, r.Signature
		line("release", "%s (%s) for %s, sequence %d, of %s", m.Version, m.Channel, m.DeviceType, m.Sequence, m.ReleasedAt.Format(time.DateOnly))
		if !m.RollbackFloor.IsZero() {
			line("rollback floor", "%s", m.RollbackFloor)
		}
		if len(m.Commands) > 0 {
			line("commands", "%s", strings.Join(m.Commands, ", "))
		}
		if m.FirstStartSecs > 0 {
			line("first start", "up to %v", time.Duration(m.FirstStartSecs)*time.Second)
		}
		line("signed by", "%s", s.Workflow)
		line("repository", "%s", s.Repository)
		line("commit", "%s (%s)", s.Commit, s.Ref)
		line("run", "%s", s.Run)
		line("log", "%s, index %d", s.Log, s.LogIndex)
		line("signed at", "%s, attested by %s", s.Time.Format(time.RFC3339), s.TimeSource)
		for _, a := range m.Artefacts {
			mark := ""
			if a.SHA256 == r.Artefact {
				mark = "  <- this machine"
			}
			line("artefact", "%s %s, %d bytes, sha256 %s%s", a.Arch, a.Variant, a.Size, a.SHA256, mark)
		}
		if r.Tarball != "" {
			line("tarball", "%s", r.Tarball)
		}
	}
	if r.Running != "" {
		line("running", "%s", r.Running)
	}
	if r.WouldInstall {
		line("verdict", "it would be installed")
	} else {
		line("verdict", "NOT installed: %s", r.Reason)
	}
	line("the same by", "%s", r.Cosign)
	return tw.Flush()
}
