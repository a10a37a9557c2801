package stage

import (
	"context"
	"fmt"

	"github.com/bilbycast/edge-agent/fsutil"
	"github.com/bilbycast/edge-agent/internal/state"
	"github.com/bilbycast/edge-agent/release"
)

// unused returns an error, which names the process, if any process uses version v: a
// second service that runs from the same root is not restarted by an upgrade. The
// caller does not hold the root's lock.
//
// A process that starts from v after that is not seen. No link points to v then, so a
// service does not do that.
func unused(ctx context.Context, l state.Layout, v release.Version) error {
	by, err := fsutil.InUse(ctx, l.Version(v))
	if err != nil {
		return fmt.Errorf("version %s is kept, because a process may use it: %w", v, err)
	}
	if by != "" {
		return fmt.Errorf("version %s is kept: %s; restart its service to run the current version", v, by)
	}
	return nil
}

// discardable returns an error if a process uses a directory that is to be removed from
// versions/: the old files of a version that was replaced while it ran.
func discardable(ctx context.Context, dir string) error {
	by, err := fsutil.InUse(ctx, dir)
	if err == nil && by != "" {
		err = fmt.Errorf("%s is in use: %s; restart its service", dir, by)
	}
	return err
}

// discard removes a leftover that no process uses. Leftovers are harmless: the next Stage
// or Tidy tries again.
func (s *Stager) discard(ctx context.Context, dir string) {
	if discardable(ctx, dir) == nil {
		s.Layout.Disk().Discard(dir)
	}
}
