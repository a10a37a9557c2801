package agent

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/bilbycast/edge-agent/internal/state"
	"github.com/bilbycast/edge-agent/trial"
)

// takeBack points current back to the version that runs: nothing started the new one.
func (j *attachedJudge) takeBack(ctx context.Context, now time.Time) (done bool, err error) {
	a := j.a
	said := !j.stuck.IsZero()
	if err := a.c.Layout.WithdrawRestart(); err != nil && !said {
		j.log.Warn("the request for a restart was not withdrawn", "error", err)
	}
	why := fmt.Sprintf("nothing restarted %s within %v after the swap: %s", a.c.Service.Unit, a.patience(), j.requests.words(j.unit))
	if j.unit.OwnStop { // nobody else starts it, whatever happens to this process
		j.record.Ends = j.unit.Invocation
		j.note(now)
	}
	res, err := a.do(ctx, func(s state.State, t state.Tree, now time.Time) (state.State, state.Tree, error) {
		if s.TrialID == j.trial {
			s, t = state.TakeBackSwap(s, t, why, now)
		}
		return s, t, nil
	})
	if err != nil && !errors.Is(err, state.ErrReportsPending) {
		if j.tried, j.stuck = now, now; !said {
			j.log.Error("the swap was not taken back; trying again", "error", err)
		}
		return false, nil
	}
	if res.State.Status != state.RolledBack { // it was started meanwhile
		if j.record.Ends != "" {
			j.record.Ends = ""
			j.note(now)
		}
		return false, nil
	}
	j.log.Error("the swap was taken back: the new version was never started", "reason", why)
	// It may have been started right before, or stopped by the agent's own request.
	if unit, err := a.attached.look(ctx); err == nil && (unit.Invocation != j.record.Before || unit.OwnStop) {
		j.record.Ends, a.attached.ended = unit.Invocation, unit.Invocation
		j.note(time.Now())
	}
	return true, nil
}

// mend returns errMend, before the first start of the trial once only: if systemd cannot start
// what serves requests, the swap is taken back.
func (j *attachedJudge) mend(seen trial.Seen) error {
	err := j.requests.mend()
	if err == nil || seen.Began {
		return err
	}
	j.record.Mended, j.record.Quiet = true, 0 // what serves requests has a window from then on
	if e := j.a.c.Layout.RecordJudge(j.record); e != nil {
		j.log.Warn("what the trial found was not recorded", "error", e)
		return nil
	}
	return err
}

// keep keeps the version. While that cannot be recorded, the version may fail: after a quarter of
// a window it is looked at again.
func (j *attachedJudge) keep(ctx context.Context, note string) (done bool, err error) {
	limited, cancel := context.WithTimeout(ctx, j.a.c.Window/4)
	defer cancel()
	if err := j.a.keep(limited, note); err != nil || limited.Err() == nil || ctx.Err() != nil {
		return true, err
	}
	return false, nil
}
