package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/bilbycast/edge-agent/cmd/internal/cli"
	"github.com/bilbycast/edge-agent/internal/rig"
	"github.com/bilbycast/edge-agent/manager-sim/fakerelease"
	"github.com/bilbycast/edge-agent/release"
	"github.com/spf13/cobra"
)

func newReleaseCmd() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "release",
		Short: "Make fake signed releases, good and bad",
		Args:  cli.ExactArgs(0),
		RunE:  func(cmd *cobra.Command, args []string) error { return cmd.Help() },
	}
	cmd.AddCommand(newPublishCmd(), newListCmd(), newBundleCmd())
	return cmd
}

// releasesUnder returns the directory of the releases in a data directory.
func releasesUnder(dir string) string { return filepath.Join(dir, "releases") }

func newPublishCmd() *cobra.Command {
	var dir, fault string
	var asJSON, replace, plain bool
	var o fakerelease.Options
	var faults strings.Builder
	for _, f := range fakerelease.Faults() {
		fmt.Fprintf(&faults, "  %-20s %s\n", f[0], f[1])
	}
	cmd := &cobra.Command{
		Use:   "publish --version X.Y.Z [PROGRAM]",
		Short: "Publish a program as a signed release",
		Long: `Publish packs PROGRAM into a tarball and a tar.zst, writes the manifest, signs it with the
simulated Sigstore of the data directory (created at the first call), and stores
the files in the layout of GitHub: OWNER/REPO/releases/download/vX.Y.Z/.

It refuses a version that is published already: nodes and rollouts would take other
bytes for the same release. Publish a new version, or give --replace.

Without PROGRAM it builds edge-agent for the simulation with this version. That
needs Go and a checkout of edge-agent.

With --fault the release is bad:
` + faults.String(),
		Example: `  manager-sim release publish --version 1.0.0
  go build -tags sim -ldflags "-X main.version=1.1.0" -o edge-agent ./cmd/edge-agent
  manager-sim release publish --version 1.1.0 ./edge-agent
  manager-sim release publish --version 1.2.0 --fault exits-at-once ./edge-agent`,
		Args: func(cmd *cobra.Command, args []string) error {
			return cli.ExactArgs(min(len(args), 1), "version")(cmd, args)
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			o.Fault = fakerelease.Fault(fault)
			if err := checkPublish(cmd, o); err != nil {
				return err
			}
			o.Once, o.Chunks = !replace, !plain
			if !plain {
				o.Formats = []string{release.FormatZstd}
			}
			if err := checkUnpublished(o, releasesUnder(dir)); err != nil { // before it is built
				return err
			}
			if len(args) == 1 {
				o.Binary = args[0]
			} else {
				remove, err := buildProgram(cmd, &o)
				if err != nil {
					return err
				}
				defer remove()
			}
			p, err := fakerelease.Publish(releasesUnder(dir), o)
			if err != nil {
				return explainPublished(err)
			}
			if asJSON {
				return json.NewEncoder(cmd.OutOrStdout()).Encode(p)
			}
			fmt.Fprintf(cmd.OutOrStdout(), "published %s\n  in      %s\n  tarball %s, %d bytes\n  sha256  %s\n  trust   %s\n",
				p.Version, p.Dir, p.Tarball, p.Size, p.SHA256, p.TrustDir)
			return nil
		},
	}
	f := cmd.Flags()
	f.StringVar(&dir, "dir", defaultDir, "data directory, as for serve")
	f.StringVar(&o.Version, "version", "", "version, as semver.org defines it (required)")
	f.StringVar(&o.Repository, "repository", fakerelease.DefaultRepository, "OWNER/REPO of the release")
	f.StringVar(&o.DeviceType, "device-type", "edge", "device type of the release")
	f.StringVar(&o.Channel, "channel", "stable", "release channel")
	f.StringVar(&o.Variant, "variant", "default", "variant of the program")
	f.StringVar(&o.Arch, "arch", "", "architecture (default: the one of this machine)")
	f.StringVar(&o.BinaryName, "name", "edge-agent", "the program's name in the tarball")
	f.Uint64Var(&o.Sequence, "sequence", 0, "sequence number (default: the next)")
	f.StringVar(&o.RollbackFloor, "rollback-floor", "", "lowest version that a node may install after this one has proved healthy")
	f.StringSliceVar(&o.Commands, "commands", nil, `what the program understands: probe, "config check"; without PROGRAM both`)
	f.IntVar(&o.FirstStartSecs, "first-start-secs", 0, "how long a start may take until the health check first passes")
	f.Int64Var(&o.PadBytes, "pad-bytes", 0, "add a file of this many bytes that does not compress")
	f.IntVar(&o.PadFiles, "pad-files", 1, "add the bytes of --pad-bytes as so many files")
	f.BoolVar(&o.RekorV2, "rekor-v2", false, "log the signature in Rekor v2, with a timestamp authority")
	f.BoolVar(&replace, "replace", false, "publish the version again if it is published already; nodes that run it keep what they have")
	f.BoolVar(&plain, "plain", false, "only the tarball: no tar.zst, and no digests of chunks in the manifest")
	f.StringVar(&fault, "fault", "", "make the release bad (see above)")
	f.BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

// checkUnpublished returns an error if the version of o is published, and may not be replaced.
func checkUnpublished(o fakerelease.Options, releases string) error {
	if !o.Once {
		return nil
	}
	o.Binary = "none" // which is required, and not read
	have, err := o.Published(releases)
	if err == nil && have {
		err = explainPublished(fmt.Errorf("publish %s: %w", o.Version, fakerelease.ErrPublished))
	}
	return err
}

// explainPublished adds the remedy to fakerelease.ErrPublished.
func explainPublished(err error) error {
	if errors.Is(err, fakerelease.ErrPublished) {
		err = fmt.Errorf("%w: publish the change as a new version, or replace this one with --replace", err)
	}
	return err
}

// buildProgram builds the program of o in a temporary directory, which remove removes.
func buildProgram(cmd *cobra.Command, o *fakerelease.Options) (remove func(), err error) {
	dir, err := os.MkdirTemp("", "edge-agent-build-")
	if err != nil {
		return nil, err
	}
	fmt.Fprintf(cmd.ErrOrStderr(), "building edge-agent %s for the simulation (the first time takes about a minute)\n", o.Version)
	programs, err := rig.Build(cmd.Context(), dir, o.Version)
	if err != nil {
		os.RemoveAll(dir)
		return nil, fmt.Errorf("%w\nrun this in a checkout of edge-agent, or give a PROGRAM", err)
	}
	o.Binary = programs[o.Version]
	if o.Commands == nil {
		o.Commands = []string{release.CommandProbe, release.CommandConfigCheck}
	}
	return func() { os.RemoveAll(dir) }, nil
}

func newListCmd() *cobra.Command {
	var dir, deviceType, channel string
	var asJSON bool
	cmd := &cobra.Command{
		Use:     "list",
		Short:   "List the published releases, newest first",
		Example: `  manager-sim release list --dir sim`,
		Args:    cli.ExactArgs(0),
		RunE: func(cmd *cobra.Command, args []string) error {
			list, err := fakerelease.Index(releasesUnder(dir), deviceType, channel)
			if err != nil {
				return err
			}
			if asJSON {
				return json.NewEncoder(cmd.OutOrStdout()).Encode(list)
			}
			if len(list) == 0 {
				_, err := fmt.Fprintln(cmd.ErrOrStderr(), "No releases match.")
				return err
			}
			t := newTable(cmd.OutOrStdout(), "VERSION", "CHANNEL", "DEVICE TYPE", "SEQUENCE", "RELEASED")
			for _, r := range list {
				t.row(r.Version, r.Channel, r.DeviceType, strconv.FormatUint(r.Sequence, 10), r.ReleasedAt.Format(time.DateTime))
			}
			return t.flush()
		},
	}
	cmd.Flags().StringVar(&dir, "dir", defaultDir, "data directory, as for serve")
	cmd.Flags().StringVar(&deviceType, "device-type", "", "only releases for this device type")
	cmd.Flags().StringVar(&channel, "channel", "", "only releases on this channel")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

func newBundleCmd() *cobra.Command {
	var dir, repository, version, out string
	cmd := &cobra.Command{
		Use:   "bundle --version X.Y.Z --out FILE.tar",
		Short: "Pack a published release into one file, for a site without a network",
		Example: `  manager-sim release bundle --version 1.1.0 --out edge-1.1.0.tar
  edge-agent stage --config /opt/bilbycast/edge/config.toml --from edge-1.1.0.tar`,
		Args: cli.ExactArgs(0, "version", "out"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := checkVersion("version", version); err != nil {
				return err
			}
			if err := fakerelease.Bundle(releasesUnder(dir), repository, version, out); err != nil {
				return err
			}
			_, err := fmt.Fprintf(cmd.OutOrStdout(), "wrote %s\n", out)
			return err
		},
	}
	f := cmd.Flags()
	f.StringVar(&dir, "dir", defaultDir, "data directory, as for serve")
	f.StringVar(&repository, "repository", fakerelease.DefaultRepository, "OWNER/REPO of the release")
	f.StringVar(&version, "version", "", "version of the release (required)")
	f.StringVar(&out, "out", "", "tar file to write (required)")
	return cmd
}
