package main

import (
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"time"

	"github.com/bilbycast/edge-agent/cmd/internal/cli"
	"github.com/bilbycast/edge-agent/config"
	"github.com/bilbycast/edge-agent/fsutil"
	"github.com/bilbycast/edge-agent/install"
	"github.com/bilbycast/edge-agent/stage"
	"github.com/bilbycast/edge-agent/upgrade"
	"github.com/spf13/cobra"
)

func newStageCmd() *cobra.Command {
	var path, from string
	var apply, repair, accept bool
	cmd := &cobra.Command{
		Use:   "stage --config FILE --from DIR|FILE.tar",
		Short: "Stage a release from a directory or a tar file, without a network",
		Long: `Stage installs the release in DIR or FILE.tar beside the running version, after
the same checks as an upgrade by the manager: signature, signer, log, channel,
version, digest. It holds manifest.json, manifest.sig.bundle and the tarball,
under the names that the release host gives them. As root it opens the release
first, and then becomes the owner of the install root.

The version then waits for 'edge-agent apply'; with --apply it is on trial at
the next start of the service. Before that, --apply asks the [health] checks of
config.toml, and refuses if they fail for some seconds, as apply does.`,
		Example: `  edge-agent stage --config /opt/bilbycast/edge/config.toml --from /media/stick/edge-1.5.0.tar
  edge-agent stage --config /opt/bilbycast/edge/config.toml --from /media/stick --apply && systemctl restart edge`,
		Args: cli.ExactArgs(0, "config", "from"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if accept && !apply {
				return cli.Usage(errors.New("--accept is about the trial that --apply begins; add --apply, or run edge-agent accept later"))
			}
			if repair && !apply {
				return cli.Usage(errors.New("--repair says that --apply does not ask the checks of [health]; add --apply, or run edge-agent apply --repair later"))
			}
			// Root may read what the service's user may not.
			source, err := stage.OpenSource(from)
			if err != nil {
				return fmt.Errorf("stage: %w", err)
			}
			defer source.Close()
			c, err := readAsOwner(path)
			if err != nil {
				return fmt.Errorf("stage: %w", err)
			}
			log, err := cli.NewSlog(cmd.ErrOrStderr(), "warn")
			if err != nil {
				return err
			}
			p, err := upgrade.New(upgrade.Config{Node: &c, Progress: progress(cmd.ErrOrStderr()), Log: log, CheckVersion: install.Service(c).FitVersion})
			if err != nil {
				return fmt.Errorf("stage: %w", err)
			}
			end := upgrade.Shelve
			if apply {
				end = upgrade.Swap
			}
			rel, err := p.Run(cmd.Context(), source, upgrade.Request{End: end, Running: running(c, repair, accept)})
			if err != nil {
				return fmt.Errorf("stage: %w", err)
			}
			sig := rel.Signature()
			out := cmd.OutOrStdout()
			fmt.Fprintf(out, "%s is staged: signed by %s, of commit %s, at %s\n", rel.Manifest().Version, cli.Plain(sig.Workflow), cli.Plain(sig.Commit), sig.Time.Format(time.RFC3339))
			if apply {
				fmt.Fprint(out, restartHint(c.Service.InstallRoot, "Put it on trial with: %s\n"))
			} else {
				fmt.Fprintf(out, "Put it on trial with: edge-agent apply --root %s\n", c.Service.InstallRoot)
			}
			return nil
		},
	}
	f := cmd.Flags()
	f.StringVar(&path, "config", "", "the node's config.toml (required)")
	f.StringVar(&from, "from", "", "directory or tar file of the release (required)")
	f.BoolVar(&apply, "apply", false, "put it on trial at the next start of the service")
	f.BoolVar(&repair, "repair", false, repairHelp)
	f.BoolVar(&accept, "accept", false, acceptHelp)
	return cmd
}

// readAsOwner reads a config.toml as the owner of its directory, and returns as
// the owner of its install root, for good.
func readAsOwner(path string) (config.Settings, error) {
	if err := fsutil.BecomeOwner(filepath.Dir(path)); err != nil {
		return config.Settings{}, err
	}
	c, err := config.Read(path)
	if err != nil {
		return c, err
	}
	return c, fsutil.BecomeOwner(c.Layout.Root())
}

// progress says each phase once, and each tenth of the copy.
func progress(w io.Writer) func(phase string, done, total int64) {
	last := ""
	return func(phase string, done, total int64) {
		line := phase
		if total > 0 {
			line = fmt.Sprintf("%s %d %%", phase, done*10/total*10)
		}
		if line != last {
			last = line
			fmt.Fprintln(w, line)
		}
	}
}
