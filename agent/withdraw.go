package agent

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"

	"github.com/bilbycast/edge-agent/internal/state"
	"github.com/bilbycast/edge-agent/release"
	"github.com/bilbycast/edge-agent/wire"
)

// withdrawWait is how long the answer to a withdrawal waits for the staging to end, so that a
// command that follows it is not refused.
const withdrawWait = 5 * time.Second

// watchStateEvery is how often the agent looks whether another process, such as edge-agent
// discard, changed state.json.
const watchStateEvery = 2 * time.Second

// errWithdrawn ends the staging of a command that was withdrawn.
var errWithdrawn = release.Errorf(release.Withdrawn, "the upgrade was withdrawn")

// stagingRun is the staging of one command.
type stagingRun struct {
	id   string
	ctx  context.Context
	stop context.CancelCauseFunc
	done chan struct{}
}

// withdraw answers upgrade_withdraw. The commit of a swap and the withdrawal are changes under
// the root's lock: whichever comes first holds.
func (a *Agent) withdraw(ctx context.Context, c *wire.Command) *wire.CommandAck {
	id := c.Action.CommandID
	ack := &wire.CommandAck{CommandID: c.CommandID}
	if !a.isStaging(id) && !a.withdrawals.Allow() {
		ack.Error, ack.ErrorCode = fmt.Sprintf("too many withdrawals; this node looks at one every %v", refusalEvery), wire.ActionFailed
		return ack
	}
	err := errors.New("command_id is missing: it names the upgrade to withdraw")
	if id != "" {
		_, err = a.do(ctx, func(s state.State, t state.Tree, now time.Time) (state.State, state.Tree, error) {
			s, err := state.Withdraw(s, id, "the manager withdrew", now)
			return s, t, err
		})
	}
	if err != nil && !errors.Is(err, state.ErrReportsPending) {
		_, ack.Error = codeAndText(err)
		ack.ErrorCode = wire.ActionFailed
		a.log.Warn("upgrade not withdrawn", "error", err, "command_id", id)
		return ack
	}
	a.log.Info("upgrade withdrawn by the manager", "command_id", id)
	a.stopStaging(ctx, id)
	ack.Success = true
	return ack
}

// isStaging reports whether that command is staged now, and was not withdrawn.
func (a *Agent) isStaging(id string) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.stagingNow != nil && a.stagingNow.id == id && a.stagingNow.ctx.Err() == nil
}

// stopStaging ends the staging of a command that was withdrawn, and waits for it for a while.
func (a *Agent) stopStaging(ctx context.Context, id string) {
	a.mu.Lock()
	run := a.stagingNow
	a.mu.Unlock()
	if run == nil || run.id != id {
		return
	}
	run.stop(errWithdrawn)
	limit := time.NewTimer(withdrawWait)
	defer limit.Stop()
	select {
	case <-run.done:
	case <-limit.C:
	case <-ctx.Done():
	}
}

// watchState follows what other processes change in state.json: it ends the staging of a
// command that edge-agent discard withdrew, and has the session deliver their reports.
func (a *Agent) watchState(ctx context.Context) error {
	tick := time.NewTicker(watchStateEvery)
	defer tick.Stop()
	var last fs.FileInfo
	for {
		st, err := os.Stat(a.c.Layout.StateFile())
		if err == nil && (last == nil || !st.ModTime().Equal(last.ModTime()) || !os.SameFile(st, last)) { // its number may be used again
			last = st
			wake(a.outbox)
			a.mu.Lock()
			run := a.stagingNow
			a.mu.Unlock()
			if run != nil && a.isWithdrawn(run.id) {
				run.stop(errWithdrawn)
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// isWithdrawn reports whether a command was withdrawn while it was staged. One that is not known
// any more was: only what has ended is forgotten.
func (a *Agent) isWithdrawn(id string) bool {
	res, err := a.c.Layout.Read()
	c, ok := res.State.Command(id)
	return err == nil && (!ok || c.Code == release.Withdrawn)
}
