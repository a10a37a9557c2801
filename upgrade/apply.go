package upgrade

import (
	"context"
	"time"

	"github.com/bilbycast/edge-agent/release"
	"github.com/bilbycast/edge-agent/stage"
	"github.com/bilbycast/edge-agent/state"
)

// Apply puts the version that Shelve left for an operator on trial at the next
// start. The rollback floors apply: one may have risen since it was staged.
func Apply(ctx context.Context, l state.Layout) (state.Result, error) {
	return l.Do(ctx, func(s state.State, t state.Tree, now time.Time) (state.State, state.Tree, error) {
		if s.Status == state.StagedManual {
			if err := aboveFloor(s, s.Target, stage.SequenceOf(l, s.Target)); err != nil {
				return s, t, err
			}
		}
		return state.Apply(s, t, now)
	})
}

// aboveFloor refuses a version, or an earlier publication of one, that the
// node's rollback floor excludes. sequence 0 is not known.
func aboveFloor(s state.State, v release.Version, sequence uint64) error {
	switch {
	case v.Compare(s.Floor) < 0:
		return release.Errorf(release.VersionTooOld, "%s is below %s, the rollback floor that an installed release set", v, s.Floor)
	case sequence > 0 && sequence < s.FloorSequence:
		return release.Errorf(release.SequenceTooOld, "%s has sequence %d, below %d, the floor that an installed release set", v, sequence, s.FloorSequence)
	}
	return nil
}
