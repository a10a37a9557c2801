package upgrade

import (
	"context"
	"fmt"
	"time"

	"github.com/bilbycast/edge-agent/internal/state"
	"github.com/bilbycast/edge-agent/release"
	"github.com/bilbycast/edge-agent/stage"
)

// checkReturn compares the files of the version to roll back to, mostly the running one, with their record. A changed program or library refuses the upgrade: the node
// might have no way back. A changed data file is logged.
func (p *Pipeline) checkReturn(ctx context.Context) error {
	node, err := p.standing()
	if err != nil {
		return err
	}
	warnings, err := compare(ctx, p.c.Node.Layout, node.back, wayBack)
	for _, w := range warnings {
		p.c.Log.Warn(w, "version", node.back.String())
	}
	return err
}

// wayBack is what compare compares the version to roll back to for.
const wayBack = "would be the version to roll back to"

// compare compares the files of v with their record. A changed program or library is an
// error, which says that v is role; everything else is a warning.
func compare(ctx context.Context, l state.Layout, v release.Version, role string) (warnings []string, err error) {
	changes, err := stage.Compare(ctx, l, v)
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	for _, c := range changes {
		if c.Code {
			remedy := "put the file of the release back, and try again"
			if c.Path == state.DigestsFile {
				remedy = "stage the release again; if it runs, run another version first (edge-agent rollback)"
			}
			return nil, release.Errorf(release.Internal, "%s %s, but its file %s %s: %s", v, role, c.Path, c.Why, remedy)
		}
		warnings = append(warnings, fmt.Sprintf("a file of %s, %s, %s", v, c.Path, c.Why))
	}
	if err != nil {
		warnings = append(warnings, fmt.Sprintf("not every file of %s was compared with its record: %v", v, err))
	}
	return warnings, nil
}

// compareForTrial compares the version that an operator wants on trial and the one to
// return to. Both must be as they were staged.
//
// An operator's rollback is often the remedy for a damaged running version. So there the
// version to return to may have changed if the target is known not to.
func compareForTrial(ctx context.Context, l state.Layout, target, back release.Version, rollback bool) (warnings []string, err error) {
	if warnings, err = compare(ctx, l, target, "would be put on trial"); err != nil {
		return nil, err
	}
	intact := stage.Recorded(l, target) && len(warnings) == 0
	more, err := compare(ctx, l, back, wayBack)
	if err != nil && rollback && intact && ctx.Err() == nil {
		more, err = []string{err.Error()}, nil
	}
	return append(warnings, more...), err
}

// foresee returns what change would make of the root now, without making it. What it
// returns in error, change returns again.
func foresee(l state.Layout, change state.Change) (state.State, state.Tree, error) {
	res, err := l.Read()
	if err != nil {
		return state.State{}, state.Tree{}, err
	}
	return change(res.State, res.Tree, time.Now().UTC())
}
