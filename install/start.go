package install

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"time"

	"github.com/bilbycast/edge-agent/agent"
	"github.com/bilbycast/edge-agent/internal/state"
	"github.com/bilbycast/edge-agent/systemd"
)

// command runs a program of the system, regardless of the caller's PATH. The error has
// the output of the program.
func command(ctx context.Context, args ...string) error {
	cmd := exec.CommandContext(ctx, systemd.Program(args[0]), args[1:]...)
	cmd.Env = append(os.Environ(), "PATH=/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL=C")
	out, err := cmd.CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s: %w %s", strings.Join(args, " "), err, bytes.TrimSpace(out))
	}
	return nil
}

// startingInVain reports whether the service is not up, as systemd tries to start it again and
// again, but not for a trial. Such a start must be repeated with a changed unit: otherwise it continues with the
// next line of the new one, although the watchdog did not run by the old one.
func (n *Node) startingInVain(ctx context.Context, l state.Layout) bool {
	if systemd.Booted() != nil {
		return false
	}
	s, err := systemd.QueryState(ctx, n.service())
	res, readErr := l.Read()
	return err == nil && s.Active != "active" && (readErr != nil || res.State.Status != state.PendingHealth)
}

// start enables and starts the unit, or restarts it with a new configuration.
func (n *Node) start(ctx context.Context, l state.Layout, restart bool) error {
	if err := systemd.Booted(); err != nil {
		return fmt.Errorf("%w; the version, the configuration and the unit are installed, and start with systemd", err)
	}
	for _, args := range [][]string{{"systemctl", "daemon-reload"}, {"systemctl", "enable", "--quiet", "--", n.service()}} {
		if err := command(ctx, args...); err != nil {
			return err
		}
	}
	verb := "start"
	if restart {
		verb = "restart"
		// systemd may merge the restart with one of its own that waits, and would go on counting
		// a crash loop that is over. An error means that there is nothing to clear.
		command(ctx, "systemctl", "reset-failed", "--", n.service())
	}
	if err := command(ctx, "systemctl", verb, "--", n.service()); err != nil {
		return n.explain(ctx, "did not start")
	}
	return nil
}

// explain returns an error with the state of the service, the likely cause, and the last
// lines of its journal.
func (n *Node) explain(ctx context.Context, what string) error {
	var b strings.Builder
	fmt.Fprintf(&b, "%s %s", n.service(), what)
	s, err := stateAtEnd(ctx, n.service())
	if err != nil {
		fmt.Fprintf(&b, ": %v", err)
	} else if why := s.EndReason(); why != "" {
		fmt.Fprintf(&b, ": %s", why)
	} else {
		fmt.Fprintf(&b, ": it is %s (%s)", s.Active, s.Sub)
	}
	lines, err := systemd.Tail(ctx, n.service(), 15)
	if err != nil {
		fmt.Fprintf(&b, "\nits journal cannot be read: %v", err)
	} else if len(lines) > 0 {
		fmt.Fprintf(&b, "\nits last lines in the journal:\n  %s", strings.Join(lines, "\n  "))
	}
	fmt.Fprintf(&b, "\nmore: journalctl -u %s -n 50", n.service())
	return errors.New(b.String())
}

// stateAtEnd returns the state of a unit when a run has ended, for which it waits for at
// most 3 s. While the next run starts, systemd does not tell how the last one ended.
func stateAtEnd(ctx context.Context, unit string) (s systemd.State, err error) {
	deadline := time.Now().Add(3 * time.Second)
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		s, err = systemd.QueryState(ctx, unit)
		if err != nil || s.EndReason() != "" || s.Active != "activating" || time.Now().After(deadline) {
			return s, err
		}
		select {
		case <-ctx.Done():
			return s, nil
		case <-tick.C:
		}
	}
}

// loopPause is how long a service must run whose starts before failed in a row.
const loopPause = 3 * time.Second

// running returns an error unless the service is running, which needs no registration, for
// the reason that node has.
func (n *Node) running(ctx context.Context, node string) error {
	s, err := systemd.QueryState(ctx, n.service())
	if err != nil {
		return err
	}
	if s.Active == "active" && s.CrashLoop(time.Now(), time.Time{}) {
		// The restarts may be those before this start: systemd can take it for the next one of
		// the row, and then it goes on counting.
		before := s.Restarts
		select {
		case <-ctx.Done():
		case <-time.After(loopPause):
		}
		if s, err = systemd.QueryState(ctx, n.service()); err != nil {
			return err
		}
		if s.Restarts != before {
			return n.explain(ctx, "does not run")
		}
	}
	if s.Active != "active" {
		return n.explain(ctx, "does not run")
	}
	n.report("%s; %s is running", node, n.service())
	return nil
}

// await waits until the node has registered, and prints what the service reports. If the
// node does not register, await prints doctor's problems and returns an error.
func (n *Node) await(ctx context.Context, l state.Layout) error {
	if n.Wait == 0 {
		n.report("started %s, which registers on its own", n.service())
		return nil
	}
	waiting, cancel := context.WithTimeout(ctx, n.Wait)
	defer cancel()
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	var last systemd.State
	for {
		if _, err := os.Lstat(l.CredentialsFile()); err == nil {
			n.report("registered with the manager, which can upgrade this node from now on")
			return nil
		}
		if s, err := systemd.QueryState(waiting, n.service()); err == nil {
			if s.Text != last.Text && s.Text != "" {
				n.report("%s: %s", n.Name, s.Text)
			}
			last = s
			if s.Active == "failed" || strings.HasPrefix(s.Sub, "auto-restart") && s.Restarts >= 2 {
				return n.explain(ctx, "does not run")
			}
		}
		select {
		case <-waiting.Done():
			if ctx.Err() != nil {
				return ctx.Err()
			}
			return n.unregistered(ctx, l, last)
		case <-tick.C:
		}
	}
}

// unregistered returns an error that explains why the node has not registered in time.
// This process must end afterwards, since Doctor gives up root.
func (n *Node) unregistered(ctx context.Context, l state.Layout, s systemd.State) error {
	why := s.Text
	if c, ok := agent.ParseConnection(s.Text); ok && !c.Connected {
		why = c.Problem
	}
	for _, f := range Doctor(ctx, l.ConfigFile()) {
		if !f.OK {
			n.report("FIX   %s: %s", f.What, f.Problem)
		}
	}
	return fmt.Errorf("the node has not registered within %s: %s\nit keeps trying; correct --manager, --token-file, --cert-fingerprint or --ca-file and run this again; more: journalctl -u %s -n 50", n.Wait, why, n.service())
}
