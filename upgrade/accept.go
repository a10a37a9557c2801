package upgrade

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/bilbycast/edge-agent/config"
	"github.com/bilbycast/edge-agent/state"
)

// Accept records an operator's decision that the version on trial is kept once its own check
// has held, without the proof of its link to the manager. It changes nothing else: a version
// whose check fails is rolled back.
func Accept(ctx context.Context, l state.Layout) (state.Result, error) {
	c, _, err := config.Open(l.ConfigFile())
	if err != nil {
		return state.Result{}, fmt.Errorf("whether the service is its own agent cannot be told: %w", err)
	}
	if c.Service.Unit != "" {
		return state.Result{}, errors.New("an agent beside another service needs no proof of its link: the version on trial is kept once its check has held")
	}
	return l.Do(ctx, func(s state.State, t state.Tree, now time.Time) (state.State, state.Tree, error) {
		if s.Status != state.PendingHealth {
			return s, t, fmt.Errorf("no version is on trial (status %s), so there is nothing to accept", s.Status)
		}
		return s, t, l.RecordAccept(state.AcceptRecord{TrialID: s.TrialID, At: now})
	})
}
