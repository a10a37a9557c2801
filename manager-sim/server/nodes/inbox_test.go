package nodes

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/bilbycast/edge-agent/wire"
)

func message(m wire.Message, size int) arrival {
	return arrival{wire.Envelope{Message: m}, time.Now(), size}
}

// An inbox has bounds: the reader waits for room, in its own inbox and in all of them. Of
// health beats in a row only the last one waits, besides one that is being stored.
func TestInboxHasBounds(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		ctx := t.Context()
		all := &inboxes{}
		b := newInbox(all)
		for range 10 {
			if err := b.put(ctx, message(&wire.Health{}, 100)); err != nil {
				t.Fatal(err)
			}
		}
		if len(b.list) != 2 || all.bytes != 200 {
			t.Errorf("%d health beats wait, %d bytes", len(b.list), all.bytes)
		}
		for len(b.list) < inboxMessages {
			if err := b.put(ctx, message(&wire.Event{}, 1)); err != nil {
				t.Fatal(err)
			}
		}
		put := make(chan error, 1)
		go func() { put <- b.put(ctx, message(&wire.Event{}, 1)) }()
		synctest.Wait()
		if len(put) > 0 {
			t.Error("a full inbox takes a message")
		}
		if a, ok := b.first(ctx); !ok || !isHealth(a) {
			t.Error("the first message is not the oldest one")
		}
		b.drop()
		if err := <-put; err != nil {
			t.Error(err)
		}
		others := make([]*inbox, inboxesBytes/inboxBytes)
		for i := range others {
			others[i] = newInbox(all)
			go func() { put <- others[i].put(ctx, message(&wire.Event{}, inboxBytes)) }()
		}
		synctest.Wait()
		if k := len(put); k != 1 || all.bytes > inboxesBytes { // the channel has room for one
			t.Errorf("%d, %d bytes in all", k, all.bytes)
		}
		for range len(others) - 1 { // all but the last one have room
			if err := <-put; err != nil {
				t.Error(err)
			}
		}
		synctest.Wait()
		if len(put) > 0 {
			t.Error("all inboxes together take too much")
		}
		b.close()
		b.discard()
		if err := <-put; err != nil {
			t.Error(err)
		}
		if _, ok := b.first(ctx); ok {
			t.Error("a closed inbox has a message")
		}
		ended, cancel := context.WithCancel(ctx)
		cancel()
		if err := others[0].put(ended, message(&wire.Event{}, 1)); err == nil {
			t.Error("a session that ended waits for room")
		}
	})
}
