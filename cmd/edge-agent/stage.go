package main

import (
	"fmt"
	"io"
	"path/filepath"
	"time"

	"github.com/bilbycast/edge-agent/agent"
	"github.com/bilbycast/edge-agent/cmd/internal/cli"
	"github.com/bilbycast/edge-agent/fsutil"
	"github.com/bilbycast/edge-agent/install"
	"github.com/spf13/cobra"
)

func newStageCmd() *cobra.Command {
	var config, from string
	var apply bool
	cmd := &cobra.Command{
		Use:   "stage --config FILE --from DIR|FILE.tar",
		Short: "Stage a release from a directory or a tar file, without a network",
		Long: `Stage installs the release in DIR or FILE.tar beside the running version, after
the same checks as an upgrade by the manager: signature, signer, log, channel,
version, digest. It holds manifest.json, manifest.sig.bundle and the tarball,
under the names that the release host gives them. As root it opens the release
first, and then becomes the owner of the install root.

The version then waits for 'edge-agent apply'; with --apply it is on trial at
the next start of the service.`,
		Example: `  edge-agent stage --config /opt/bilbycast/edge/config.toml --from /media/stick/edge-1.5.0.tar
  edge-agent stage --config /opt/bilbycast/edge/config.toml --from /media/stick --apply && systemctl restart edge`,
		Args: cli.ExactArgs(0, "config", "from"),
		RunE: func(cmd *cobra.Command, args []string) error {
			// Root may read what the service's user may not.
			source, err := install.OpenSource(from)
			if err != nil {
				return fmt.Errorf("stage: %w", err)
			}
			defer source.Close()
			c, err := loadAsOwner(config)
			if err != nil {
				return fmt.Errorf("stage: %w", err)
			}
			if c.Log, err = cli.NewLogger(cmd.ErrOrStderr(), "warn"); err != nil {
				return err
			}
			checked, err := agent.Check(c)
			if err != nil {
				return fmt.Errorf("%s: %w", config, err)
			}
			rel, err := agent.StageSource(cmd.Context(), c, source, apply, progress(cmd.ErrOrStderr()))
			if err != nil {
				return fmt.Errorf("stage: %w", err)
			}
			sig := rel.Signature()
			out := cmd.OutOrStdout()
			fmt.Fprintf(out, "%s is staged: signed by %s, of commit %s, at %s\n", rel.Manifest().Version, cli.Plain(sig.Workflow), cli.Plain(sig.Commit), sig.Time.Format(time.RFC3339))
			if apply {
				fmt.Fprint(out, restartHint(checked.Service.InstallRoot, "Put it on trial with: %s\n"))
			} else {
				fmt.Fprintf(out, "Put it on trial with: edge-agent apply --root %s\n", checked.Service.InstallRoot)
			}
			return nil
		},
	}
	f := cmd.Flags()
	f.StringVar(&config, "config", "", "the node's config.toml (required)")
	f.StringVar(&from, "from", "", "directory or tar file of the release (required)")
	f.BoolVar(&apply, "apply", false, "put it on trial at the next start of the service")
	return cmd
}

// loadAsOwner loads a config.toml as the owner of its directory, and returns as
// the owner of its install root, for good.
func loadAsOwner(config string) (agent.Config, error) {
	if err := fsutil.BecomeOwner(filepath.Dir(config)); err != nil {
		return agent.Config{}, err
	}
	c, err := agent.Load(config)
	if err != nil {
		return c, err
	}
	checked, err := agent.Check(c)
	if err != nil {
		return c, fmt.Errorf("%s: %w", config, err)
	}
	return c, fsutil.BecomeOwner(checked.Service.InstallRoot)
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
