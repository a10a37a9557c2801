package main

import (
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"strings"
	"time"

	"github.com/bilbycast/edge-agent/cmd/internal/cli"
	packed "github.com/bilbycast/edge-agent/internal/pack"
	"github.com/bilbycast/edge-agent/release"
	"github.com/bilbycast/edge-agent/upgrade"
	"github.com/bilbycast/edge-agent/verify"
	"github.com/spf13/cobra"
)

func newCheckCmd() *cobra.Command {
	row := verify.Signer{Issuer: verify.GitHubIssuer}
	var repository string
	cmd := &cobra.Command{
		Use:   "check --repository OWNER/REPO --workflow PATH DIR",
		Short: "Check a signed release as a node would, before it is published",
		Long: `Check verifies a release as a node would whose agent trusts the signer in the
flags. It verifies the signature in manifest.sig.bundle with Sigstore's trust root,
and the digest, size and chunks of each file. It refuses an archive that no node would
unpack, such as one with a device or a link that leaves it, and compares the files inside
each tar.zst with those inside its tarball: nodes take one or the other. Do not publish a
release that it refuses.`,
		Example: `  release-manifest check --repository acme/edge --workflow .github/workflows/release.yml release`,
		Args:    cli.ExactArgs(1, "repository", "workflow"),
		RunE: func(cmd *cobra.Command, args []string) error {
			row.Repository = "https://github.com/" + repository
			e, err := upgrade.Examine(cmd.Context(), upgrade.Config{Signers: []verify.Signer{row}}, args[0])
			var coded *release.Error
			switch {
			case err != nil:
			case errors.As(e.Refused, &coded) && (coded.Code == release.ArchMismatch || coded.Code == release.VariantMismatch):
				// A release need not have a build for this machine.
			default:
				err = e.Refused
			}
			n := 0
			if err == nil {
				m := e.Release.Manifest()
				n, err = files(args[0], release.BaseURL(e.Release.Signature().Repository, m.Version), m)
			}
			if err != nil {
				return fmt.Errorf("check: DO NOT PUBLISH %s: %w", args[0], err)
			}
			m, s := e.Release.Manifest(), e.Release.Signature()
			_, err = fmt.Fprintf(cmd.OutOrStdout(), "%s is valid: signed by %s at %s, log index %d; %s\n%s\n",
				m.Version, s.Workflow, s.Time.Format(time.RFC3339), s.LogIndex, digests(n), declarations(m))
			return err
		},
	}
	f := cmd.Flags()
	f.StringVar(&repository, "repository", "", "OWNER/REPO on github.com (required)")
	f.StringVar(&row.Workflow, "workflow", "", "path of the signing workflow (required)")
	f.StringVar(&row.Ref, "ref", "refs/tags/v*", "git ref that is built; a star at its end matches any version")
	f.StringVar(&row.RepositoryID, "repository-id", "", "numeric id of the repository")
	f.StringVar(&row.OwnerID, "owner-id", "", "numeric id of the repository's owner")
	return cmd
}

// declarations says what m declares of the release's program.
func declarations(m release.Manifest) string {
	text := "it declares no commands: nodes neither let it check config.toml nor probe with it"
	if len(m.Commands) > 0 {
		text = "it declares the commands: " + strings.Join(m.Commands, ", ")
	}
	if m.FirstStartSecs > 0 {
		text += fmt.Sprintf("; a start may take %v until its health check passes", time.Duration(m.FirstStartSecs)*time.Second)
	}
	return text
}

// digests counts the files with the signed digests, as a sentence.
func digests(n int) string {
	if n == 1 {
		return "1 file has the signed digest"
	}
	return fmt.Sprintf("%d files have the signed digests", n)
}

// files compares every file in dir that m names with its digest, size and chunks, and its URL with
// the release's, which is base. Unlike a node it refuses chunks and formats that are wrong.
func files(dir, base string, m release.Manifest) (n int, err error) {
	for _, a := range m.Artefacts {
		forms, wrong := a.Forms()
		if err := errors.Join(wrong...); err != nil {
			return 0, fmt.Errorf("%s: %w", path.Base(a.URL), err)
		}
		for _, f := range forms {
			if _, err := (release.Artefact{URL: f.URL}).File(base); err != nil {
				return 0, err
			}
			if err := file(dir, f); err != nil {
				return 0, err
			}
			n++
		}
		if err := contents(dir, forms, a.UnpackedSize); err != nil {
			return 0, err
		}
	}
	return n, nil
}

// contents compares the files in the tarball with those in its other formats, and with the
// size that the manifest says. The tarball is the last of forms.
func contents(dir string, forms []release.Form, unpacked int64) error {
	last := len(forms) - 1
	var tarball packed.Listing
	for i := last; i >= 0; i-- {
		name := path.Base(forms[i].URL)
		list, err := packed.List(forms[i].Format, filepath.Join(dir, name), unpacked)
		switch {
		case err != nil:
		case i == last && unpacked > 0 && list.Unpacked != unpacked:
			err = fmt.Errorf("its files have %d bytes, but the signed manifest says %d", list.Unpacked, unpacked)
		case i == last:
			tarball = list
		default:
			err = tarball.Same(list)
		}
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	return nil
}

func file(dir string, f release.Form) error {
	name := path.Base(f.URL)
	sum, size, err := packed.Digest(filepath.Join(dir, name))
	if err != nil {
		return err
	}
	if sum != f.SHA256 || f.Size != 0 && f.Size != size {
		return fmt.Errorf("%s has %d bytes and the SHA-256 %s, but the signed manifest has %d and %s", name, size, sum, f.Size, f.SHA256)
	}
	if f.Chunks == nil {
		return nil
	}
	in, err := os.Open(filepath.Join(dir, name))
	if err != nil {
		return err
	}
	defer in.Close()
	got, err := release.NewChunks(in, f.Chunks.Size)
	if err != nil {
		return err
	}
	for i, sum := range got.SHA256 {
		if i >= len(f.Chunks.SHA256) || sum != f.Chunks.SHA256[i] {
			return fmt.Errorf("chunk %d of %s has the SHA-256 %s, which is not the signed one", i+1, name, sum)
		}
	}
	return nil
}
