package agent

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/bilbycast/edge-agent/internal/box"
	"github.com/bilbycast/edge-agent/internal/state"
	"github.com/bilbycast/edge-agent/trial"
)

// The world is bad for a week. Meanwhile any version is unproven, and a newer one can take its
// place. Then a good version is kept, and one whose own link is bad is contradicted.
func TestAWeekOfABadWorld(t *testing.T) {
	box.Long(t)
	t.Parallel()
	const week = 7 * 24 * time.Hour
	for name, good := range map[string]bool{"good version": true, "bad link": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			synctest.Test(t, func(t *testing.T) {
				j := newJudged(t, dir)
				if j.later = week; good {
					j.link = func(age time.Duration) bool { return age >= week }
				} else {
					j.probe = trial.OldHeld
				}
				unproven := false
				time.AfterFunc(week-time.Minute, func() { unproven = j.c.Layout.Reached(j.res.State) == state.Unproven })
				took, err := j.decide(t, week+time.Hour)
				if !unproven {
					t.Error("it was not unproven at the end of the week")
				}
				if good != (err == nil) || took < week || took > week+5*time.Minute {
					t.Errorf("after a week and %v: %v", took-week, err)
				}
			})
		})
	}
}
