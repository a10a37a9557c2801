package agent

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/bilbycast/edge-agent/release"
	"github.com/bilbycast/edge-agent/stage"
	"github.com/bilbycast/edge-agent/state"
	"github.com/bilbycast/edge-agent/wire"
)

// upgrade answers an upgrade_binary command: it refuses it, or takes it and
// stages in the background. The outcome goes through the outbox, except for a
// command that ended before: its recorded outcome is returned.
func (a *Agent) upgrade(ctx context.Context, c *wire.Command) *wire.CommandAck {
	log := a.log.With().Str("command_id", c.CommandID).Logger()
	req, reqErr := release.NewRequest(c.Action.Version, c.Action.Channel, c.Action.TargetArch, c.Action.Variant, a.c.host)
	record := state.Command{ID: c.CommandID, Version: req.Version, From: a.c.version, Channel: req.Channel}
	var known *state.Command
	var taken bool
	var policy release.Policy

	_, err := a.do(ctx, func(s state.State, t state.Tree) (state.State, state.Tree, error) {
		known, taken = nil, false
		if s.Status == "" { // there is no state to record a command in
			return s, t, release.Errorf(release.Internal, "this node cannot be upgraded: no version is installed under %s", a.c.layout.Root())
		}
		if old, ok := s.Command(c.CommandID); ok {
			known = &old
			return s, t, nil
		}
		now := time.Now().UTC()
		policy = a.c.policy
		policy.Floor, policy.FloorSequence = s.Floor, s.FloorSequence
		err := reqErr
		if !policy.Enabled || err == nil {
			err = a.refuse(policy, req, s, t)
		}
		var current currentError
		switch {
		case errors.As(err, &current):
			s = state.Succeed(state.Accept(s, record), c.CommandID, "current", now)
		case err != nil:
			code, why := coded(err)
			s = state.Fail(state.Accept(s, record), c.CommandID, code, why, now)
			log.Warn().Str("error_code", string(code)).Str("version", c.Action.Version).Msg("upgrade refused: " + why)
		default:
			s = state.Start(s, record, now)
			taken = true
		}
		return s, t, nil
	})
	if err != nil {
		code, why := coded(err)
		log.Error().Err(err).Msg("upgrade refused: it cannot be recorded")
		return &wire.CommandAck{CommandID: c.CommandID, Error: why, ErrorCode: code}
	}
	if known != nil {
		if !known.Done {
			log.Info().Msg("command repeated while it is being served")
			return nil
		}
		log.Info().Msg("command repeated; answering with its recorded outcome")
		return a.ack(*known)
	}
	if taken {
		log.Info().Str("from", a.c.version.String()).Str("to", req.Version.String()).Str("channel", req.Channel).Msg("upgrade started")
		a.staging.Go(func() { a.stage(ctx, c.CommandID, req, policy) })
	}
	return nil
}

// currentError says that the version asked for runs already.
type currentError struct{}

func (currentError) Error() string { return "this version runs already" }

// refuse says why the node will not take r now, or nil.
func (a *Agent) refuse(p release.Policy, r release.Request, s state.State, t state.Tree) error {
	if !p.Enabled {
		return p.Check(r, a.c.version)
	}
	for _, c := range s.Commands {
		if !c.Done {
			return release.Errorf(release.InProgress, "%s is being staged by command %s", c.Version, c.ID)
		}
	}
	if s.Status == state.PendingHealth {
		return release.Errorf(release.InProgress, "%s is on trial; wait until it is kept or went back", s.Target)
	}
	if r.Version == a.c.version && t.Current == r.Version {
		return currentError{}
	}
	if err := p.Check(r, a.c.version); err != nil {
		return err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if !a.usable {
		return release.Errorf(release.Internal, "this node cannot be upgraded: %s", a.why)
	}
	return nil
}

// stage runs one accepted upgrade to its end.
func (a *Agent) stage(ctx context.Context, id string, req release.Request, policy release.Policy) {
	log := a.log.With().Str("command_id", id).Str("from", a.c.version.String()).Str("to", req.Version.String()).Logger()
	defer a.progress.Store(nil)
	a.target = req.Version.String()
	err := a.stageAndSwap(ctx, id, req, policy)
	switch {
	case err == nil && a.c.Upgrade.ManualOnly:
		log.Info().Msg("upgrade staged: it waits for an operator (edge-agent apply)")
		a.say(func(w *words) { w.upgrade = a.target + " is staged and waits for an operator" })
		wake(a.beat)
	case err == nil:
		log.Info().Msg("upgrade staged: current leads to the new version")
		a.say(func(w *words) { w.upgrade = "restarting into " + a.target })
		close(a.swapped)
	case ctx.Err() != nil:
		// The process is being stopped; the next start says what became of it.
		log.Warn().Msg("upgrade interrupted")
	default:
		code, why := coded(err)
		log.Error().Str("error_code", string(code)).Msg("upgrade failed: " + why)
		a.say(func(w *words) { w.upgrade = fmt.Sprintf("the upgrade to %s failed: %s", a.target, why) })
		a.record(ctx, "the failed upgrade", func(s state.State, t state.Tree) (state.State, state.Tree, error) {
			return state.Fail(s, id, code, why, time.Now().UTC()), t, nil
		}, nil)
		wake(a.beat)
	}
}

func (a *Agent) stageAndSwap(ctx context.Context, id string, req release.Request, policy release.Policy) error {
	rel, err := a.stager.Fetch(ctx, req.Version)
	if err != nil {
		return err
	}
	sig := rel.Signature()
	a.log.Info().Str("command_id", id).Str("version", req.Version.String()).Str("workflow", sig.Workflow).
		Str("commit", sig.Commit).Time("signed_at", sig.Time).Msg("manifest verified")
	artefact, err := policy.Select(rel.Manifest(), req, a.c.host)
	if err != nil {
		return err
	}
	staged, err := a.stager.Stage(ctx, rel, artefact, func() {
		a.log.Info().Str("command_id", id).Str("sha256", artefact.SHA256).Msg("tarball downloaded and checked")
		if _, err := a.do(ctx, func(s state.State, t state.Tree) (state.State, state.Tree, error) {
			return state.Downloaded(s, id, time.Now().UTC()), t, nil
		}); err != nil {
			a.log.Warn().Err(err).Msg("the download could not be reported")
		}
	})
	if err != nil {
		return err
	}
	hand := stage.Swap
	if a.c.Upgrade.ManualOnly {
		hand = stage.Shelve
	}
	_, err = hand(ctx, a.c.layout, staged, state.Trial{
		ID: id, CommandID: id, Channel: req.Channel, MaxAttempts: a.c.Upgrade.MaxBootAttempts,
	})
	if errors.Is(err, state.ErrOwed) { // the links are swapped; the next start tells it
		a.log.Warn().Err(err).Str("command_id", id).Msg("the swap will be reported after the restart")
		err = nil
	}
	wake(a.outbox)
	return err
}

// coded returns the wire code of err and its text, fit for one line.
func coded(err error) (release.Code, string) {
	code := release.Internal
	var e *release.Error
	if errors.As(err, &e) {
		code = e.Code
	}
	text := err.Error()
	if len(text) > wire.MaxText/2 {
		text = text[:wire.MaxText/2]
	}
	return code, strings.ToValidUTF8(text, "?")
}

// ack is the wire form of a command that ended.
func (a *Agent) ack(c state.Command) *wire.CommandAck {
	ack := &wire.CommandAck{CommandID: c.ID, Success: c.Success(), Error: c.Error, ErrorCode: c.Code}
	if ack.Success {
		ack.Data = &wire.AckData{
			Status: c.Status, FromVersion: c.From.String(), ToVersion: c.Version.String(),
			Channel: c.Channel, Variant: a.c.host.Variant, Arch: a.c.host.Arch,
		}
	}
	return ack
}

// event is the wire form of an event.
func event(e state.Entry) *wire.Event {
	ev := e.Event
	return &wire.Event{
		EventID: e.ID, Severity: ev.Code.Severity(), Category: wire.CategoryUpgrade, Message: ev.Message,
		Details: wire.Details{
			Journal:   e.Event.Journal,
			ErrorCode: ev.Code, FromVersion: ev.From.String(), ToVersion: ev.To.String(),
			CommandID: ev.CommandID, Reason: ev.Reason, BootAttempts: ev.BootAttempts,
		},
	}
}
