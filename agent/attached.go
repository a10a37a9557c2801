package agent

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/bilbycast/edge-agent/config"
	"github.com/bilbycast/edge-agent/release"
	"github.com/bilbycast/edge-agent/state"
)

// Unit is the service that an attached agent upgrades, as systemd sees it
// (systemd.Attached).
type Unit interface {
	// Fit returns why an upgrade could not be tried or rolled back, or nil.
	Fit(ctx context.Context) error
	// Restart asks systemd to restart the unit, through current, and does not
	// wait for it. Asking twice restarts it once or twice.
	Restart(ctx context.Context) error
	// Active returns the id of the start that runs; each start has another one. If the
	// unit is not up, the error says why; it wraps ErrStopped if an operator stopped it.
	Active(ctx context.Context) (start string, err error)
	// Journal returns the last lines of the start before the one that runs.
	Journal(ctx context.Context) ([]string, error)
}

// ErrStopped reports that an operator stopped the service, which says nothing about
// its health.
var ErrStopped = errors.New("it is stopped")

// attached is one version of the service beside the agent.
type attached struct {
	Unit
	mu    sync.Mutex // the trial, and the session for a health message, check at the same time
	start string     // at the last check
	since time.Time  // when a check first saw start
	// stale is the start that ran when an operator pointed current to this version, or "".
	stale string
}

// Attend serves the manager until ctx is done, for a service that does not link this
// package: c.Service.Unit, in any language. It differs from Agent.Run in this:
//
//   - the manager is told the version that current points to, which changes without
//     a restart of the agent;
//   - after a swap Attend restarts the unit; the watchdog, in the unit's
//     ExecCondition, counts the start;
//   - a version on trial is healthy when its unit stays up in one start and its
//     [health] passes. If it is not healthy within the window, Attend restarts it,
//     which counts;
//   - if the watchdog does not count, Attend rolls back after as many windows as
//     there are starts.
//
// It ignores o.Version, o.CheckUnit and o.Journal. A failed trial is no error; another
// agent on the same install root is one.
func Attend(ctx context.Context, c config.Config, o Options, u Unit) error {
	notify := o.Notify
	if notify == nil {
		return errors.New("config: Options.Notify is not set")
	}
	// The agent itself is never on trial: it is ready until it stops.
	o.Notify = func(s string) error {
		if strings.HasPrefix(s, "STATUS=") || s == "WATCHDOG=1" {
			return notify(s)
		}
		return nil
	}
	o.CheckUnit, o.Journal = u.Fit, u.Journal
	ready, stale := false, ""
	var held *hold
	var judged release.Version // of which failures are counted
	for failures := 0; ; {
		a, err := newAttached(c, o, u)
		if err != nil {
			return err
		}
		if a.c.version != judged {
			judged, failures = a.c.version, 0
		}
		if held == nil {
			if held, err = holdRoot(ctx, a.c.Layout, a.log); err != nil {
				if ctx.Err() != nil {
					return nil
				}
				return err
			}
			defer held.release()
		}
		a.hold, a.attached.stale = held, stale
		if !ready {
			if err := notify("READY=1"); err != nil {
				a.log.Warn().Err(err).Msg("systemd was not notified")
			}
			ready = true
		}
		err = a.run(ctx)
		stale = ""
		switch {
		case ctx.Err() != nil:
			if err := notify("STOPPING=1"); err != nil {
				a.log.Warn().Err(err).Msg("systemd was not notified")
			}
			a.log.Info().Msg("agent stopped")
			return nil
		case errors.Is(err, errCurrentMoved): // the watchdog or the operator starts the unit
			failures = 0
			stale = a.attached.staleStart()
			continue
		case errors.Is(err, errSwapped):
			failures = 0
		default:
			failures++
			a.log.Error().Err(err).Int("windows", failures).Msg("restarting the new version")
			if failures > a.c.Upgrade.MaxBootAttempts {
				a.revert(ctx, failures)
			}
		}
		a.restart(ctx)
	}
}

// newAttached returns the Agent for the version that current points to now.
func newAttached(c config.Config, o Options, u Unit) (*Agent, error) {
	if c.Service.Unit == "" {
		return nil, errors.New("config: service.unit is missing")
	}
	o.Version = "" // the service has its own, the one that current points to
	r, err := resolve(c, o)
	if err != nil {
		return nil, fmt.Errorf("config: %w", err)
	}
	if res, err := r.Layout.Read(); err == nil && !res.Tree.Current.IsZero() {
		o.Version = res.Tree.Current.String()
	}
	a, err := New(c, o)
	if err != nil {
		return nil, err
	}
	a.attached = &attached{Unit: u}
	return a, nil
}

// revert rolls this version back if the watchdog does not count.
func (a *Agent) revert(ctx context.Context, windows int) {
	a.record(ctx, "the rollback", func(s state.State, t state.Tree, now time.Time) (state.State, state.Tree, error) {
		if s.Target == a.c.version { // else an operator chose another version, which had no window
			s, t = state.Revert(s, t, fmt.Sprintf("%s did not prove healthy in %d windows", s.Target, windows), now)
		}
		return s, t, nil
	}, nil)
}

// restart asks systemd to restart the unit. If that fails, the next window ends with
// another attempt.
func (a *Agent) restart(ctx context.Context) {
	a.log.Info().Str("unit", a.c.Service.Unit).Msg("restarting the service")
	if err := a.attached.Restart(ctx); err != nil {
		a.log.Error().Err(err).Str("unit", a.c.Service.Unit).Msg("the service was not restarted")
		select {
		case <-ctx.Done():
		case <-time.After(recordPause):
		}
	}
}

// check returns an error unless the unit is up, in a start that the watchdog has
// counted, and in the same one as at the check before.
func (u *attached) check(ctx context.Context, l state.Layout) error {
	start, err := u.Active(ctx)
	if err != nil {
		return err
	}
	res, err := l.Read()
	var refused *release.Error
	if err != nil && !errors.As(err, &refused) {
		return err
	}
	if res.State.Status == state.PendingHealth && res.State.BootAttempts == 0 {
		return errors.New("the service was not started since the swap, or the watchdog did not count the start")
	}
	u.mu.Lock()
	before := u.start
	if u.start = start; before != start {
		u.since = time.Now()
	}
	u.mu.Unlock()
	if before != "" && before != start {
		return errors.New("the service was restarted")
	}
	return nil
}

// errCurrentMoved ends the run of a version that current no longer points to.
var errCurrentMoved = errors.New("current points to another version")

// watchCurrent returns errCurrentMoved when current points to another version than at
// the start of this run: the watchdog rolled back, or an operator changed the link.
func (a *Agent) watchCurrent(ctx context.Context) error {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-a.swapped: // by this agent itself
			return nil
		case <-tick.C:
		}
		t, err := a.c.Layout.Tree()
		if err != nil || t.Current.IsZero() || t.Current == a.c.version {
			continue
		}
		if a.progress.Load() != nil { // it may be this agent's own swap, which closes swapped in a moment
			continue
		}
		select {
		case <-a.swapped:
			return nil
		default:
		}
		a.log.Info().Str("from", a.c.version.String()).Str("to", t.Current.String()).Msg("current points to another version")
		return errCurrentMoved
	}
}
