package upgrade

import (
	"context"

	"github.com/bilbycast/edge-agent/release"
	"github.com/bilbycast/edge-agent/stage"
)

// checkReturn compares the files of the running version, which is the one to roll back
// to, with their record. A changed program or library refuses the upgrade: the node
// might have no way back. A changed data file is logged.
func (p *Pipeline) checkReturn(ctx context.Context) error {
	node, err := p.standing()
	if err != nil {
		return err
	}
	v := node.current
	changes, err := stage.Compare(ctx, p.c.Node.Layout, v)
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	for _, c := range changes {
		if c.Code {
			return release.Errorf(release.Internal, "%s would be the version to roll back to, but its file %s %s: put the file of the release back, and try again", v, c.Path, c.Why)
		}
	}
	for _, c := range changes {
		p.c.Log.Warn().Str("version", v.String()).Str("path", c.Path).Msg("a file of the running version " + c.Why)
	}
	if err != nil {
		p.c.Log.Warn().Err(err).Str("version", v.String()).Msg("not every file of the running version was compared with its record")
	}
	return nil
}
