package agent

import (
	"context"
	"slices"

	"github.com/bilbycast/edge-agent/internal/state"
	"github.com/bilbycast/edge-agent/release"
)

// attachJournal adds the last lines of the failed version to the event of its
// rollback, unless the manager has the event already.
func (a *Agent) attachJournal(ctx context.Context) {
	if a.c.Journal == nil {
		return
	}
	a.mu.Lock()
	inMemory := slices.IndexFunc(a.memoryEvents, lacksJournal)
	a.mu.Unlock()
	box := a.c.Layout.Outbox()
	entries, _, err := box.List()
	saved := slices.IndexFunc(entries, lacksJournal)
	if err == nil && saved < 0 && inMemory < 0 {
		return // the manager has it
	}
	var lines []string
	if err == nil {
		lines, err = callValue(ctx, a.calls.journal, a.c.Journal)
	}
	switch {
	case err != nil || len(lines) == 0:
	case inMemory >= 0: // the disk is full: it is sent from memory
		a.mu.Lock()
		e := *a.memoryEvents[inMemory].Event
		e.Journal = lines
		a.memoryEvents[inMemory].Event = &e
		a.mu.Unlock()
	default:
		err = a.c.Layout.Locked(ctx, func() error {
			return box.Amend(entries[saved].ID, func(e *state.Entry) { e.Event.Journal = lines })
		})
	}
	if err != nil {
		a.log.Warn("the journal of the failed version was not added to the event of the rollback", "error", err)
	}
}

// lacksJournal reports whether e is the event of a rollback, without the failed version's journal.
func lacksJournal(e state.Entry) bool {
	return e.Event != nil && e.Event.Code == release.RolledBack && e.Event.Journal == nil
}
