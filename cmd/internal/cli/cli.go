// Package cli has the parts that all commands of this module share: running a command,
// exit codes, usage errors, safe output and logs.
package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/bilbycast/edge-agent/fsutil"
	"github.com/bilbycast/edge-agent/release"
	"github.com/rs/zerolog"
	"github.com/spf13/cobra"
)

// Exit codes. They are stable. A command that waits returns RolledBack to Unreachable
// as the outcome.
const (
	OK          = 0
	Failed      = 1
	Misuse      = 2
	RolledBack  = 3
	Refused     = 4 // refused or failed
	TimedOut    = 5
	Unreachable = 6
)

// usageError is a mistake in the arguments or flags.
type usageError struct{ error }

func (e usageError) Unwrap() error { return e.error }

// Usage marks an error as a mistake in the arguments or flags: the exit code is Misuse.
func Usage(err error) error { return usageError{err} }

// exitError is an error with its own exit code.
type exitError struct {
	error
	code int
}

func (e exitError) Unwrap() error { return e.error }

// Exit returns err with an exit code. The outermost code of an error is used.
func Exit(code int, err error) error { return exitError{err, code} }

// Plain returns a text from a node, a manager or a file as one line of at most 2000
// bytes that is safe on a terminal: see release.Foreign.
func Plain(s string) string { return release.Foreign(s, maxPlain) }

// PlainLines is Plain for several lines. It indents every line after the first, so that
// none looks like a line of the program itself.
func PlainLines(s string) string {
	lines := strings.Split(strings.TrimRight(s, "\n"), "\n")
	for i, line := range lines {
		lines[i] = Plain(line)
	}
	return strings.Join(lines, "\n  ")
}

// maxPlain bounds a line, in bytes.
const maxPlain = 2000

// ErrPrinted is a failure that the command has already printed: Run prints no error.
var ErrPrinted = errors.New("failed")

const versionFlag = "version"

// Version adds the flag --version to a root command. Cobra's own would link package
// text/template, which makes the program larger.
func Version(root *cobra.Command, version string) {
	root.Annotations = map[string]string{versionFlag: version}
	root.Flags().Bool(versionFlag, false, "print the version")
}

// Main runs the command of this process and exits. SIGTERM and SIGINT end its context.
func Main(root *cobra.Command) {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	code := Run(ctx, root, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

// Run runs a root command, prints its error to stderr, and returns the exit code.
func Run(ctx context.Context, root *cobra.Command, args []string, stdout, stderr io.Writer) int {
	if isService(root, args) {
		survivePipes()
		p := newPatientWriter(stderr)
		defer p.close()
		stderr = p
	}
	root.SilenceErrors, root.SilenceUsage = true, true
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		if cmd.HasSubCommands() && cmd.Flags().NArg() > 0 { // the flag belongs to an unknown command
			return unknownCommand(cmd, cmd.Flags().Arg(0))
		}
		return Usage(err)
	})
	if root.Args == nil {
		root.Args = func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 {
				return unknownCommand(cmd, args[0])
			}
			return nil
		}
		root.RunE = func(cmd *cobra.Command, args []string) error {
			if wanted, err := cmd.Flags().GetBool(versionFlag); err == nil && wanted {
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
	if !errors.Is(err, ErrPrinted) {
		fmt.Fprintf(stderr, "%s: %s\n", root.Name(), PlainLines(fsutil.NameDenial(err).Error()))
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

// console writes log records as text that is safe on a terminal. Zerolog itself quotes
// only some of the values.
func console(w io.Writer) zerolog.ConsoleWriter {
	plain := func(v any) string {
		if v == nil {
			return ""
		}
		return Plain(fmt.Sprintf("%s", v))
	}
	return zerolog.ConsoleWriter{Out: w, TimeFormat: time.TimeOnly, FormatMessage: plain, FormatFieldValue: plain, FormatErrFieldValue: plain}
}

// isTerminal reports whether w is a terminal, or another character device.
func isTerminal(w io.Writer) bool {
	if p, ok := w.(*patientWriter); ok {
		return p.terminal
	}
	f, ok := w.(*os.File)
	if !ok {
		return false
	}
	st, err := f.Stat()
	return err == nil && st.Mode()&os.ModeCharDevice != 0
}

// NewSlog is NewLogger behind the interface that the library's packages take.
func NewSlog(w io.Writer, level string) (*slog.Logger, error) {
	log, err := NewLogger(w, level)
	return slog.New(zerolog.NewSlogHandler(log)), err
}

// NewLogger returns a logger that writes lines of JSON, or text if w is a terminal. An
// unknown level is a usage error.
func NewLogger(w io.Writer, level string) (zerolog.Logger, error) {
	l, err := zerolog.ParseLevel(level)
	if err != nil || level == "" {
		return zerolog.Logger{}, Usage(fmt.Errorf("--log-level %q: use debug, info, warn or error", level))
	}
	if isTerminal(w) {
		w = console(w)
	}
	zerolog.TimeFieldFormat = "2006-01-02T15:04:05.000Z07:00"
	zerolog.DurationFieldUnit = time.Second
	return zerolog.New(w).Level(l).With().Timestamp().Logger(), nil
}
