package upgrade

import (
	"context"
	"errors"
	"time"

	"github.com/bilbycast/edge-agent/internal/state"
)

// Discard withdraws, as an operator's decision, the upgrade that the node has begun and not
// swapped: one that is in progress, or a version that waits to be applied. An agent that
// stages it stops. What was downloaded stays. It returns what was withdrawn in the notes.
func Discard(ctx context.Context, l state.Layout) (state.Result, error) {
	var note string
	res, err := l.Do(ctx, func(s state.State, t state.Tree, now time.Time) (state.State, state.Tree, error) {
		next, err := state.Withdraw(s, "", "an operator withdrew", now)
		if err != nil {
			return s, t, err
		}
		for _, e := range next.PendingReports[len(s.PendingReports):] {
			if e.Event != nil {
				note = e.Event.Message
			}
		}
		return next, t, nil
	})
	if note != "" {
		res.Notes = append(res.Notes, note)
	}
	if errors.Is(err, state.ErrReportsPending) { // the agent's next change delivers them
		err = nil
	}
	return res, err
}
