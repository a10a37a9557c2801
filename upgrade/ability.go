package upgrade

import (
	"context"
	"errors"

	"github.com/bilbycast/edge-agent/fsutil"
	"github.com/bilbycast/edge-agent/internal/state"
	"github.com/bilbycast/edge-agent/release"
)

// tryRoot refuses an upgrade that the install root cannot store, lock or execute, before
// anything is downloaded. See state.Layout.Try. What cannot be tried now refuses nothing: on
// a full disk, staging first removes old versions.
func (p *Pipeline) tryRoot(ctx context.Context) error {
	program := p.c.Node.Service.Binary
	if p.c.Node.Service.Unit != "" { // the service runs as another user, and staging does not run it
		program = ""
	}
	cannot := tryRoot(ctx, p.c.Node.Layout, program)
	switch {
	case cannot == nil:
		return nil
	case cannot.Ability == fsutil.CanExec:
		return release.Errorf(release.ExtractFailed, "no release can run here: %w", cannot)
	}
	return release.Errorf(release.Internal, "no release can be installed here: %w", cannot)
}

func tryRoot(ctx context.Context, l state.Layout, program string) *fsutil.Inability {
	var cannot *fsutil.Inability
	errors.As(l.Try(ctx, program), &cannot)
	return cannot
}
