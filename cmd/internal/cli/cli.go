// Package cli is what the commands of this module share: exit codes, errors of
// usage, logs, and how a command is run.
package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/bilbycast/edge-agent/release"
	"github.com/rs/zerolog"
	"github.com/spf13/cobra"
)

// Exit codes. They are stable. Those from RolledBack on are the outcomes of a
// command that waits.
const (
	OK          = 0
	Failed      = 1
	Misuse      = 2
	RolledBack  = 3
	Refused     = 4 // or failed
	TimedOut    = 5
	Unreachable = 6
)

// usageError is a mistake in the call, as against one in its work.
type usageError struct{ error }

func (e usageError) Unwrap() error { return e.error }

// Usage marks an error as a mistake in the call: the exit code is Misuse.
func Usage(err error) error { return usageError{err} }

// exitError is an error with an exit code of its own.
type exitError struct {
	error
	code int
}

func (e exitError) Unwrap() error { return e.error }

// Exit gives an error an exit code. The outermost code of an error counts.
func Exit(code int, err error) error { return exitError{err, code} }

// Plain returns a text from elsewhere (of a node, a manager, a file) as one line
// that is safe on a terminal: see release.Foreign.
func Plain(s string) string { return release.Foreign(s, maxPlain) }

// PlainLines is Plain for a text of several lines: every line after the first is
// indented, so that none can pass for a line of the program itself.
func PlainLines(s string) string {
	lines := strings.Split(strings.TrimRight(s, "\n"), "\n")
	for i, line := range lines {
		lines[i] = Plain(line)
	}
	return strings.Join(lines, "\n  ")
}

// maxPlain bounds a line, in bytes.
const maxPlain = 2000

// ErrTold is a failure that was printed already.
var ErrTold = errors.New("failed")

const versionFlag = "version"

// Version gives a root command the flag --version. It is not cobra's own, which takes
// a template: see systemd.Unit.
func Version(root *cobra.Command, version string) {
	root.Annotations = map[string]string{versionFlag: version}
	root.Flags().Bool(versionFlag, false, "print the version")
}

// Main runs the command of this process, until SIGTERM or SIGINT, and exits.
func Main(root *cobra.Command) {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	code := Run(ctx, root, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

// Run runs a root command, prints its error, and returns the exit code.
func Run(ctx context.Context, root *cobra.Command, args []string, stdout, stderr io.Writer) int {
	root.SilenceErrors, root.SilenceUsage = true, true
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		if cmd.HasSubCommands() && cmd.Flags().NArg() > 0 { // a flag of the command that is not there
			return noCommand(cmd, cmd.Flags().Arg(0))
		}
		return Usage(err)
	})
	if root.Args == nil {
		root.Args = func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 {
				return noCommand(cmd, args[0])
			}
			return nil
		}
		root.RunE = func(cmd *cobra.Command, args []string) error {
			if asked, err := cmd.Flags().GetBool(versionFlag); err == nil && asked {
				_, err := fmt.Fprintln(cmd.OutOrStdout(), cmd.Name(), cmd.Annotations[versionFlag])
				return err
			}
			return cmd.Help()
		}
	}
	root.SetArgs(args)
	root.SetOut(stdout)
	root.SetErr(stderr)
	err := root.ExecuteContext(ctx)
	if err == nil {
		return OK
	}
	if !errors.Is(err, ErrTold) {
		fmt.Fprintf(stderr, "%s: %s\n", root.Name(), PlainLines(err.Error()))
	}
	if errors.As(err, new(usageError)) {
		fmt.Fprintf(stderr, "Run '%s --help' for usage.\n", root.Name())
		return Misuse
	}
	if coded, ok := errors.AsType[exitError](err); ok {
		return coded.code
	}
	return Failed
}

// console writes records as text that is safe on a terminal: zerolog itself quotes
// some values, and writes others as they are.
func console(w io.Writer) zerolog.ConsoleWriter {
	plain := func(v any) string {
		if v == nil {
			return ""
		}
		return Plain(fmt.Sprintf("%s", v))
	}
	return zerolog.ConsoleWriter{Out: w, TimeFormat: time.TimeOnly, FormatMessage: plain, FormatFieldValue: plain, FormatErrFieldValue: plain}
}

// NewLogger writes JSON lines, which journald keeps as they are; to a terminal
// it writes text.
func NewLogger(w io.Writer, level string) (zerolog.Logger, error) {
	l, err := zerolog.ParseLevel(level)
	if err != nil || level == "" {
		return zerolog.Logger{}, Usage(fmt.Errorf("--log-level %q: use debug, info, warn or error", level))
	}
	if f, ok := w.(*os.File); ok {
		if st, err := f.Stat(); err == nil && st.Mode()&os.ModeCharDevice != 0 {
			w = console(w)
		}
	}
	zerolog.TimeFieldFormat = "2006-01-02T15:04:05.000Z07:00"
	zerolog.DurationFieldUnit = time.Second
	return zerolog.New(w).Level(l).With().Timestamp().Logger(), nil
}
