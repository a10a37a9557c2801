// Package daemon makes a program a service that its manager upgrades. Main runs the commands
// that systemd, operators and other versions run:
//
//	func main() {
//		daemon.Main(daemon.Options{
//			Name:  "player",
//			Agent: agent.Options{Version: version, Signers: signers, Serve: serve},
//		})
//	}
//
//	func serve(ctx context.Context, a *agent.Agent) error {
//		... // open what the service needs
//		a.Ready()
//		... // serve until ctx is done
//	}
//
// The agent runs before Serve is called, so that whatever fails in Serve is reported and can be
// repaired by a release. Do in Serve, and not before Main, what can fail.
//
// A program with a command line of its own calls Command, and then parses what is not for this package.
package daemon

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/bilbycast/edge-agent/agent"
	"github.com/bilbycast/edge-agent/config"
	"github.com/bilbycast/edge-agent/internal/safelog"
	"github.com/bilbycast/edge-agent/internal/state"
	"github.com/bilbycast/edge-agent/systemd"
	"github.com/bilbycast/edge-agent/verify"
)

// Exit codes.
const (
	exitFailed = 1
	exitUsage  = 2
	exitWarns  = 3 // of config check: a registered node runs, and ignores some of the file
)

// Options describe a service.
type Options struct {
	// Name is the program's name; "": the file name of os.Args[0].
	Name string
	// Agent holds the options of the agent; Version is required. Run sets Warnings, and what is
	// nil of Notify, CheckUnit, CheckVersion, CheckRestart and Journal, by package systemd. Where Log is nil,
	// it logs lines of JSON to standard error.
	Agent agent.Options
	// Open reads the configuration that `run --config` and `probe --config` name; nil:
	// config.Open. See config.OpenWith for a file of the service's own. An error ends the program.
	Open config.Opener
	// Flags are further flags of `run`, which it parses before Serve is called; nil: none. One
	// named config is refused: that is the daemon's own.
	Flags *flag.FlagSet
}

// Main runs the command that os.Args name, and ends the process. It ends it with 0 if the
// command succeeded or the service is to restart, 1 if it failed, and 2 if the arguments are
// wrong; `config check` also with 3. SIGTERM and SIGINT end the command.
func Main(o Options) {
	// A journal that is gone ends no process: without this, Go ends it by SIGPIPE, which
	// systemd takes for a clean exit.
	signal.Notify(make(chan os.Signal, 1), syscall.SIGPIPE)
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	err := Command(ctx, o, os.Args[1:], os.Stdout)
	stop()
	code := ExitCode(err)
	if code != 0 && err != errNothingToRepeat {
		fmt.Fprintf(os.Stderr, "%s: %v\n", cmp.Or(o.Name, filepath.Base(os.Args[0])), err)
	}
	os.Exit(code)
}

// ExitCode returns the exit code of a process in which Command returned err.
func ExitCode(err error) int {
	if e := (*exit)(nil); errors.As(err, &e) {
		return e.code
	}
	return agent.ExitCode(err)
}

// errNothingToRepeat answers systemd, and nobody reads its text.
var errNothingToRepeat = &exit{errors.New("no start must be repeated"), exitFailed}

// exit is an error with an exit code.
type exit struct {
	error
	code int
}

func (e *exit) Unwrap() error { return e.error }

// ErrUnknownCommand is wrapped by the error of Command if it does not know the first argument.
var ErrUnknownCommand = errors.New("unknown command")

// Command runs one of:
//
//	version                        print the name and the version
//	run --config FILE              serve; ExecStart= of the unit
//	watchdog --root DIR            count this start, or roll back; ExecStartPre= of the unit
//	watchdog --root DIR --before UNIT, --after UNIT    the same, in the units beside it
//	rescue --root DIR              repair a missing current link; ExecStartPre= of the unit
//	probe --config FILE            test the link to the manager
//	config check FILE              check a configuration
//
// args begins with the command. The error of an unknown one wraps ErrUnknownCommand. ExitCode
// returns the exit code.
func Command(ctx context.Context, o Options, args []string, out io.Writer) error {
	if o.Agent.Log == nil {
		o.Agent.Log = slog.New(slog.NewJSONHandler(os.Stderr, nil))
	}
	o.Agent.Log = safelog.New(o.Agent.Log)
	o.Name = cmp.Or(o.Name, filepath.Base(os.Args[0]))
	word := ""
	if len(args) > 0 {
		word, args = args[0], args[1:]
	}
	switch word {
	case "version", "--version":
		_, err := fmt.Fprintf(out, "%s %s%s\n", o.Name, o.Agent.Version, verify.VersionSuffix)
		return err
	case "run":
		return run(ctx, o, args)
	case "watchdog", "rescue":
		return aroundStart(ctx, o, word, args)
	case "probe":
		err := agent.ProbeCommand(ctx, o.Agent.Version, o.Open, args, out)
		if errors.Is(err, agent.ErrUsage) {
			return &exit{err, exitUsage}
		}
		return err
	case "config":
		return configCheck(o, args, out)
	case "help", "--help", "-h":
		_, err := io.WriteString(out, usage(o))
		return err
	}
	return &exit{fmt.Errorf("%w %q\n%s", ErrUnknownCommand, word, usage(o)), exitUsage}
}

func usage(o Options) string {
	text := strings.ReplaceAll(`usage:
  NAME run --config FILE            serve
  NAME version                      print the version
  NAME probe --config FILE          test the link to the manager
  NAME config check FILE            check a configuration, and change nothing
  NAME watchdog --root DIR          count this start, or roll back (run by systemd)
  NAME rescue --root DIR            repair a missing current link (run by systemd)
`, "NAME", o.Name)
	if o.Flags == nil {
		return text
	}
	var b strings.Builder
	b.WriteString(text + "flags of run:\n")
	before := o.Flags.Output()
	o.Flags.SetOutput(&b)
	o.Flags.PrintDefaults()
	o.Flags.SetOutput(before)
	return b.String()
}

// parse parses flags that are all for one command.
func parse(o Options, flags *flag.FlagSet, args []string, need ...string) error {
	flags.SetOutput(io.Discard) // the error says what is wrong
	err := flags.Parse(args)
	if err == nil && flags.NArg() > 0 {
		err = fmt.Errorf("unexpected argument %q", flags.Arg(0))
	}
	for _, name := range need {
		if f := flags.Lookup(name); err == nil && f.Value.String() == "" {
			err = fmt.Errorf("--%s is missing", name)
		}
	}
	if err != nil {
		return &exit{fmt.Errorf("%w\n%s", err, usage(o)), exitUsage}
	}
	return nil
}

// run serves.
func run(ctx context.Context, o Options, args []string) error {
	flags := flag.NewFlagSet("run", flag.ContinueOnError)
	path := flags.String("config", "", "")
	if o.Flags != nil {
		if o.Flags.Lookup("config") != nil { // flag panics
			return errors.New("daemon: Options.Flags has a flag named config, which is the daemon's own: give it another name")
		}
		o.Flags.VisitAll(func(f *flag.Flag) { flags.Var(f.Value, f.Name, f.Usage) })
	}
	if err := parse(o, flags, args, "config"); err != nil {
		return err
	}
	c, warnings, err := o.Open.Open(*path)
	if err != nil {
		return err
	}
	unit := systemd.Service{Layout: c.Layout, Binary: c.Service.Binary, Config: *path, Window: c.Window, Drain: c.DrainTime}
	a := o.Agent
	a.Warnings = warnings
	if a.Notify == nil {
		a.Notify = systemd.Notify
	}
	if a.CheckUnit == nil {
		a.CheckUnit = unit.FitSelf
	}
	if a.CheckVersion == nil {
		a.CheckVersion = unit.FitVersionSelf
	}
	if a.CheckRestart == nil {
		a.CheckRestart = unit.FitRestart
	}
	if a.Journal == nil {
		a.Journal = systemd.LastLines
	}
	s, err := agent.New(c.Config, a)
	if err != nil {
		return err
	}
	return s.Run(ctx)
}

// aroundStart runs what systemd runs before and after a start.
func aroundStart(ctx context.Context, o Options, command string, args []string) error {
	flags := flag.NewFlagSet(command, flag.ContinueOnError)
	root := flags.String("root", "", "")
	before, after := new(string), new(string)
	if command == "watchdog" {
		flags.StringVar(before, "before", "", "")
		flags.StringVar(after, "after", "", "")
	}
	if err := parse(o, flags, args, "root"); err != nil {
		return err
	}
	l, err := state.At(*root)
	if err == nil && *before != "" && *after != "" {
		err = errors.New("--before and --after exclude each other")
	}
	if err != nil {
		return &exit{err, exitUsage}
	}
	if command == "rescue" {
		Rescue(ctx, l, o.Agent.Log)
	} else if again := Watchdog(ctx, l, *before, *after, o.Agent.Log); *after != "" && !again {
		return errNothingToRepeat
	}
	return nil
}

// configCheck checks a configuration.
func configCheck(o Options, args []string, out io.Writer) error {
	if len(args) != 2 || args[0] != "check" || slices.Contains(args, "") {
		return &exit{errors.New("use: config check FILE"), exitUsage}
	}
	path, err := filepath.Abs(args[1])
	if err != nil {
		return err
	}
	c, warnings, err := o.Open.Open(path)
	if err != nil {
		return err
	}
	a := o.Agent
	a.Notify = func(string) error { return nil }
	if _, err := agent.New(c.Config, a); err != nil {
		return err
	}
	if warnings.Withhold != "" {
		return fmt.Errorf("%s: %s", path, warnings.Withhold)
	}
	var texts []string
	for _, w := range warnings.List {
		texts = append(texts, w.String())
	}
	if len(texts) > 0 {
		return &exit{fmt.Errorf("%s: %s", path, strings.Join(texts, "; ")), exitWarns}
	}
	_, err = fmt.Fprintf(out, "%s is good\n", path)
	return err
}
