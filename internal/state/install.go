package state

import (
	"time"

	"github.com/bilbycast/edge-agent/release"
)

// Install makes tr.Target the good version of a root that has none. The floors
// of its release hold from now on, unless an earlier state has higher ones.
func Install(s State, tr Trial, now time.Time) State {
	return atRest(s, Stable, tr.Target, now).raiseFloor(tr.RollbackFloor, tr.FloorSequence)
}

// raiseFloor returns s with the rollback floor of a release; neither the version
// nor the sequence ever falls.
func (s State) raiseFloor(floor release.Version, sequence uint64) State {
	if floor.Compare(s.Floor) >= 0 {
		s.Floor, s.FloorSequence = floor, max(s.FloorSequence, sequence)
	}
	return s
}
