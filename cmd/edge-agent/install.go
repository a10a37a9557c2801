package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"syscall"
	"time"

	"github.com/bilbycast/edge-agent/cmd/internal/cli"
	"github.com/bilbycast/edge-agent/install"
	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"
)

// workCommand is the command of the child process that becomes the service's user.
const workCommand = "install-work"

func newInstallCmd() *cobra.Command {
	var n install.Node
	cmd := &cobra.Command{
		Use:   "install --device-type TYPE --manager URL --token-file FILE DIR|FILE.tar|URL|VERSION",
		Short: "Install a release on a bare device, and wait until it has registered",
		Long: `Install verifies a release, creates its user, install root, unit and config.toml,
enables and starts the service, and waits until it has registered with its
manager. Run it as root. No part of the release runs before its signature is
verified, and no part of it runs as root. Install a node once: its manager
upgrades it from then on.

Run it again after an interruption, to repair the unit, or to correct --manager,
--token-file, --cert-fingerprint or --ca-file. It writes the new settings to
config.toml, keeps a copy of the old file, and restarts the service. Installed
versions and all other settings stay.

With --manager none the node has no manager: it runs, and an operator upgrades it
with edge-agent stage. Install then waits until the service runs.

An install root that another system left may belong to a user that no longer
exists, or to the user of another program. Install then asks whether to give it
to --user, and without a terminal requires --change-owner. Files of root in it are
given to that user without a question.`,
		Example: `  edge-agent install 1.5.0 --device-type edge --manager wss://manager.example:8443 --token-file token
  edge-agent install /media/stick/edge-1.5.0.tar --device-type edge --manager wss://10.0.0.2:8443 --token-file token --cert-fingerprint 3f...`,
		Args: cli.ExactArgs(1, "device-type"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return runInstall(cmd, &n, "install", func(ctx context.Context) error { return n.Install(ctx, args[0]) })
		},
	}
	f := cmd.Flags()
	nodeFlags(cmd, &n)
	f.StringVar(&n.Manager, "manager", "", "wss:// URL of the manager, or none (required if there is no config.toml yet)")
	f.StringVar(&n.TokenFile, "token-file", "", "file with the registration token; - is standard input (required if there is no config.toml yet, and a manager)")
	f.StringVar(&n.Fingerprint, "cert-fingerprint", "", "SHA-256 of the manager's certificate, in hex, if it is self-signed")
	f.StringVar(&n.CAFile, "ca-file", "", "PEM file of the CA of the manager's certificate, if it is a private CA")
	f.DurationVar(&n.Wait, "wait", 2*time.Minute, "how long to wait for the first registration, like 90s; 0s: do not wait")
	f.Float64Var(&n.RestartSecs, "restart-secs", 0, "seconds between two starts of the service (default 0.1; 1 for the agent of a service.unit)")
	f.BoolVar(&n.ChangeOwner, "change-owner", false, "give an existing install root that belongs to another user to --user, without asking")
	f.StringArrayVar(&n.Environment, "environment", nil, "NAME=VALUE for the service; may be repeated")
	return cmd
}

// nodeFlags adds the flags that install and uninstall share.
func nodeFlags(cmd *cobra.Command, n *install.Node) {
	f := cmd.Flags()
	f.StringVar(&n.DeviceType, "device-type", "", "device type, as in the release's manifest (required)")
	f.StringVar(&n.Name, "name", "", "name of the service (default: the device type)")
	f.StringVar(&n.Root, "root", "", "install root (default: "+install.RootsDir+"/NAME)")
	f.StringVar(&n.User, "user", "", "user that the service runs as, and that owns the install root (default: NAME)")
}

// runInstall checks n, and then calls work.
func runInstall(cmd *cobra.Command, n *install.Node, name string, work func(context.Context) error) error {
	n.Child = []string{"/proc/self/exe", workCommand}
	n.Stdin, n.Out, n.Err = cmd.InOrStdin(), cmd.OutOrStdout(), cmd.ErrOrStderr()
	if in, ok := n.Stdin.(*os.File); ok && n.TokenFile != "-" && isTerminal(in) {
		n.Confirm = func(question string) bool { return confirm(in, n.Err, question) }
	}
	// Other users must be able to read what root writes. Secrets have a mode of their own.
	syscall.Umask(0o022)
	err := n.Check()
	if err == nil {
		err = work(cmd.Context())
	}
	switch {
	case err == nil:
		return nil
	case errors.Is(err, install.ErrReported):
		return errors.Join(cli.ErrPrinted, err)
	case errors.As(err, new(install.UsageError)):
		return cli.Usage(fmt.Errorf("%s: %w", name, err))
	}
	return fmt.Errorf("%s: %w", name, err)
}

// isTerminal reports whether a person can answer on f.
func isTerminal(f *os.File) bool {
	_, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	return err == nil
}

// confirm asks a question, and reports whether the answer is yes.
func confirm(in io.Reader, out io.Writer, question string) bool {
	fmt.Fprintf(out, "%s [y/N] ", cli.PlainLines(question))
	answer, _ := bufio.NewReader(io.LimitReader(in, 100)).ReadString('\n') // no answer is no
	answer = strings.ToLower(strings.TrimSpace(answer))
	return answer == "y" || answer == "yes"
}

func newInstallWorkCmd() *cobra.Command {
	return &cobra.Command{
		Use:    workCommand,
		Short:  "Do the part of install and uninstall that the service's user does",
		Hidden: true,
		Args:   cli.ExactArgs(0),
		RunE: func(cmd *cobra.Command, args []string) error {
			log, err := cli.NewSlog(cmd.ErrOrStderr(), "warn")
			if err != nil {
				return err
			}
			if err := install.Work(cmd.Context(), cmd.InOrStdin(), log, progress(cmd.ErrOrStderr())); err != nil {
				return fmt.Errorf("install: %w", err)
			}
			return nil
		},
	}
}
