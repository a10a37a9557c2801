// Package agent connects one service to its manager and runs its upgrades. It
// holds the WebSocket session, accepts upgrade_binary commands, has package
// upgrade stage and swap the release, and, after the restart, decides whether the
// new version is healthy.
//
//	a, err := agent.New(cfg, agent.Options{Version: version, ...})
//	...
//	err = a.Run(ctx)
//	os.Exit(agent.ExitCode(err)) // after the service's own end
//
// Run returns ErrRestart after a swap; the process must then end, and systemd starts
// the new version through the link `current`. While a version is on trial, the
// agent sends READY=1 when the version's own check first passes. Run returns an
// error if the version does not prove healthy within boot_health_window_secs. The watchdog counts
// the starts and rolls back. In a stable start READY=1 is sent at once, or when
// Options.Serve calls Ready: a node runs without its manager.
//
// After a crash the next start continues: a download is resumed, a trial goes on,
// and an event that the manager has not acknowledged is sent again.
//
// The package does not restart the process, does not check services that it is not
// configured for, and trusts a manager with nothing but the choice of a release:
// package verify decides what is genuine.
package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/bilbycast/edge-agent/cert"
	"github.com/bilbycast/edge-agent/config"
	"github.com/bilbycast/edge-agent/fsutil"
	"github.com/bilbycast/edge-agent/internal/safelog"
	"github.com/bilbycast/edge-agent/internal/state"
	"github.com/bilbycast/edge-agent/release"
	"github.com/bilbycast/edge-agent/upgrade"
	"github.com/bilbycast/edge-agent/verify"
	"github.com/bilbycast/edge-agent/wire"
	"golang.org/x/sync/errgroup"
	"golang.org/x/time/rate"
)

// Agent is the agent of one service. Make it with New, and call Run once.
type Agent struct {
	c        settings
	log      *slog.Logger
	pipeline *upgrade.Pipeline
	attached *attached // nil when this process is the service
	hold     *hold     // of the root, while the agent runs
	calls    *callbacks
	commands commandServer // of the author; nil: the program has no handlers

	started   atomic.Bool // Run was called
	startedAt time.Time   // of this process, as far as the agent knows; monotonic
	// loopDeadline is when the session's loop must report again, in nanoseconds
	// after startedAt; see expectLoop.
	loopDeadline atomic.Int64

	progress atomic.Pointer[wire.Progress] // nil when nothing is being staged
	waits    atomic.Pointer[wire.Hold]     // what its download waits for; nil: nothing
	target   string                        // version being staged; owned by the goroutine that stages
	staging  sync.WaitGroup
	// healthDue asks the session for a health message, outbox to deliver what is in
	// the outbox; each at most once until the session has done it.
	healthDue, outbox chan struct{}
	checkDue          chan struct{} // asks for a check while there is no session
	// swapped is closed, once, when a new version waits for the restart.
	swapped chan struct{}
	keptNow chan struct{} // is closed when the trial of this version ends well
	serving serving
	// restored is closed once RolledBack was called, or is not due; dataReady once it has
	// succeeded, or is not due.
	restored, dataReady chan struct{}
	closeSwap           func()

	// refusals and starts limit how much a manager's commands write to the disk:
	// those that are refused, those that begin, and withdrawals of what is not staged.
	refusals, starts, withdrawals *rate.Limiter
	ownEvents                     *rate.Limiter // of the service

	registered credentials         // that are not on disk yet; owned by the session
	keyShares  map[string]keyShare // that managers answer, by URL; owned by the session

	unsent unsent // of systemd
	tries  *tries

	readers readers

	// hooksTurn has an element while somebody changes hooks.json or owedHooks: a channel, because
	// that may wait for another process.
	hooksTurn chan struct{}
	owedHooks []func(*state.Hooks) // changes of hooks.json that could not be recorded yet

	mu               sync.Mutex
	warnings         []string // of the start: see warn
	keptWarning      string   // why Options.Kept has not succeeded; "": it has, or is not due
	readySent        bool
	status           statusText
	connection       Connection        // for Status
	known            state.State       // as it was read last, for Status
	evidence         state.JudgeRecord // of the trial, for Status
	checked, problem string            // Status.Health and Status.Problem
	busy             bool              // a release is being staged, or waits for the restart
	staged           release.Version   // by that
	// stagingNow is the staging that began last; nil: none did.
	stagingNow *stagingRun
	// Why the node refuses upgrades, or nil: what the root cannot do, the last look at
	// the root, a root that could not be reconciled at the start (mostly a full disk), a
	// unit that cannot roll back, a start without a watchdog, and a current that does
	// not run.
	unableErr, rootErr, reconcileErr, unitErr, uncountedErr, differsErr error
	unitChecked                                                         time.Time
	memoryEvents                                                        []state.Entry // that the outbox could not store
	authenticated                                                       bool
	managerFault                                                        string    // why the manager, not this node, is at fault; "": it is not
	managerFaultUntil                                                   time.Time // the trial is extended from here
}

// New checks the configuration and returns an agent. It writes nothing.
func New(c config.Config, o Options) (*Agent, error) {
	r, err := resolve(c, o)
	if err != nil {
		return nil, fmt.Errorf("config: %w", err)
	}
	r.Layout = r.Layout.RunningAs(r.version)
	if c.Service.Unit == "" {
		r.Layout = r.Layout.WithProgramAt(os.Args[0])
	}
	a := newAgent(r)
	u := upgrade.Config{Node: &r.Settings, Signers: o.Signers, Running: r.version, Progress: a.report, Log: a.log}
	if o.CheckVersion != nil {
		u.CheckVersion = a.fitsVersion
	}
	if o.Verified != nil {
		u.Verified = func() { go a.callVerified() }
	}
	u.BeforeSwap = a.beforeTrial
	a.pipeline, err = upgrade.New(u)
	if err != nil {
		return nil, err
	}
	return a, nil
}

func newAgent(r settings) *Agent {
	r.Log = safelog.New(r.Log)
	a := &Agent{
		c: r, calls: newCallbacks(r), log: r.Log, startedAt: time.Now(), tries: newTries(), keyShares: map[string]keyShare{},
		hooksTurn: make(chan struct{}, 1), healthDue: make(chan struct{}, 1), checkDue: make(chan struct{}, 1), outbox: make(chan struct{}, 1), swapped: make(chan struct{}), keptNow: make(chan struct{}), restored: make(chan struct{}), dataReady: make(chan struct{}),
		refusals: rate.NewLimiter(rate.Every(refusalEvery), refusalBurst), starts: rate.NewLimiter(rate.Every(startEvery), startBurst),
		withdrawals: rate.NewLimiter(rate.Every(refusalEvery), refusalBurst), ownEvents: newOwnEvents(),
	}
	if r.Handlers != nil {
		a.commands = r.Handlers.server(a)
	}
	a.closeSwap = sync.OnceFunc(func() { close(a.swapped) })
	return a
}

// Run serves the manager until ctx is done; then it returns nil. It returns ErrRestart when a
// new version is staged, or an operator pointed current to another version, an error that
// wraps ErrTrialFailed when the trial of this version has failed, and one that wraps
// ErrAlreadyRunning when it was called before or another agent runs on the install root.
// Nothing else ends it: what is wrong with the files, the unit or the manager is reported and
// tried again. An Agent runs once; after that, make another one.
func (a *Agent) Run(ctx context.Context) error {
	if a.c.Service.Unit != "" {
		return fmt.Errorf("config: %w", config.NewError("service.unit", " is %s: use Attend", a.c.Service.Unit))
	}
	if a.started.Swap(true) {
		return &typedError{errors.New("Run was called before: an Agent runs once"), ErrAlreadyRunning}
	}
	held, err := holdRoot(ctx, a.c.Layout, a.log)
	if err != nil {
		a.started.Store(false) // nothing began
		if ctx.Err() != nil {
			return nil
		}
		return err
	}
	defer held.release()
	a.mu.Lock()
	a.hold = held // Status may be asked before
	a.mu.Unlock()
	err = a.run(ctx)
	a.notify("STOPPING=1")
	if errors.Is(err, ErrRestart) {
		a.log.Info("restarting into the new version")
		return ErrRestart
	}
	if err != nil { // nothing else ends a run
		return &typedError{err, ErrTrialFailed}
	}
	a.log.Info("agent stopped")
	return nil
}

func (a *Agent) run(ctx context.Context) error {
	a.log.Info("agent started", "version", a.c.version.String(), "root", a.c.Layout.Root(), "device_type", a.c.Host.DeviceType)
	if len(a.c.Manager.URLs) > 0 {
		go cert.System() // which takes some ms, before the first connection needs it
	}
	if verify.Simulation {
		a.log.Warn("SIMULATION BUILD: it trusts a simulated Sigstore; never install it on a device")
	}
	if a.c.Manager.AcceptSelfSignedCert && !a.c.Pinned() {
		a.log.Warn("accept_self_signed_cert is on: anybody on the network path can pose as the manager; set cert_fingerprint instead")
	}
	if err := a.countStart(ctx); err != nil {
		return err
	}
	if err := injectFault(ctx, a); err != nil {
		return err
	}
	a.reportStart()
	res, interrupted := a.reconcile(ctx)
	if err := a.pipeline.Tidy(ctx); err != nil {
		a.log.Warn("leftovers of an earlier process were not removed", "error", err)
	}
	trial := res.State.Status == state.PendingHealth
	if trial && a.c.version != res.State.Target {
		if a.attached != nil { // current was moved a moment ago
			return errCurrentMoved
		}
		return a.recordFailedStart(ctx, res.State, fmt.Errorf("%s is on trial, but this program reports version %s", res.State.Target, a.c.version))
	}
	if !trial && a.c.Serve == nil {
		a.ready(res)
	}
	if a.attached == nil {
		a.checkHooks()
		if trial {
			a.expectKept(ctx, res.State)
		}
	}

	// systemd's watchdog counts from READY=1 on, and systemd may answer these questions late.
	a.expectLoop(unitCheckAgain)
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return a.watch(ctx) })
	unitAnswered := a.checkUnitFirst(ctx)
	if res.State.Status == state.RolledBack {
		a.expectNothing() // the disk may be slow
		a.attachJournal(ctx)
	}
	a.expectLoop(0)
	g.Go(func() error { return a.notifyAgain(ctx) })
	g.Go(func() error { return a.connect(ctx) })
	if a.commands != nil {
		g.Go(func() error { a.commands.serve(ctx); return nil })
	}
	g.Go(func() error { return a.retryReconcile(ctx, res.State.Status != "") })
	g.Go(func() error { return a.checkUnitRegularly(ctx, unitAnswered) })
	if !trial && res.State.Status != "" || a.attached != nil { // this program is not on trial
		g.Go(func() error { a.keepConfig(ctx); return nil })
	}
	if interrupted.ID != "" {
		a.resume(ctx, interrupted, trial && a.attached == nil)
	}
	if trial {
		g.Go(func() error { return a.runTrial(ctx, res, a.afterRestoration(ctx)) })
	}
	if a.attached == nil {
		g.Go(func() error { return a.serve(ctx, res, trial) })
		g.Go(func() error { return a.runKept(ctx, res, trial) })
		g.Go(func() error { return a.checkOffline(ctx) })
	}
	g.Go(func() error { return a.retryHold(ctx) })
	g.Go(func() error { return a.tryRoot(ctx) })
	g.Go(func() error { return a.watchState(ctx) })
	g.Go(func() error { return a.watchPrevious(ctx, res) })
	if a.attached != nil {
		g.Go(func() error { return a.watchCurrent(ctx, res.State.TrialID) })
		g.Go(func() error { return a.awaitRestart(ctx, res) })
	} else {
		g.Go(func() error { return a.followCurrent(ctx, res.Tree.Current) })
		g.Go(func() error { a.withdrawRestart(); return nil }) // not before the agent connects: it syncs
	}
	g.Go(func() error {
		select {
		case <-ctx.Done():
			return nil
		case <-a.swapped:
			return a.leave(ctx)
		}
	})
	err := g.Wait()
	a.staging.Wait()
	if trial && a.attached == nil && err != nil && !errors.Is(err, ErrRestart) {
		return a.recordFailedStart(ctx, res.State, err)
	}
	return err
}

// do is Layout.Do. It logs what Layout.Do repaired, updates what the agent knows
// of the root, and has the session deliver new reports.
func (a *Agent) do(ctx context.Context, change state.Change) (state.Result, error) {
	res, err := a.c.Layout.Do(ctx, change)
	for _, n := range res.Notes {
		a.log.Warn(n)
	}
	a.checkRoot(res, err)
	wake(a.outbox)
	return res, err
}

// checkRoot records whether an upgrade could succeed in this root, which a caller
// has just read or changed with the result err.
func (a *Agent) checkRoot(res state.Result, err error) {
	if res.State.Status != "" {
		a.setKnown(res.State)
	}
	var refused *release.Error
	switch {
	case errors.Is(err, state.ErrReportsPending), errors.As(err, &refused):
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
	a.showUnavailable()
}

// unavailable returns why the node refuses every upgrade, or nil.
func (a *Agent) unavailable() error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if why := a.c.Warnings.Withhold; why != "" {
		return errors.New(why)
	}
	if a.calls.beforeTrial.runs() { // it would be refused after its download
		return errors.New("an earlier call of Options.BeforeTrial was abandoned and still runs: the service cannot save its data before a trial; restart the service")
	}
	for _, err := range []error{a.unableErr, a.hold.problem(), a.reconcileErr, a.rootErr, a.differsErr, a.unitErr, a.uncountedErr} {
		if err != nil {
			return fsutil.NameDenial(err)
		}
	}
	return nil
}

// drain waits, for at most drain_secs, until the service has finished its work, no handler of
// a command runs, and the manager has every report and answer that can be sent now.
func (a *Agent) drain(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, a.c.DrainTime)
	defer cancel()
	if a.c.Drain != nil {
		if err := a.calls.drain.call(ctx, a.c.Drain); err != nil {
			a.log.Warn("the service did not drain; restarting anyway", "error", err)
		}
	}
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		entries, _, err := a.c.Layout.Outbox().List()
		entries = slices.DeleteFunc(entries, a.forLater())
		if (err != nil || len(entries) == 0 || len(a.c.URLs) == 0) && (a.commands == nil || a.commands.idle()) {
			return
		}
		wake(a.outbox)
		select {
		case <-ctx.Done():
			a.log.Info("drain time is over; the new version delivers the remaining reports", "undelivered", len(entries), "drain", a.c.DrainTime.String())
			return
		case <-tick.C:
		}
	}
}

func (a *Agent) report(phase string, done, total int64) {
	old := a.progress.Load()
	a.progress.Store(&wire.Progress{Phase: phase, BytesDone: done, BytesTotal: total})
	if old == nil || old.Phase != phase {
		a.setStatus(func(w *statusText) { w.upgrade = fmt.Sprintf("staging %s (%s)", a.target, phase) })
		wake(a.healthDue)
	}
	a.publishAfter(publishEvery)
}

func wake(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
