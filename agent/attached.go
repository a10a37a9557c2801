package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/bilbycast/edge-agent/config"
	"github.com/bilbycast/edge-agent/internal/state"
	"github.com/bilbycast/edge-agent/release"
	"github.com/bilbycast/edge-agent/stage"
	"github.com/bilbycast/edge-agent/trial"
)

// Unit is the service that an attached agent upgrades, as systemd sees it
// (systemd.Attached). An error with a method Timeout that returns true means that systemd
// did not answer in time.
type Unit interface {
	// Fit returns why an upgrade could not be tried or rolled back, or nil.
	Fit(ctx context.Context) error
	// Restart asks systemd to end a start of the unit, and to start it again through
	// current. It does not wait, and does nothing once that start is over. again means that
	// an earlier request left the unit stopped, so that it must be started.
	Restart(ctx context.Context, start string, again bool) error
	// Look returns how the unit is.
	Look(ctx context.Context) (trial.Service, error)
	// Older says which process of an earlier start still runs; "": none that is known.
	Older(ctx context.Context) (string, error)
	// LastEnd returns how the start before the given one ended; "" if that is unknown.
	LastEnd(ctx context.Context, start string) string
	// StoppedBy says why the unit, which is stopped, was not started; "" if that is unknown.
	StoppedBy(ctx context.Context) string
	// Journal returns the last lines of the start before the one that runs.
	Journal(ctx context.Context) ([]string, error)
}

// attached is one version of the service beside the agent.
type attached struct {
	Unit
	began time.Time  // Attend
	mu    sync.Mutex // the trial, and the session for a health message, look at the same time
	start string     // at the last look
	since time.Time  // when a look first saw start
	// stale is the start that ran when an operator pointed current to this version, and ended
	// the one in which the agent set current back; or "".
	stale, ended string
}

// look is Look, for at most ten seconds. It remembers the start.
func (u *attached) look(ctx context.Context) (trial.Service, error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	unit, err := u.Look(ctx)
	if err != nil {
		return unit, err
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.start != unit.Invocation {
		u.start, u.since = unit.Invocation, time.Now()
	}
	return unit, nil
}

// Attend serves the manager until ctx is done, for a service that does not link this
// package: c.Service.Unit, in any language. It differs from Agent.Run in this:
//
//   - the manager is told the version that current points to, which changes without
//     a restart of the agent;
//   - after a swap Attend asks systemd to restart the unit; the watchdog, in the unit's
//     ExecCondition, counts the start, and Attend one that no watchdog counted. If nothing
//     restarts the unit within a window, Attend takes the swap back;
//   - a version on trial is kept when its unit stays up in one start and its [health]
//     passes until the end of the window. If the check fails in two rounds after that,
//     Attend asks for the end of the start, which counts;
//   - what the check cannot tell leaves the version unproven: it serves, and the previous
//     version stays the way back.
//
// It ignores o.Version, o.CheckUnit and o.Journal. A failed trial is no error; another
// agent on the same install root is one, and a request for a restart that nothing serves:
// then systemd must start the agent again, and with it what serves requests.
func Attend(ctx context.Context, c config.Config, o Options, u Unit) error {
	tell := o.Notify
	if tell == nil {
		return fmt.Errorf("config: %w", config.NewError("Options.Notify", " is not set"))
	}
	// The agent itself is never on trial: it is ready until it stops.
	o.Notify = func(s string) error {
		if strings.HasPrefix(s, "STATUS=") || s == "WATCHDOG=1" {
			return tell(s)
		}
		return nil
	}
	o.CheckUnit, o.Journal = u.Fit, u.Journal
	ready, stale, ended, began := false, "", "", time.Now()
	pause := time.Duration(0) // after a short run
	var held *hold
	var calls *callbacks
	notify := func(s string) error { return notifyBy(calls.notify, tell, s) }
	for {
		a, err := newAttached(c, o, u)
		if err != nil {
			return err
		}
		if calls == nil {
			calls = a.calls
		}
		a.calls = calls
		if held == nil {
			if held, err = holdRoot(ctx, a.c.Layout, a.log); err != nil {
				if ctx.Err() != nil {
					return nil
				}
				return err
			}
			defer held.release()
		}
		a.hold, a.attached.stale, a.attached.ended, a.attached.began = held, stale, ended, began
		if !ready {
			ready = true
			untilTold, told := context.WithCancel(ctx)
			defer told()
			tellReady(untilTold, notify, a.log)
		}
		run := time.Now()
		err = a.run(ctx)
		stale, ended = "", ""
		switch {
		case ctx.Err() != nil:
			if err := notify("STOPPING=1"); err != nil {
				a.log.Warn("systemd was not notified", "error", err)
			}
			a.log.Info("agent stopped")
			return nil
		case errors.Is(err, errCurrentMoved): // the watchdog, this agent or an operator moved it
			stale, ended = a.attached.staleStart(), a.attached.ended
			if pause = min(2*pause+time.Second, longestPause); time.Since(run) >= shortRun {
				pause = 0
			}
			rest(ctx, pause, notify)
		case errors.Is(err, ErrRestart):
		default:
			return err
		}
	}
}

// Something may move current again and again. After a run that is shorter than shortRun the
// agent rests, for longestPause at most.
const (
	shortRun     = 10 * time.Second
	longestPause = time.Minute
)

// tellReady sends READY=1 until systemd has it: without that it ends the agent. Nobody waits for it
// after the first attempt.
func tellReady(ctx context.Context, notify func(string) error, log *slog.Logger) {
	err := notify("READY=1")
	if err == nil {
		return
	}
	log.Warn("systemd was not notified", "error", err)
	go func() {
		tick := time.NewTicker(notifyPause)
		defer tick.Stop()
		for err != nil {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
				err = notify("READY=1")
			}
		}
	}()
}

// rest waits for pause. Meanwhile the agent does not hang, as systemd's watchdog could think.
func rest(ctx context.Context, pause time.Duration, notify func(string) error) {
	for end := time.Now().Add(pause); ctx.Err() == nil && time.Now().Before(end); {
		notify("WATCHDOG=1")
		select {
		case <-ctx.Done():
		case <-time.After(min(time.Second/2, time.Until(end))):
		}
	}
}

// newAttached returns the Agent for the version that current points to now.
func newAttached(c config.Config, o Options, u Unit) (*Agent, error) {
	if c.Service.Unit == "" {
		return nil, fmt.Errorf("config: %w", config.NewError("service.unit", " is missing"))
	}
	o.Version = "" // the service has its own, the one that current points to
	r, err := resolve(c, o)
	if err != nil {
		return nil, fmt.Errorf("config: %w", err)
	}
	if res, err := r.Layout.Read(); err == nil && !res.Tree.Current.IsZero() {
		o.Version = res.Tree.Current.String()
	} else if t, e := r.Layout.Tree(); err != nil && e == nil && !t.Current.IsZero() { // state.json cannot be read
		o.Version = t.Current.String()
	}
	o.CheckVersion = checksFirstStart(r.Layout, u, o.CheckVersion)
	a, err := New(c, o)
	if err != nil {
		return nil, err
	}
	a.attached = &attached{Unit: u}
	return a, nil
}

// checksFirstStart returns check, which looks at a staged version in its directory, and
// refuses one whose first start may take longer than the unit allows.
func checksFirstStart(l state.Layout, u Unit, check func(context.Context, string) error) func(context.Context, string) error {
	return func(ctx context.Context, dir string) error {
		if check != nil {
			if err := check(ctx, dir); err != nil {
				return err
			}
		}
		v, err := release.ParseVersion(filepath.Base(dir))
		if err != nil {
			return nil // no directory of a version
		}
		unit, err := u.Look(ctx)
		if err != nil {
			return nil // a question without an answer refuses nothing
		}
		if first := stage.FirstStartOf(l, v); unit.StartLimit > 0 && first > unit.StartLimit {
			return fmt.Errorf("its first start may take %v (first_start_secs), and systemd ends a start after %v: set TimeoutStartSec=%d or more in the unit, then run systemctl daemon-reload",
				first, unit.StartLimit, int(first.Seconds()))
		}
		return nil
	}
}

// errCurrentMoved ends the run of a version that current no longer points to.
var errCurrentMoved = errors.New("current points to another version")

// watchCurrent returns errCurrentMoved when current points to another version than at
// the start of this run, or the same one is on trial again, in another trial than that: the
// watchdog rolled back, or an operator did something.
func (a *Agent) watchCurrent(ctx context.Context, trial string) error {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	l := a.c.Layout
	var written time.Time // state.json, when it was read last
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-a.swapped: // by this agent itself
			return nil
		case <-tick.C:
		}
		t, err := l.Tree()
		if err != nil || t.Current.IsZero() {
			continue
		}
		if t.Current == a.c.version {
			st, err := os.Lstat(l.StateFile())
			if err != nil || st.ModTime().Equal(written) {
				continue
			}
			res, err := l.Read()
			if err != nil {
				continue
			}
			if written = st.ModTime(); res.State.Status != state.PendingHealth || res.State.TrialID == trial {
				continue
			}
		}
		if a.swaps(t.Current) { // swapped is closed in a moment
			continue
		}
		select {
		case <-a.swapped:
			return nil
		default:
		}
		a.log.Info("current points to another version, or to one that is on trial again", "from", a.c.version.String(), "to", t.Current.String())
		return errCurrentMoved
	}
}
