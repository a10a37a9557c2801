// Command bench measures upgrades by our agent, by other updaters, and what bounds them.
//
// Everything is measured in one run, interleaved, so that ratios hold on a machine whose
// speed changes. It is a tool of development: nothing here is linked into the agent. A
// row that cannot be measured tells why. It installs no software.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"slices"
	"syscall"
)

// namespaceEnv marks the process that has a mount namespace of its own.
const namespaceEnv = "EDGE_AGENT_BENCH_NAMESPACE"

func main() {
	o, err := parseArgs(os.Args[1:], os.Stderr)
	switch {
	case errors.Is(err, flag.ErrHelp):
		return
	case err != nil:
		os.Exit(2)
	}
	if os.Geteuid() == 0 && os.Getenv(namespaceEnv) == "" {
		if code, ok := inNamespace(); ok {
			os.Exit(code)
		}
	}
	// It leaves nothing behind, also when its terminal is closed or nobody reads its output any more.
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	signal.Notify(make(chan os.Signal, 1), syscall.SIGPIPE) // such a write fails, and does not end the program
	err = run(ctx, o, os.Stdout, watched{os.Stderr, stop})
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// watched calls failed when a write fails.
type watched struct {
	io.Writer
	failed func()
}

func (w watched) Write(b []byte) (int, error) {
	n, err := w.Writer.Write(b)
	if err != nil {
		w.failed()
	}
	return n, err
}

// inNamespace runs this program again in a mount namespace of its own, where it can mount
// disks that nobody else sees. It returns false if there are no namespaces.
func inNamespace() (code int, ok bool) {
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.Env = append(os.Environ(), namespaceEnv+"=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS}
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	if err := cmd.Start(); err != nil {
		return 0, false
	}
	go func() {
		for s := range signals {
			cmd.Process.Signal(s) // twice is harmless
		}
	}()
	cmd.Wait() // its error is the exit status
	if code := cmd.ProcessState.ExitCode(); code >= 0 {
		return code, true
	}
	return 1, true
}

func run(ctx context.Context, o options, out, progress io.Writer) (err error) {
	b, err := start(ctx, o, progress)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, b.close()) }()
	rows, err := b.rows(ctx)
	if err != nil {
		return err
	}
	if name := o.unknown(rows); name != "" {
		return fmt.Errorf("there is no row %q", name)
	}
	rows = b.chosen(rows)
	if err := b.measure(ctx, rows); err != nil {
		return err
	}
	if err := b.cutPower(ctx, rows); err != nil {
		return err
	}
	report := b.report(rows)
	if err := report.write(out); err != nil {
		return err
	}
	if err := report.save(o.json, o.svg); err != nil {
		return err
	}
	if !slices.ContainsFunc(rows, func(r *row) bool { return len(r.runs) > 0 }) {
		return errors.New("no row was measured")
	}
	if o.quick {
		return check(out, rows, b.unpacked, os.Getenv("EDGE_AGENT_NO_SKIP") != "")
	}
	return nil
}
