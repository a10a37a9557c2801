package agent

import (
	"context"
	"maps"
	"slices"

	"github.com/bilbycast/edge-agent/internal/state"
	"github.com/bilbycast/edge-agent/wire"
)

// askDelivery has the loop send the entries of the outbox that this session has not sent,
// oldest first, without those for later.
func (s *session) askDelivery(ctx context.Context) {
	if s.delivering {
		s.deliverAgain = true
		return
	}
	s.delivering, s.deliverAgain = true, false
	box, sent := s.a.c.Layout.Outbox(), maps.Clone(s.sent)
	s.disk.add(func() func() error {
		entries, bad, err := box.ListExcept(func(id string) bool { return sent[id] })
		if err != nil {
			s.a.log.Error("the outbox cannot be read; trying again", "error", err)
		}
		for _, b := range bad {
			if err := box.SetAside(ctx, b); err != nil {
				s.a.log.Error("a file of the outbox is damaged, and was not set aside", "error", b, "set_aside", err)
				continue
			}
			s.a.log.Error("a file of the outbox is damaged; kept as .corrupt", "error", b)
		}
		entries = slices.DeleteFunc(entries, s.a.forLater())
		return func() error {
			s.delivering = false
			if s.deliverAgain {
				wake(s.a.outbox)
			}
			return s.deliver(entries)
		}
	})
}

// forLater returns a function that reports whether an entry that was listed before is not to be
// delivered now: its verdict is open, or it is of a rollback that ends this run of an attached
// version. The next run adds the journal of the failed version to that event first.
func (a *Agent) forLater() func(state.Entry) bool {
	moved := false
	if a.attached != nil {
		t, err := a.c.Layout.Tree()
		moved = err == nil && t.Current != a.c.version
	}
	return func(e state.Entry) bool { return e.Watched() || moved && lacksJournal(e) }
}

// deliver sends entries. An event stays in the outbox until the manager acknowledges it, if it
// does that; other entries until they are written to the connection. What is only in memory is
// sent even if it is watched: nobody could amend it.
func (s *session) deliver(entries []state.Entry) error {
	var delivered []string
	for _, e := range append(entries, s.a.eventsInMemory()...) {
		if s.sent[e.ID] {
			continue
		}
		var m wire.Message
		if e.Event != nil {
			m = event(e)
		} else {
			m = s.a.ack(*e.Ack)
		}
		if err := s.sendAt(m, e.Time); err != nil {
			return err
		}
		s.sent[e.ID] = true
		if e.Event == nil || !slices.Contains(s.features, wire.FeatureEventAck) {
			delivered = append(delivered, e.ID)
		}
	}
	s.forget(delivered...)
	return nil
}

// forget removes entries that the manager has.
func (s *session) forget(ids ...string) {
	if len(ids) == 0 {
		return
	}
	s.a.dropFromMemory(ids)
	s.disk.add(func() func() error {
		if err := s.a.c.Layout.Outbox().Remove(ids...); err != nil {
			s.a.log.Error("delivered entries were not removed from the outbox; they will be sent again", "error", err)
		}
		return nil
	})
}
