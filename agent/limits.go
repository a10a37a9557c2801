package agent

import (
	"slices"
	"time"

	"github.com/bilbycast/edge-agent/internal/state"
	"github.com/bilbycast/edge-agent/release"
)

// Limits of what a manager's commands may write. A refused command writes some 50 KB
// to the disk. Beyond the limit it is answered, and not recorded.
const (
	refusalBurst = 16
	refusalEvery = time.Minute
	startBurst   = 8
	startEvery   = 30 * time.Second

	maxMemoryEvents = 32 // entries; the oldest make room
)

// keepInMemory keeps the event of a failed command in memory when the disk cannot
// store it.
func (a *Agent) keepInMemory(c state.Command, code release.Code, why string) {
	s := state.Fail(state.Accept(state.State{}, c), c.ID, code, why, time.Now().UTC())
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, e := range s.PendingReports {
		if e.Event != nil {
			a.memoryEvents = append(a.memoryEvents, e)
		}
	}
	if over := len(a.memoryEvents) - maxMemoryEvents; over > 0 {
		a.memoryEvents = slices.Delete(a.memoryEvents, 0, over)
	}
	wake(a.outbox)
}

func (a *Agent) eventsInMemory() []state.Entry {
	a.mu.Lock()
	defer a.mu.Unlock()
	return slices.Clone(a.memoryEvents)
}

func (a *Agent) dropFromMemory(ids []string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(a.memoryEvents) > 0 {
		a.memoryEvents = slices.DeleteFunc(a.memoryEvents, func(e state.Entry) bool { return slices.Contains(ids, e.ID) })
	}
}
