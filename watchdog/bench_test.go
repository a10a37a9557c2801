package watchdog_test

import (
	"testing"
	"time"

	"github.com/bilbycast/edge-agent/internal/state"
	"github.com/bilbycast/edge-agent/watchdog"
)

// BenchmarkCount counts the first start of a version on trial, durably.
func BenchmarkCount(b *testing.B) {
	l := trial(b, 3)
	b.ReportAllocs()
	for b.Loop() {
		watchdog.Run(b.Context(), l)
		b.StopTimer()
		res, err := l.Do(b.Context(), func(s state.State, t state.Tree, _ time.Time) (state.State, state.Tree, error) {
			if s.Status != state.PendingHealth || s.BootAttempts != 1 {
				b.Fatalf("the start was not counted: %s, %d", s.Status, s.BootAttempts)
			}
			s.BootAttempts = 0
			return s, t, nil
		})
		if err != nil || res.State.BootAttempts != 0 {
			b.Fatalf("%+v, %v", res.State, err)
		}
		b.StartTimer()
	}
}
