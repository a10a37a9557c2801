// Command release-manifest is the publisher's tool: it makes reproducible tarballs and
// the manifest.json to sign, and checks the signed release. packaging/github has the
// workflow that calls it.
package main

import (
	"github.com/bilbycast/edge-agent/cmd/internal/cli"
	"github.com/bilbycast/edge-agent/verify"
	"github.com/spf13/cobra"
)

var version = "0.0.0-dev"

func main() { cli.Main(newRootCmd()) }

func newRootCmd() *cobra.Command {
	root := &cobra.Command{
		Use:   "release-manifest",
		Short: "Make the tarballs and the manifest of a release, and check the signed result",
		Long: `Make a release in three steps: build makes the tarballs and manifest.json, cosign
signs the manifest, and check verifies the result as a node would, before you
publish it.

Exit codes: 0 success, 1 failure, 2 wrong usage.`,
		Example: `  release-manifest build --repository acme/edge --version 1.5.0 --device-type edge --sequence 42 x86_64-linux=dist/amd64
  cosign sign-blob --yes --bundle release/manifest.sig.bundle release/manifest.json
  release-manifest check --repository acme/edge --workflow .github/workflows/release.yml release`,
	}
	cli.Version(root, version+verify.VersionSuffix)
	root.AddCommand(newBuildCmd(), newCheckCmd())
	return root
}
