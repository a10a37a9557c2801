package cli

import (
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/spf13/cobra"
)

// serviceKey is the annotation of a command that systemd runs.
const serviceKey = "service"

// Service marks a command that systemd runs, and returns it. Whatever happens to the log
// of such a command neither ends nor delays it: a journal that is gone costs lines.
func Service(cmd *cobra.Command) *cobra.Command {
	if cmd.Annotations == nil {
		cmd.Annotations = map[string]string{}
	}
	cmd.Annotations[serviceKey] = ""
	return cmd
}

// isService reports whether args run a command that Service marked.
func isService(root *cobra.Command, args []string) bool {
	cmd, _, err := root.Find(args)
	if err != nil {
		return false
	}
	_, ok := cmd.Annotations[serviceKey]
	return ok
}

// survivePipes makes a write to a stdout or stderr that nobody reads an error. Otherwise
// Go ends the process by SIGPIPE, which systemd takes for a clean exit.
func survivePipes() { signal.Notify(make(chan os.Signal, 1), syscall.SIGPIPE) }

const (
	// maxPending is how many lines wait for a log that accepts none.
	maxPending = 1000
	// flushTime is how long the end of a process waits for them.
	flushTime = 200 * time.Millisecond
)

// patientWriter writes in the background. Write never blocks and never fails: while w
// accepts nothing, up to maxPending writes wait, and the later ones are dropped.
type patientWriter struct {
	terminal bool // of w
	lines    chan []byte
	dropped  atomic.Int64
	closed   atomic.Bool
	done     chan struct{}
}

func newPatientWriter(w io.Writer) *patientWriter {
	p := &patientWriter{terminal: isTerminal(w), lines: make(chan []byte, maxPending), done: make(chan struct{})}
	go func() {
		defer close(p.done)
		for b := range p.lines {
			if b == nil {
				return
			}
			// An error has nowhere to go: the log is what fails.
			w.Write(b)
			if n := p.dropped.Swap(0); n > 0 {
				fmt.Fprintf(w, `{"level":"warn","dropped":%d,"message":"log lines dropped: the log accepted none"}`+"\n", n)
			}
		}
	}()
	return p
}

func (p *patientWriter) Write(b []byte) (int, error) {
	if p.closed.Load() {
		return len(b), nil
	}
	select {
	case p.lines <- slices.Clone(b):
	default:
		p.dropped.Add(1)
	}
	return len(b), nil
}

// close waits until every line is written, for about flushTime at most. Later lines are
// dropped.
func (p *patientWriter) close() {
	if p.closed.Swap(true) {
		return
	}
	select {
	case p.lines <- nil: // the end
	case <-time.After(flushTime):
		return
	}
	select {
	case <-p.done:
	case <-time.After(flushTime):
	}
}
