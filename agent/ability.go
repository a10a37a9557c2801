package agent

import (
	"context"
	"errors"
	"time"

	"github.com/bilbycast/edge-agent/fsutil"
)

// tryRootEvery is the pause between two tries of an install root that cannot do all that
// an upgrade needs.
const tryRootEvery = time.Minute

// tryRoot tries what upgrades need of the install root (state.Layout.Try). The node
// refuses upgrades while something is impossible. tryRoot tries again until everything
// works: an operator may repair the mount without a restart. It ends no run. Before
// each upgrade, package upgrade tries again.
func (a *Agent) tryRoot(ctx context.Context) error {
	program := a.c.Service.Binary
	if a.attached != nil { // another user executes it
		program = ""
	}
	for {
		err := a.c.Layout.Try(ctx, program)
		if ctx.Err() != nil {
			return nil
		}
		var cannot *fsutil.Inability
		if errors.As(err, &cannot) || err == nil {
			a.setUnable(cannot)
		}
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(tryRootEvery):
		}
	}
}

// setUnable records what the install root cannot do, or nil.
func (a *Agent) setUnable(cannot *fsutil.Inability) {
	var err error
	if cannot != nil {
		err = cannot
	}
	a.mu.Lock()
	before := a.unableErr
	a.unableErr = err
	a.mu.Unlock()
	switch {
	case err != nil && (before == nil || before.Error() != err.Error()):
		a.log.Error("upgrades are not possible", "error", err)
	case err == nil && before != nil:
		a.log.Info("the install root can do what upgrades need again")
	default:
		return
	}
	a.showUnavailable()
	wake(a.healthDue)
}
