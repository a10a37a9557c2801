package agent

import (
	"context"
	"errors"
	"io/fs"
	"time"

	"github.com/bilbycast/edge-agent/state"
	"github.com/bilbycast/edge-agent/wire"
)

// narrow makes the install root the agent's alone. In attached mode the service,
// which is another user, runs from it.
func (a *Agent) narrow() {
	mode := fs.FileMode(0o750)
	if a.unitOf != nil {
		mode = 0o755
	}
	changed, err := a.c.Layout.Narrow(mode)
	if err != nil {
		a.log.Warn().Err(err).Msg("the modes in the install root could not be narrowed")
	}
	if len(changed) > 0 {
		a.log.Info().Strs("paths", changed).Msg("other users may no longer read or change what is the agent's")
	}
}

// settle reconciles the install root, and returns the command that a restart
// interrupted, if there is one. Whatever is wrong with the root, the service goes
// on; only upgrades are then not possible.
func (a *Agent) settle(ctx context.Context) (state.Result, state.Command) {
	var interrupted state.Command
	have := a.c.Layout.Downloaded()
	res, err := a.do(ctx, func(s state.State, t state.Tree) (state.State, state.Tree, error) {
		s, interrupted = state.Resume(s, have, time.Now().UTC())
		return s, t, nil
	})
	if err != nil && !errors.Is(err, state.ErrOwed) {
		a.log.Error().Err(err).Msg("install root is not usable; upgrades are not possible")
		a.mu.Lock()
		defer a.mu.Unlock()
		a.unsettled = err
		if res, err = a.c.Layout.Read(); err != nil {
			a.log.Error().Err(err).Msg("install root is not readable")
		}
		a.memory = res.State.Owed
		return res, state.Command{}
	}
	if cur := res.Tree.Current; !cur.IsZero() && cur != a.c.version && res.State.Status != state.PendingHealth {
		a.log.Warn().Str("version", a.c.version.String()).Str("current", cur.String()).
			Msg("this program is not the version that current points to")
	}
	return res, interrupted
}

// resettle settles a root that could not be settled at the start, once it can
// be written again. No command is taken before that.
func (a *Agent) resettle(ctx context.Context) error {
	tick := time.NewTicker(wire.HealthInterval)
	defer tick.Stop()
	for {
		a.mu.Lock()
		settled := a.unsettled == nil
		a.mu.Unlock()
		if settled {
			return nil
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		var interrupted state.Command
		have := a.c.Layout.Downloaded()
		if _, err := a.c.Layout.Do(ctx, func(s state.State, t state.Tree) (state.State, state.Tree, error) {
			s, interrupted = state.Resume(s, have, time.Now().UTC())
			return s, t, nil
		}); err != nil && !errors.Is(err, state.ErrOwed) {
			continue
		}
		a.log.Info().Msg("install root is usable again")
		a.mu.Lock()
		a.unsettled, a.memory = nil, nil
		a.mu.Unlock()
		if interrupted.ID != "" {
			a.resume(ctx, interrupted)
		}
		wake(a.outbox)
		wake(a.beat)
	}
}
