// Package agent is one service's link to its manager, and its upgrades: it
// holds the WebSocket session, takes upgrade_binary commands, stages and swaps,
// and, after the restart, proves that the new version is healthy.
//
//	a, err := agent.New(cfg)
//	...
//	return a.Run(ctx) // nil: stop, or restart into the new version
//
// Run returns nil after a swap; the process must then end, and systemd starts
// the new version through the link `current`. While a version is on trial,
// READY=1 is sent only when it has proved healthy, and Run returns an error if
// it does not within boot_health_window_secs; the watchdog counts the starts
// and rolls back. In a stable start READY=1 goes out at once: a manager that is
// away never takes a healthy node down.
//
// What the package does not do: it does not restart the process, it does not
// judge other services, and nothing that the manager says can widen what
// package verify believes.
package agent

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/bilbycast/edge-agent/config"
	"github.com/bilbycast/edge-agent/release"
	"github.com/bilbycast/edge-agent/state"
	"github.com/bilbycast/edge-agent/upgrade"
	"github.com/bilbycast/edge-agent/verify"
	"github.com/bilbycast/edge-agent/wire"
	"github.com/rs/zerolog"
	"golang.org/x/sync/errgroup"
	"golang.org/x/time/rate"
)

// Agent is one service's agent. Make it with New, run it once.
type Agent struct {
	c        settings
	log      zerolog.Logger
	pipeline *upgrade.Pipeline
	began    time.Time    // of this process, as far as the agent knows; monotonic
	due      atomic.Int64 // when the session's loop must stir again, in ns after began
	target   string       // being staged; owned by the goroutine that stages

	unitOf *attached // nil when this process is the service

	progress atomic.Pointer[wire.Progress] // nil when nothing is being staged
	// beat asks the session for a health message, outbox to look at the outbox,
	// each at most once until it is served.
	beat, outbox chan struct{}
	// swapped is closed, once, when a new version waits for the restart.
	swapped   chan struct{}
	closeSwap func()
	staging   sync.WaitGroup

	// refusals and starts limit what a manager's commands may cost in writes to the
	// disk: of commands that are refused, and of those that begin.
	refusals, starts *rate.Limiter

	registered credentials // that could not be written yet; owned by the session

	mu    sync.Mutex
	words words
	busy  bool // a release is being staged, or waits for the restart
	// patientUntil is how long a resumed upgrade waits for the network; zero: it
	// does not.
	patientUntil time.Time
	// Why the node takes no upgrade: rootErr is the last look at the root,
	// unsettled that it could not be settled at the start (a full disk, mostly),
	// unitErr what the unit lacks, uncounted that no watchdog ran before this start.
	rootErr, unsettled, unitErr, uncounted error
	unitChecked                            time.Time
	// memory is what the outbox could not take, and is sent from here.
	memory []state.Entry
	// authenticated and fault are what the trial is judged by.
	authenticated bool
	fault         string // why the manager, not this node, is at fault; "" if it is not
	faultAt       time.Time
}

// New checks the configuration and returns an agent. It writes nothing.
func New(c config.Config, o Options) (*Agent, error) {
	r, err := resolve(c, o)
	if err != nil {
		return nil, fmt.Errorf("config: %w", err)
	}
	r.Layout = r.Layout.RunningAs(r.version)
	a := newAgent(r)
	a.pipeline, err = upgrade.New(upgrade.Config{
		Node: &r.Settings, Signers: o.Signers, Running: r.version, Progress: a.report, Log: o.Log,
	})
	if err != nil {
		return nil, err
	}
	return a, nil
}

func newAgent(r settings) *Agent {
	a := &Agent{
		c: r, log: r.Log, began: time.Now(),
		beat: make(chan struct{}, 1), outbox: make(chan struct{}, 1), swapped: make(chan struct{}),
		refusals: rate.NewLimiter(rate.Every(refusalEvery), refusalBurst), starts: rate.NewLimiter(rate.Every(startEvery), startBurst),
	}
	a.closeSwap = sync.OnceFunc(func() { close(a.swapped) })
	return a
}

// errSwapped ends the run after a swap.
var errSwapped = errors.New("a new version is staged")

// Run works until ctx is done, a new version is staged, or the trial of this
// one has failed; only the last is an error.
func (a *Agent) Run(ctx context.Context) error {
	if a.c.Service.Unit != "" {
		return fmt.Errorf("config: service.unit is %s: use Attend", a.c.Service.Unit)
	}
	err := a.run(ctx)
	a.notify("STOPPING=1")
	if errors.Is(err, errSwapped) {
		a.log.Info().Msg("restarting into the new version")
		return nil
	}
	if err != nil {
		return err
	}
	a.log.Info().Msg("agent stops")
	return nil
}

func (a *Agent) run(ctx context.Context) error {
	start := a.log.Info().Str("version", a.c.version.String()).Str("root", a.c.Layout.Root()).Str("device_type", a.c.Host.DeviceType)
	start.Msg("agent starts")
	if verify.Simulation {
		a.log.Warn().Msg("SIMULATION BUILD: it believes a simulated Sigstore; never install it on a device")
	}
	if a.c.Manager.AcceptSelfSignedCert && !a.c.Pinned() {
		a.log.Warn().Msg("accept_self_signed_cert is on: anybody on the path can pose as the manager; prefer cert_fingerprint")
	}
	if err := a.countStart(ctx); err != nil {
		return err
	}
	if err := misbehave(ctx, a); err != nil {
		return err
	}
	a.narrow()
	res, interrupted := a.settle(ctx)
	if err := a.pipeline.Tidy(ctx); err != nil {
		a.log.Warn().Err(err).Msg("leftovers of an earlier process were not removed")
	}
	trial := res.State.Status == state.PendingHealth
	if trial && a.c.version != res.State.Target {
		return a.failStart(ctx, fmt.Errorf("%s is on trial, but this program says that it is %s", res.State.Target, a.c.version))
	}
	if !trial {
		a.ready(res)
	}

	a.checkUnit(ctx)
	if res.State.Status == state.RolledBack {
		a.keepJournal(ctx)
	}
	a.stir(0)
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return a.watch(ctx) })
	g.Go(func() error { return a.connect(ctx) })
	g.Go(func() error { return a.resettle(ctx) })
	g.Go(func() error { return a.recheck(ctx) })
	if interrupted.ID != "" {
		a.resume(ctx, interrupted)
	}
	if trial {
		g.Go(func() error { return a.judge(ctx, res) })
	}
	if a.unitOf != nil {
		g.Go(func() error { return a.watchCurrent(ctx) })
	}
	g.Go(func() error {
		select {
		case <-ctx.Done():
			return nil
		case <-a.swapped:
			return a.drain(ctx)
		}
	})
	err := g.Wait()
	a.staging.Wait()
	if trial && err != nil && !errors.Is(err, errSwapped) {
		return a.failStart(ctx, err)
	}
	return err
}

// do is Layout.Do, with what it found in the log and what it owes on its way.
func (a *Agent) do(ctx context.Context, change state.Change) (state.Result, error) {
	res, err := a.c.Layout.Do(ctx, change)
	for _, n := range res.Notes {
		a.log.Warn().Msg(n)
	}
	a.look(res, err)
	wake(a.outbox)
	return res, err
}

// look keeps whether an upgrade could work in this root.
func (a *Agent) look(res state.Result, err error) {
	var refused *release.Error
	switch {
	case errors.Is(err, state.ErrOwed), errors.As(err, &refused):
		err = nil
	case err != nil:
	case res.Tree.Current.IsZero():
		err = errors.New("no version is installed under " + a.c.Layout.Root())
	default:
		err = a.c.Layout.Writable()
	}
	a.mu.Lock()
	a.rootErr = err
	a.mu.Unlock()
	a.sayUnable()
}

// unusable returns why the node takes no upgrade, or nil.
func (a *Agent) unusable() error {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, err := range []error{a.unsettled, a.rootErr, a.unitErr, a.uncounted} {
		if err != nil {
			return err
		}
	}
	return nil
}

// ready tells systemd that the service is up: first in words, so that
// systemctl status has them when systemctl start returns.
func (a *Agent) ready(res state.Result) {
	a.say(func(w *words) {
		w.service, w.upgrade = a.c.version.String()+" runs", ""
		if res.State.Status == state.RolledBack {
			w.upgrade = fmt.Sprintf("rolled back from %s: %s", res.State.Target, res.State.Reason)
		}
	})
	a.notify("READY=1")
	a.log.Info().Str("version", a.c.version.String()).Str("status", string(res.State.Status)).Msg("ready")
}

func (a *Agent) notify(state string) {
	if err := a.c.Notify(state); err != nil {
		a.log.Warn().Err(err).Msg("systemd could not be notified")
	}
}

// drain gives what is owed drain_secs to reach the manager, and the service
// its own time to finish; then the run ends.
func (a *Agent) drain(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, a.c.DrainTime)
	defer cancel()
	if a.c.Drain != nil {
		if err := a.c.Drain(ctx); err != nil {
			a.log.Warn().Err(err).Msg("drain")
		}
	}
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		entries, _, err := a.c.Layout.Outbox().List()
		if err != nil || len(entries) == 0 {
			return errSwapped
		}
		wake(a.outbox)
		select {
		case <-ctx.Done():
			a.log.Info().Int("undelivered", len(entries)).Str("drain", a.c.DrainTime.String()).Msg("drain time is over; the new version will deliver the rest")
			return errSwapped
		case <-tick.C:
		}
	}
}

func (a *Agent) report(phase string, done, total int64) {
	old := a.progress.Load()
	a.progress.Store(&wire.Progress{Phase: phase, BytesDone: done, BytesTotal: total})
	if old == nil || old.Phase != phase {
		a.say(func(w *words) { w.upgrade = fmt.Sprintf("staging %s (%s)", a.target, phase) })
		wake(a.beat)
	}
}

func wake(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
