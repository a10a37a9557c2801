package upgrade

import (
	"context"
	"time"

	"github.com/bilbycast/edge-agent/release"
)

// A check that fails is asked again, so that one short flap refuses no upgrade: every
// second, for five seconds and three times at the least.
const (
	runningPause = time.Second
	runningTime  = 5 * time.Second
	runningAsks  = 3
)

// Running says how to look at the version that runs, before a swap to another one. If its own
// check fails already, the swap is refused: after it nobody could tell a bad version from a
// sick node.
type Running struct {
	// Check is the running version's own check; nil: it has none, or it cannot be asked.
	Check func(context.Context) error
	// Repair is whether an operator declared the new version the repair. Then Check is not
	// asked, and only the new version's check counts.
	Repair bool
	// Accept is whether an operator accepts the new version without the proof of its link to
	// the manager (see Accept).
	Accept bool
}

// checkRunning refuses a release before its swap for the version that runs.
func (p *Pipeline) checkRunning(ctx context.Context, r Request) error {
	if r.End != Swap {
		return nil
	}
	return r.Running.ask(ctx)
}

// ask asks the check. If it goes on failing, the error has its message and the code
// release.Unhealthy.
func (r Running) ask(ctx context.Context) error {
	if r.Check == nil || r.Repair {
		return nil
	}
	end := time.Now().Add(runningTime)
	for asks := 1; ; asks++ {
		err := r.Check(ctx)
		if err == nil {
			return nil
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if asks >= runningAsks && !time.Now().Before(end) {
			return release.Errorf(release.Unhealthy, "the running version fails its own check already: %w; fix that first, or declare this release the repair (--repair)", err)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(runningPause):
		}
	}
}
