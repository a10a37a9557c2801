// Command edge-agent runs the upgrades that a manager requests, for the service
// that links it or for one beside it. See docs/install.md for how to install it.
package main

import (
	"os"
	"slices"

	"github.com/bilbycast/edge-agent/cmd/internal/cli"
	"github.com/bilbycast/edge-agent/internal/footprint"
	"github.com/bilbycast/edge-agent/verify"
	"github.com/spf13/cobra"
)

// version is stamped by the build: -ldflags "-X main.version=1.5.0". It is the
// release's version to the letter; a trial is judged by it.
var version = "0.0.0-dev"

func main() {
	// A start of the agent collects little: Tune follows. systemd waits for the others before each
	// start.
	quick := len(os.Args) > 1 && slices.Contains([]string{"run", "watchdog", "rescue", "version"}, os.Args[1])
	if !quick {
		footprint.Tune()
	}
	cli.Main(newRootCmd())
}

func newRootCmd() *cobra.Command {
	root := &cobra.Command{
		Use:   "edge-agent",
		Short: "Upgrade this device as its manager requests, and always keep a working version",
		Long: `edge-agent keeps a WebSocket link to a manager. When an operator there picks a
version, it fetches the signed release, verifies it against the signers that
are compiled in, installs it beside the running one, swaps a link, and lets
systemd start it. A version that does not prove healthy is rolled back.

Exit codes: 0 done, 1 failed, 2 wrong usage. 'config check' and 'probe' also have 3.`,
		Example: `  edge-agent config check /opt/bilbycast/edge/config.toml
  edge-agent run --config /opt/bilbycast/edge/config.toml
  edge-agent status --root /opt/bilbycast/edge`,
	}
	cli.Version(root, version+verify.VersionSuffix)
	for _, g := range []struct {
		id, title string
		commands  []*cobra.Command
	}{
		{"device", "On the device:", []*cobra.Command{newInstallCmd(), newUninstallCmd(), newStatusCmd(), newDoctorCmd(), newProbeCmd(), newConfigCmd(), newUnitCmd()}},
		{"release", "Releases:", []*cobra.Command{newStageCmd(), newApplyCmd(), newAcceptCmd(), newDiscardCmd(), newRollbackCmd(), newVerifyCmd()}},
		{"trust", "Trust:", []*cobra.Command{newTrustCmd()}},
		{"service", "For the service itself, as its unit calls them:", []*cobra.Command{newRunCmd(), newWatchdogCmd(), newRescueCmd()}},
	} {
		root.AddGroup(&cobra.Group{ID: g.id, Title: g.title})
		for _, c := range g.commands {
			c.GroupID = g.id
			root.AddCommand(c)
		}
	}
	root.AddCommand(newVersionCmd(), newInstallWorkCmd(), newRestartCmd())
	return root
}
