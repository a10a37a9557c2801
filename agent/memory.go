package agent

import (
	"slices"
	"time"

	"github.com/bilbycast/edge-agent/release"
	"github.com/bilbycast/edge-agent/state"
)

// Limits of what commands may cost. A command that is refused writes some 50 KB
// to the disk; beyond the limit it is answered all the same, and not recorded.
const (
	refusalBurst = 16
	refusalEvery = time.Minute
	startBurst   = 8
	startEvery   = 30 * time.Second

	maxMemory = 32 // entries; the oldest make room
)

// remember keeps the event of a command's failure in memory, since the disk
// cannot take it.
func (a *Agent) remember(c state.Command, code release.Code, why string) {
	s := state.Fail(state.Accept(state.State{}, c), c.ID, code, why, time.Now().UTC())
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, e := range s.PendingReports {
		if e.Event != nil {
			a.memory = append(a.memory, e)
		}
	}
	if over := len(a.memory) - maxMemory; over > 0 {
		a.memory = slices.Delete(a.memory, 0, over)
	}
	wake(a.outbox)
}

func (a *Agent) fromMemory() []state.Entry {
	a.mu.Lock()
	defer a.mu.Unlock()
	return slices.Clone(a.memory)
}

func (a *Agent) forgetMemory(ids []string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(a.memory) > 0 {
		a.memory = slices.DeleteFunc(a.memory, func(e state.Entry) bool { return slices.Contains(ids, e.ID) })
	}
}
