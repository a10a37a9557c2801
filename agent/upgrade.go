package agent

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/bilbycast/edge-agent/fsutil"
	"github.com/bilbycast/edge-agent/internal/state"
	"github.com/bilbycast/edge-agent/release"
	"github.com/bilbycast/edge-agent/stage"
	"github.com/bilbycast/edge-agent/upgrade"
	"github.com/bilbycast/edge-agent/wire"
)

// errUnrecorded makes Layout.Do write nothing: the command is answered, not recorded.
var errUnrecorded = errors.New("not recorded")

// upgrade answers an upgrade_binary command: it refuses the command, or accepts it and
// stages in the background. The outcome goes through the outbox, and the result is
// nil. It returns an answer at once for a command that has ended before, and for a
// refusal that is not recorded: there were too many, or the disk cannot store it.
func (a *Agent) upgrade(ctx context.Context, c *wire.Command) *wire.CommandAck {
	log := a.log.With("command_id", c.CommandID)
	req, reqErr := release.NewRequest(c.Action.Version, c.Action.Channel, c.Action.TargetArch, c.Action.Variant, a.c.Host)
	record := state.Command{ID: c.CommandID, Version: req.Version, From: a.c.version, Channel: req.Channel, Repair: c.Action.Repair, ManifestSHA256: c.Action.ManifestSHA256}
	if want := c.Action.ManifestSHA256; want != "" && !release.IsSHA256(want) {
		record.ManifestSHA256 = ""
		reqErr = cmp.Or(reqErr, release.Errorf(release.ManifestChanged, "the manifest_sha256 %.80q of the command is not 64 lower-case hex digits", want))
	}
	a.checkUnitFor(ctx)
	var known *state.Command
	var answer *wire.CommandAck
	var taken bool

	_, err := a.do(ctx, func(s state.State, t state.Tree, now time.Time) (state.State, state.Tree, error) {
		known, answer, taken = nil, nil, false
		if s.Status == "" { // no state can record a command
			return s, t, release.Errorf(release.Internal, "this node cannot be upgraded: no version is installed under %s", a.c.Layout.Root())
		}
		if old, ok := s.Command(c.CommandID); ok {
			known = &old
			return s, t, nil
		}
		err := reqErr
		if !a.c.Policy.Enabled || err == nil {
			err = a.refuse(req, s, t)
		}
		if err == nil && !a.starts.Allow() {
			err = release.Errorf(release.InProgress, "too many upgrades were started; this node starts one every %v", startEvery)
		}
		if err == nil {
			taken = true
			return state.Start(s, record, now), t, nil
		}
		if errors.As(err, new(alreadyCurrentError)) { // it is not installed again under the same name
			err = cmp.Or(upgrade.CheckManifest(req.Version, stage.ManifestOf(a.c.Layout, req.Version), record.ManifestSHA256), err)
		}
		var current alreadyCurrentError
		if errors.As(err, &current) {
			record.Done, record.Status = true, "current"
		} else {
			code, why := codeAndText(err)
			record.Done, record.Code, record.Error = true, code, why
		}
		if !a.refusals.Allow() {
			answer = a.ack(record)
			return s, t, errUnrecorded
		}
		if record.Code == "" {
			return state.Succeed(state.Accept(s, record), c.CommandID, record.Status, now), t, nil
		}
		log.Warn("upgrade refused: "+record.Error, "error_code", string(record.Code), "version", c.Action.Version)
		return state.Fail(state.Accept(s, undone(record)), c.CommandID, record.Code, record.Error, now), t, nil
	})
	switch {
	case answer != nil:
		log.Debug("command answered and not recorded: too many were refused", "error_code", string(record.Code))
		return answer
	case err != nil && !errors.Is(err, state.ErrReportsPending):
		code, why := codeAndText(err)
		if a.refusals.Allow() {
			log.Error("upgrade refused: it was not recorded", "error", err, "error_code", string(code))
			a.keepInMemory(undone(record), code, why)
		}
		return &wire.CommandAck{CommandID: c.CommandID, Error: why, ErrorCode: code}
	case known != nil && !known.Done:
		log.Debug("command repeated while it is in progress")
		return nil
	case known != nil:
		log.Debug("command repeated; answered with its recorded outcome")
		return a.ack(*known)
	}
	if taken {
		log.Info("upgrade started", "from", a.c.version.String(), "to", req.Version.String(), "channel", req.Channel, "repair", record.Repair)
		a.startUpgrade(ctx, record, req)
	}
	return nil
}

// undone returns c as it was when it arrived.
func undone(c state.Command) state.Command {
	c.Done, c.Status, c.Code, c.Error = false, "", "", ""
	return c
}

// unitCheckAge is how old a check of the unit may be when a command arrives, so that
// many commands do not cause many checks.
const unitCheckAge = 5 * time.Second

func (a *Agent) checkUnitFor(ctx context.Context) {
	a.mu.Lock()
	fresh := time.Since(a.unitChecked) < unitCheckAge
	a.mu.Unlock()
	if !fresh {
		a.checkUnit(ctx)
	}
}

// resume stages a release again after a restart in the middle. What was downloaded is
// still there. If the version that stages it is on trial itself, under guard or unproven
// before, its present start must come that far first.
func (a *Agent) resume(ctx context.Context, c state.Command, trial bool) {
	if !trial {
		a.resumeNow(ctx, c)
		return
	}
	a.log.Warn("upgrade interrupted by a restart; it is resumed when the version on trial has a result", "command_id", c.ID, "version", c.Version.String())
	a.staging.Go(func() {
		if a.awaitResult(ctx) {
			a.resumeNow(ctx, c)
		}
	})
}

// awaitResult waits, for two windows at the most, until a newer version may take the place of
// this one, which is on trial. It reports false if ctx ended first: the next start resumes.
func (a *Agent) awaitResult(ctx context.Context) bool {
	tick := time.NewTicker(pace(time.Second))
	defer tick.Stop()
	for end := time.Now().Add(2 * a.c.Window); time.Now().Before(end); {
		if res, err := a.c.Layout.Read(); err == nil && (res.State.Status != state.PendingHealth || a.c.Layout.MayReplace(res.State)) {
			break
		}
		select {
		case <-ctx.Done():
			return false
		case <-tick.C:
		}
	}
	return true
}

func (a *Agent) resumeNow(ctx context.Context, c state.Command) {
	log := a.log.With("command_id", c.ID, "version", c.Version.String())
	req, err := release.NewRequest(c.Version.String(), c.Channel, "", "", a.c.Host)
	res, readErr := a.c.Layout.Read()
	if now, ok := res.State.Command(c.ID); readErr == nil && (!ok || now.Done) { // it may be forgotten already
		log.Info("upgrade interrupted by a restart, and withdrawn meanwhile")
		return
	}
	if err = errors.Join(err, readErr); err == nil {
		others := res.State
		others.Commands = nil // the only one in progress is this one
		err = a.refuse(req, others, res.Tree)
	}
	if err != nil {
		code, why := codeAndText(err)
		log.Warn("upgrade interrupted by a restart, and not resumed: "+why, "error_code", string(code))
		a.staging.Go(func() { a.fail(ctx, c.ID, code, why) })
		return
	}
	log.Warn("upgrade interrupted by a restart; resuming it", "resumed", c.Resumed)
	a.startUpgrade(ctx, c, req)
}

// resumePause is the pause before another attempt of an upgrade that waits for the service.
const resumePause = 30 * time.Second

// waitAfterStart waits before another attempt of the upgrade c that failed with err, and
// reports whether there is one: after a reboot the service that the check asks may come up
// late, and a resumed upgrade gives it the time of a trial.
func (a *Agent) waitAfterStart(ctx context.Context, c state.Command, err error) bool {
	if c.Resumed == 0 || release.CodeOf(err) != release.Unhealthy || time.Now().After(a.startedAt.Add(a.c.Window)) {
		return false
	}
	a.log.Warn("the running version is not healthy yet; the resumed upgrade waits", "error", err, "retry_in", resumePause.String())
	select {
	case <-ctx.Done():
		return false
	case <-time.After(resumePause):
		return true
	}
}

// startUpgrade stages in the background. The caller has recorded the command.
func (a *Agent) startUpgrade(ctx context.Context, c state.Command, req release.Request) {
	ctx, stop := context.WithCancelCause(ctx)
	run := &stagingRun{c.ID, ctx, stop, make(chan struct{})}
	a.mu.Lock()
	a.busy, a.staged, a.stagingNow = true, req.Version, run
	a.mu.Unlock()
	a.staging.Go(func() {
		defer close(run.done)
		defer stop(nil)
		if a.isWithdrawn(c.ID) { // by another process, before watchState could know of this run
			stop(errWithdrawn)
		}
		a.runUpgrade(ctx, c, req)
	})
}

// alreadyCurrentError reports that the requested version runs already.
type alreadyCurrentError struct{}

func (alreadyCurrentError) Error() string { return "this version runs already" }

// refuse returns why the node does not accept r now, or nil.
func (a *Agent) refuse(r release.Request, s state.State, t state.Tree) error {
	if a.c.Policy.Enabled {
		for _, c := range s.Commands {
			if !c.Done {
				return release.Errorf(release.InProgress, "%s is being staged by command %s", c.Version, c.ID)
			}
		}
		a.mu.Lock()
		busy, run := a.busy, a.stagingNow
		a.mu.Unlock()
		switch {
		case busy && run != nil && errors.Is(context.Cause(run.ctx), errWithdrawn):
			return release.Errorf(release.InProgress, "the upgrade of command %s was withdrawn, and its staging is still ending; try again in a minute", run.id)
		case busy:
			return release.Errorf(release.InProgress, "an upgrade is in progress, and ends with a restart; try again after it")
		case s.Status != state.PendingHealth && r.Version == a.c.version && t.Current == r.Version:
			return alreadyCurrentError{}
		}
	}
	if err := a.pipeline.Allows(r, state.Result{State: s, Tree: t}); err != nil {
		return err
	}
	if err := a.unavailable(); err != nil {
		return release.Errorf(release.CodeOf(err), "this node cannot be upgraded: %w", err)
	}
	return nil
}

// runUpgrade takes one accepted upgrade to its end.
func (a *Agent) runUpgrade(ctx context.Context, c state.Command, req release.Request) {
	log := a.log.With("command_id", c.ID, "from", a.c.version.String(), "to", req.Version.String())
	defer a.progress.Store(nil)
	a.target = req.Version.String()
	defer a.waits.Store(nil)
	waits := a.newDownloadWait(ctx, c)
	err := a.runPipeline(ctx, c, req, waits)
	for a.waitAfterStart(ctx, c, err) {
		err = a.runPipeline(ctx, c, req, waits)
	}
	if err == nil && !a.c.Upgrade.ManualOnly {
		log.Info("upgrade staged: current points to the new version")
		a.setStatus(func(w *statusText) { w.upgrade = "restarting into " + a.target })
		a.closeSwap() // the node stays busy until it restarts
		return
	}
	switch {
	case err == nil:
		log.Info("upgrade staged; waiting for an operator to run edge-agent apply")
		a.setStatus(func(w *statusText) { w.upgrade = a.target + " is staged and waits for an operator to apply it" })
	case release.CodeOf(err) == release.Withdrawn || errors.Is(context.Cause(ctx), errWithdrawn):
		log.Info("staging ended: the upgrade was withdrawn")
		a.setStatus(func(w *statusText) { w.upgrade = "the upgrade to " + a.target + " was withdrawn" })
	case ctx.Err() != nil:
		waits.interrupted()
		// The process is being stopped; the next start resumes.
		log.Warn("upgrade interrupted: the process stops; the next start resumes it")
	default:
		code, why := codeAndText(err)
		log.Error("upgrade failed: "+why, "error_code", string(code))
		a.setStatus(func(w *statusText) { w.upgrade = fmt.Sprintf("the upgrade to %s failed: %s", a.target, why) })
		a.fail(ctx, c.ID, code, why)
	}
	a.mu.Lock()
	a.busy = false
	a.mu.Unlock()
	wake(a.healthDue)
}

// fail records the failure of an accepted command.
func (a *Agent) fail(ctx context.Context, id string, code release.Code, why string) {
	a.record(ctx, "the failed upgrade", func(s state.State, t state.Tree, now time.Time) (state.State, state.Tree, error) {
		return state.Fail(s, id, code, why, now), t, nil
	}, nil)
}

func (a *Agent) runPipeline(ctx context.Context, c state.Command, req release.Request, waits *downloadWait) error {
	end := upgrade.Swap
	if a.c.Upgrade.ManualOnly {
		end = upgrade.Shelve
	}
	src := a.pipeline.Host(req.Version)
	defer src.Close()
	_, err := a.pipeline.Run(ctx, src, upgrade.Request{
		Version: req.Version, Channel: req.Channel, ManifestSHA256: c.ManifestSHA256, CommandID: c.ID, End: end, Running: a.running(c.Repair),
		Before: waits.before(), Waiting: waits.tell,
		Downloaded: func() {
			if _, err := a.do(ctx, func(s state.State, t state.Tree, now time.Time) (state.State, state.Tree, error) {
				return state.Downloaded(s, c.ID, now), t, nil
			}); err != nil {
				a.log.Warn("the completed download was not reported", "error", err)
			}
		},
	})
	wake(a.outbox)
	return err
}

// codeAndText returns the wire code of err, and its text on one line.
func codeAndText(err error) (release.Code, string) {
	return release.CodeOf(err), release.Foreign(fsutil.NameDenial(err).Error(), maxReason)
}

// maxReason bounds the text of a failure, in bytes.
const maxReason = 1000

// ack returns the wire form of a command that ended.
func (a *Agent) ack(c state.Command) *wire.CommandAck {
	ack := &wire.CommandAck{CommandID: c.ID, Success: c.Success(), Error: c.Error, ErrorCode: c.Code}
	if ack.Success {
		ack.Data = &wire.AckData{
			Status: c.Status, FromVersion: c.From.String(), ToVersion: c.Version.String(),
			Channel: c.Channel, Variant: a.c.Host.Variant, Arch: a.c.Host.Arch,
		}
	}
	return ack
}

// event returns the wire form of an event.
func event(e state.Entry) *wire.Event {
	ev := e.Event
	if own := ev.Own; own != nil {
		return &wire.Event{EventID: e.ID, Severity: own.Severity, Category: own.Category, Message: ev.Message}
	}
	return &wire.Event{
		EventID: e.ID, Severity: ev.Code.Severity(), Category: wire.CategoryUpgrade, Message: ev.Message,
		Details: wire.Details{
			Journal: ev.Journal, FailedStarts: ev.FailedStarts, Trial: (*wire.Trial)(ev.Trial), Dependency: ev.Dependency,
			ErrorCode: ev.Code, FromVersion: ev.From.String(), ToVersion: ev.To.String(),
			CommandID: ev.CommandID, Reason: ev.Reason, BootAttempts: ev.BootAttempts,
		},
	}
}
