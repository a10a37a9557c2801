//go:build !sim

package agent

import (
	"context"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/bilbycast/edge-agent/internal/state"
	"github.com/bilbycast/edge-agent/trial"
)

// The agent starts a service that its own request stopped, and whose start failed, once the swap is
// taken back, also if the agent itself ends and starts in between.
func TestWhatTheAgentStoppedIsStarted(t *testing.T) {
	t.Parallel()
	for name, ends := range map[string]bool{"the agent goes on": false, "the agent ends": true} {
		c, l := attachedRoot(t)
		rolledBack := func() bool {
			res, err := l.Read()
			if err != nil {
				t.Fatal(err)
			}
			return res.State.Status == state.RolledBack
		}
		synctest.Test(t, func(t *testing.T) {
			var asked atomic.Int64 // several goroutines ask the unit
			var ended atomic.Bool
			ctx, cancel := context.WithCancel(t.Context())
			u := fakeUnit{
				restart: func(string, bool) error { asked.Add(1); return nil },
				look: func() (trial.Service, error) {
					if ends && rolledBack() && !ended.Swap(true) {
						cancel()
						return trial.Service{}, context.Canceled
					}
					s := up("start 1")
					s.Age = time.Hour
					if asked.Load() > 0 {
						s.State, s.Active, s.OwnStop, s.Words = trial.Stopped, false, true, "app.service is inactive"
					}
					return s, nil
				},
			}
			done := make(chan error, 1)
			attend := func() { done <- Attend(ctx, c.Config, c.Options, u) }
			go attend()
			for range 600 {
				if time.Sleep(time.Second); rolledBack() {
					break
				}
			}
			if ends {
				<-done
				ctx, cancel = context.WithCancel(t.Context())
				go attend()
			}
			before := asked.Load()
			time.Sleep(10 * time.Minute)
			if cancel(); !rolledBack() || asked.Load() == before {
				t.Errorf("%s: %d requests before the swap was taken back, and %d after it (%v)", name, before, asked.Load()-before, rolledBack())
			}
			<-done
		})
	}
}
