package agent

import (
	"context"
	"slices"

	"github.com/bilbycast/edge-agent/release"
	"github.com/bilbycast/edge-agent/state"
)

// keepJournal puts the last lines of the version that failed into the event
// that tells it, unless that is delivered already.
func (a *Agent) keepJournal(ctx context.Context) {
	if a.c.Journal == nil {
		return
	}
	untold := func(e state.Entry) bool {
		return e.Event != nil && e.Event.Code == release.RolledBack && e.Event.Journal == nil
	}
	a.mu.Lock()
	unsaved := slices.IndexFunc(a.memory, untold)
	a.mu.Unlock()
	box := a.c.Layout.Outbox()
	entries, _, err := box.List()
	saved := slices.IndexFunc(entries, untold)
	if err == nil && saved < 0 && unsaved < 0 {
		return // it is delivered
	}
	var lines []string
	if err == nil {
		lines, err = a.c.Journal(ctx)
	}
	switch {
	case err != nil || len(lines) == 0:
	case unsaved >= 0: // the disk is full: it is sent from memory
		a.mu.Lock()
		e := *a.memory[unsaved].Event
		e.Journal = lines
		a.memory[unsaved].Event = &e
		a.mu.Unlock()
	default:
		err = a.c.Layout.Locked(ctx, func() error {
			return box.Amend(entries[saved].ID, func(e *state.Entry) { e.Event.Journal = lines })
		})
	}
	if err != nil {
		a.log.Warn().Err(err).Msg("the event of the rollback has no journal of the version that failed")
	}
}
