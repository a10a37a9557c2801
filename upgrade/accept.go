package upgrade

import (
	"context"
	"fmt"
	"time"

	"github.com/bilbycast/edge-agent/internal/state"
)

// Accept records an operator's decision that the version on trial is kept once its own check
// has held, without the proof of its link to the manager; in attached mode, that it is kept
// although its check cannot tell. It changes nothing else: a version whose check fails is
// rolled back.
func Accept(ctx context.Context, l state.Layout) (state.Result, error) {
	return l.Do(ctx, func(s state.State, t state.Tree, now time.Time) (state.State, state.Tree, error) {
		if s.Status != state.PendingHealth {
			return s, t, fmt.Errorf("no version is on trial (status %s), so there is nothing to accept", s.Status)
		}
		return s, t, l.RecordAccept(state.AcceptRecord{TrialID: s.TrialID, At: now})
	})
}
