package agent

import (
	"context"
	"fmt"
	"time"

	"github.com/bilbycast/edge-agent/internal/state"
	"github.com/bilbycast/edge-agent/release"
	"github.com/bilbycast/edge-agent/stage"
	"github.com/bilbycast/edge-agent/wire"
)

// A wait is recorded once it has lasted for recordWaitAfter, and again when it has used up more
// of the time that the download is retried for: first recordWaitFirst, in the end
// recordWaitEvery. So an outage costs two writes, a restart renews next to nothing, a node that
// often loses its power gives up, too, and edge-agent status shows the wait. Hosts that can be
// reached only by turns are recorded, and logged, every recordWaitEvery.
const (
	recordWaitAfter = 15 * time.Second
	recordWaitFirst = time.Minute
	recordWaitEvery = 5 * time.Minute
)

// downloadWait is what the download of one command waits for. It belongs to the goroutine
// that stages.
type downloadWait struct {
	a          *Agent
	ctx        context.Context
	id         string
	began      time.Time
	counted    time.Duration // when it began
	told       stage.Wait
	logged     time.Time
	recorded   *state.Wait // in state.json
	recordedAt time.Time   // by this process
}

func (a *Agent) newDownloadWait(ctx context.Context, c state.Command) *downloadWait {
	w := &downloadWait{a: a, ctx: ctx, id: c.ID, began: time.Now(), recorded: c.Wait}
	w.counted = w.before().Counted
	return w
}

// before is what an earlier process, or an earlier attempt, recorded.
func (w *downloadWait) before() stage.Wait {
	if w.recorded == nil {
		return stage.Wait{}
	}
	return stage.Wait{Since: w.recorded.Since, Counted: time.Duration(w.recorded.CountedSecs) * time.Second, Have: w.recorded.Have}
}

// tell shows and records what the download waits for.
func (w *downloadWait) tell(now stage.Wait) {
	before := w.told
	w.told = now
	a := w.a
	if now == (stage.Wait{}) {
		a.showWait(nil)
		if w.recorded != nil {
			a.log.Info("the download continues", "command_id", w.id)
			w.record(w.ctx, nil)
		}
		return
	}
	hold := &wire.Hold{Reason: release.Foreign(now.Reason, wire.MaxHold), Since: now.Since.UTC()}
	if !now.Away {
		hold.Until = time.Now().Add(now.Left).UTC()
	}
	a.showWait(hold)
	begins := before == (stage.Wait{})
	if begins {
		wake(a.healthDue)
	}
	if (begins || before.Away != now.Away) && time.Since(w.logged) >= recordWaitEvery {
		w.logged = time.Now()
		a.log.Warn("the download waits for "+hold.Reason, "command_id", w.id, "unreachable", now.Away)
		wake(a.healthDue)
	}
	if w.mustRecord(now) {
		w.record(w.ctx, w.entry(hold))
	}
}

// mustRecord reports whether a wait is to be written to state.json.
func (w *downloadWait) mustRecord(now stage.Wait) bool {
	rests := time.Since(w.recordedAt) >= recordWaitEvery
	recorded := w.before().Counted
	switch r := w.recorded; {
	case max(time.Since(now.Since), now.Counted-recorded) < recordWaitAfter: // Since may be by the clock of another start
		return false
	case r == nil, r.Until.IsZero() != now.Away:
		return rests
	case r.Resumed && time.Since(w.began) >= recordWaitAfter: // this process waits as well
		return true
	}
	return now.Counted-recorded >= min(recordWaitEvery, max(recordWaitFirst, 2*(recorded-w.counted)))
}

func (w *downloadWait) entry(h *wire.Hold) *state.Wait {
	return &state.Wait{Reason: h.Reason, Since: h.Since, Until: h.Until, CountedSecs: int64(w.told.Counted / time.Second), Have: w.told.Have}
}

// record writes the wait to state.json. An error costs what the record is for, and no more.
func (w *downloadWait) record(ctx context.Context, r *state.Wait) {
	if _, err := w.a.do(ctx, func(s state.State, t state.Tree, _ time.Time) (state.State, state.Tree, error) {
		return state.Waiting(s, w.id, r), t, nil
	}); err != nil {
		w.a.log.Debug("what the download waits for was not recorded", "error", err)
		return
	}
	w.recorded, w.recordedAt = r, time.Now()
}

// interrupted records the wait when the process is to end.
func (w *downloadWait) interrupted() {
	hold := w.a.waits.Load()
	if w.told == (stage.Wait{}) || hold == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(w.ctx), time.Second)
	defer cancel()
	w.record(ctx, w.entry(hold))
}

// showWait shows what the download waits for in health and in the status text; nil: nothing.
func (a *Agent) showWait(h *wire.Hold) {
	if a.waits.Swap(h) == nil && h == nil {
		return
	}
	if h == nil {
		wake(a.healthDue)
	}
	a.setStatus(func(w *statusText) {
		w.upgrade = "staging " + a.target
		if p := a.progress.Load(); p != nil {
			w.upgrade += " (" + p.Phase + ")"
		}
		if h != nil {
			w.upgrade += fmt.Sprintf(", waiting for %s", release.Foreign(h.Reason, maxReason/2))
		}
	})
}

// holdOf returns what health says that the node waits for. version is that of an unproven
// version, or nil.
func (a *Agent) holdOf(version *wire.Hold) *wire.Hold {
	download := a.waits.Load()
	if version == nil || download == nil {
		if version == nil {
			version = download
		}
		return version
	}
	both := *version
	both.Reason = release.Foreign(version.Reason+"; and its next download for "+download.Reason, wire.MaxHold)
	return &both
}
