package agent

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/bilbycast/edge-agent/internal/state"
	"github.com/bilbycast/edge-agent/release"
	"github.com/bilbycast/edge-agent/stage"
	"github.com/bilbycast/edge-agent/trial"
	"github.com/bilbycast/edge-agent/wire"
)

// askHealth has the loop send a health message, once it is known how the node is.
func (s *session) askHealth(ctx context.Context) {
	if len(s.checks.queue) > 0 { // the one that waits will do
		return
	}
	s.checks.add(func() func() error {
		h := s.a.health(ctx)
		return func() error { return s.send(h) }
	})
}

// health returns a health message. It asks the service's own check, and reads the install
// root.
func (a *Agent) health(ctx context.Context) *wire.Health {
	h := &wire.Health{
		Status: "ok", Version: a.c.version.String(), UptimeSecs: int64(time.Since(a.startedAt).Seconds()),
		Capabilities: []string{}, Warnings: a.healthWarnings(),
		ManifestSHA256: stage.ManifestOf(a.c.Layout, a.c.version),
	}
	if err := a.check(ctx); err != nil {
		h.Status = "degraded"
	}
	res, err := a.c.Layout.Read()
	var refused *release.Error
	if err != nil && !errors.As(err, &refused) {
		a.log.Debug("health sent without the state of upgrades", "error", err)
	}
	a.checkRoot(res, err)
	why := a.unavailable()
	switch {
	case !a.c.Upgrade.Enabled:
		h.UpgradeUnavailable = "upgrades are disabled: set enabled = true in [upgrade] of its config.toml, then restart the service"
	case why != nil:
		h.UpgradeUnavailable = release.Foreign(why.Error(), wire.MaxText/8)
	}
	if a.c.Upgrade.Enabled && why == nil {
		h.Capabilities = append(h.Capabilities, wire.CapabilityUpgrade)
		h.Upgrade = &wire.Upgrade{
			Status: string(res.State.Status), CurrentVersion: res.Tree.Current.String(),
			PreviousVersion: res.Tree.Previous.String(), TargetVersion: res.State.Target.String(),
			BootAttempts: res.State.BootAttempts, Channels: a.c.Upgrade.AllowedChannels,
			Progress: a.progress.Load(),
		}
	}
	h.Trial, h.Hold = a.trialOf(res.State)
	h.Hold = a.holdOf(h.Hold)
	return h
}

// trialOf returns what health says of the version on trial in s.
func (a *Agent) trialOf(s state.State) (string, *wire.Hold) {
	if s.Status != state.PendingHealth {
		return "", nil
	}
	stage := a.c.Layout.Reached(s)
	if stage != state.Unproven {
		return string(stage), nil
	}
	r := a.c.Layout.ReadJudge(s)
	reason := r.Waits
	if r.Rounds > 0 {
		reason = fmt.Sprintf("(contradicted in %d of %d rounds) %s", r.Rounds, trial.Default.Rounds, reason)
	}
	return string(stage), &wire.Hold{Reason: release.Foreign(reason, wire.MaxText/8), Since: r.Since}
}
