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

// Running says how to look at the version that runs, and at what it needs, before a swap to
// another one. If its own check fails already, the swap is refused: after it nobody could tell
// a bad version from a sick node.
type Running struct {
	// Unit returns why the service's unit could not be rolled back now; nil: it is known
	// otherwise. It is asked also for a repair.
	Unit func(context.Context) error
	// Up returns why the service does not run, which no upgrade starts; nil: it is this
	// process. It is asked also for a repair.
	Up func(context.Context) error
	// Dependency asks what the service depends on; nil: nothing that is known. It is asked
	// also for a repair: without it the repair could not be judged either.
	Dependency func(context.Context) error
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

// ask asks the dependency and the check. If one goes on failing, the error has its message and
// the code release.Unhealthy.
func (r Running) ask(ctx context.Context) error {
	if r.Unit != nil {
		if err := r.Unit(ctx); err != nil {
			return release.Errorf(release.Unhealthy, "the node could not roll back: %w", err)
		}
	}
	if r.Up != nil {
		if err := keepAsking(ctx, r.Up, "%w"); err != nil {
			return err
		}
	}
	if r.Dependency != nil {
		if err := keepAsking(ctx, r.Dependency, "what the service depends on does not answer: %w; no version could be judged now; bring it back, or correct health.dependency in config.toml, then retry"); err != nil {
			return err
		}
	}
	if r.Check == nil || r.Repair {
		return nil
	}
	return keepAsking(ctx, r.Check, "the running version fails its own check already: %w; fix that first, or declare this release the repair (--repair)")
}

// keepAsking returns nil once the question is answered well. format is of the error.
func keepAsking(ctx context.Context, question func(context.Context) error, format string) error {
	end := time.Now().Add(runningTime)
	for asks := 1; ; asks++ {
		err := question(ctx)
		if err == nil {
			return nil
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if asks >= runningAsks && !time.Now().Before(end) {
			return release.Errorf(release.Unhealthy, format, err)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(runningPause):
		}
	}
}
