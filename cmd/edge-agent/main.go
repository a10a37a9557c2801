// Command edge-agent upgrades the service that it is, or is part of, on word
// of its manager. See the README for how to install it.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/bilbycast/edge-agent/verify"
	"github.com/rs/zerolog"
	"github.com/spf13/cobra"
)

// version is stamped by the build: -ldflags "-X main.version=1.5.0". It is the
// release's version to the letter; a trial is judged by it.
var version = "0.0.0-dev"

// Exit codes. They are stable.
const (
	exitOK     = 0
	exitFailed = 1
	exitUsage  = 2
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	code := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

// usageError is a mistake in the call, as against one in its work.
type usageError struct{ error }

func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	root := newRootCmd()
	root.SetArgs(args)
	root.SetOut(stdout)
	root.SetErr(stderr)
	err := root.ExecuteContext(ctx)
	if err == nil {
		return exitOK
	}
	fmt.Fprintf(stderr, "edge-agent: %v\n", err)
	var usage usageError
	if errors.As(err, &usage) {
		fmt.Fprintf(stderr, "Run 'edge-agent --help' for usage.\n")
		return exitUsage
	}
	return exitFailed
}

func newRootCmd() *cobra.Command {
	root := &cobra.Command{
		Use:   "edge-agent",
		Short: "Upgrade this device on word of its manager, and never lose a working version",
		Long: `edge-agent keeps a WebSocket link to a manager. When an operator there picks a
version, it fetches the signed release, verifies it against the signers that
are compiled in, installs it beside the running one, swaps a link, and lets
systemd start it. A version that does not come up healthy is taken back.

Exit codes: 0 done, 1 failed, 2 wrong usage.`,
		Example: `  edge-agent config check /opt/bilbycast/edge/config.toml
  edge-agent run --config /opt/bilbycast/edge/config.toml
  edge-agent status --root /opt/bilbycast/edge`,
		Version:       version + verify.VersionSuffix,
		SilenceErrors: true,
		SilenceUsage:  true,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 {
				return usageError{fmt.Errorf("no command %q", args[0])}
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error { return cmd.Help() },
	}
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return usageError{err} })
	root.SetVersionTemplate("edge-agent {{.Version}}\n")
	root.AddCommand(newRunCmd(), newWatchdogCmd(), newRescueCmd(), newStatusCmd(), newStageCmd(), newApplyCmd(), newRollbackCmd(), newVersionCmd(), newConfigCmd(), newUnitCmd(), newTrustCmd(), newVerifyCmd(), newDoctorCmd())
	return root
}

// exactArgs is cobra.ExactArgs, and asks for flags that cannot be left out;
// both are usage errors.
func exactArgs(n int, flags ...string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if err := cobra.ExactArgs(n)(cmd, args); err != nil {
			return usageError{err}
		}
		for _, name := range flags {
			if !cmd.Flags().Changed(name) {
				return usageError{fmt.Errorf("--%s is missing; see '%s --help'", name, cmd.CommandPath())}
			}
		}
		return nil
	}
}

// newLogger writes JSON lines, which journald keeps as they are; to a terminal
// it writes text.
func newLogger(w io.Writer, level string) (zerolog.Logger, error) {
	l, err := zerolog.ParseLevel(level)
	if err != nil || level == "" {
		return zerolog.Logger{}, usageError{fmt.Errorf("--log-level %q: use debug, info, warn or error", level)}
	}
	if f, ok := w.(*os.File); ok {
		if st, err := f.Stat(); err == nil && st.Mode()&os.ModeCharDevice != 0 {
			w = zerolog.ConsoleWriter{Out: w, TimeFormat: time.TimeOnly}
		}
	}
	zerolog.TimeFieldFormat = "2006-01-02T15:04:05.000Z07:00"
	zerolog.DurationFieldUnit = time.Second
	return zerolog.New(w).Level(l).With().Timestamp().Logger(), nil
}
