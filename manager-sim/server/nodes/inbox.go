package nodes

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/bilbycast/edge-agent/manager-sim/store"
	"github.com/bilbycast/edge-agent/wire"
)

// Bounds of what waits to be stored while the store is away. The outbox of a node has at
// most 1,000 events.
const (
	inboxMessages = 1100
	inboxBytes    = 4 << 20
	inboxesBytes  = 64 << 20 // of all nodes
)

// arrival is a message that a node sent.
type arrival struct {
	env  wire.Envelope
	at   time.Time
	size int // bytes
}

// inboxes bounds the bytes in the inboxes of all sessions. The zero value is ready.
type inboxes struct {
	mu    sync.Mutex
	bytes int
	freed chan struct{} // closed when there is room again; nil: nobody waits
}

// inbox has the messages of one session that are not stored yet, in the order of arrival.
type inbox struct {
	all *inboxes

	// Guarded by all.mu.
	list   []arrival
	bytes  int
	closed bool

	arrived chan struct{} // has an entry while the list may have one, or the inbox is closed
}

func newInbox(all *inboxes) *inbox { return &inbox{all: all, arrived: make(chan struct{}, 1)} }

// put adds a message, once there is room. A health beat replaces the one before it: only
// the last one counts.
func (b *inbox) put(ctx context.Context, a arrival) error {
	for {
		b.all.mu.Lock()
		if b.room(a.size) {
			b.add(a)
			b.all.mu.Unlock()
			b.wake()
			return nil
		}
		if b.all.freed == nil {
			b.all.freed = make(chan struct{})
		}
		freed := b.all.freed
		b.all.mu.Unlock()
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-freed:
		}
	}
}

// room reports whether a message fits. all.mu is held.
func (b *inbox) room(size int) bool {
	return len(b.list) == 0 && b.all.bytes == 0 || len(b.list) < inboxMessages && b.bytes+size <= inboxBytes && b.all.bytes+size <= inboxesBytes
}

// add adds a message. all.mu is held.
func (b *inbox) add(a arrival) {
	// The first one is being stored.
	if last := len(b.list) - 1; last > 0 && isHealth(a) && isHealth(b.list[last]) {
		b.count(a.size - b.list[last].size)
		b.list[last] = a
		return
	}
	b.list = append(b.list, a)
	b.count(a.size)
}

func isHealth(a arrival) bool { _, is := a.env.Message.(*wire.Health); return is }

// count adds to the sizes. all.mu is held.
func (b *inbox) count(size int) {
	b.bytes += size
	b.all.bytes += size
	if size < 0 && b.all.freed != nil {
		close(b.all.freed)
		b.all.freed = nil
	}
}

func (b *inbox) wake() {
	select {
	case b.arrived <- struct{}{}:
	default:
	}
}

// first waits for the oldest message, which stays in the inbox. It reports false if the
// inbox is closed and empty, or ctx is done.
func (b *inbox) first(ctx context.Context) (arrival, bool) {
	for {
		b.all.mu.Lock()
		if len(b.list) > 0 {
			a := b.list[0]
			b.all.mu.Unlock()
			return a, true
		}
		closed := b.closed
		b.all.mu.Unlock()
		if closed {
			return arrival{}, false
		}
		select {
		case <-ctx.Done():
			return arrival{}, false
		case <-b.arrived:
		}
	}
}

// drop removes the oldest message.
func (b *inbox) drop() {
	b.all.mu.Lock()
	defer b.all.mu.Unlock()
	b.count(-b.list[0].size)
	b.list = slices.Delete(b.list, 0, 1)
}

// close makes first report false after the last message.
func (b *inbox) close() {
	b.all.mu.Lock()
	b.closed = true
	b.all.mu.Unlock()
	b.wake()
}

// isClosed reports whether no further message arrives.
func (b *inbox) isClosed() bool {
	b.all.mu.Lock()
	defer b.all.mu.Unlock()
	return b.closed
}

// discard empties the inbox.
func (b *inbox) discard() {
	b.all.mu.Lock()
	defer b.all.mu.Unlock()
	b.count(-b.bytes)
	b.list = nil
}

// startStoring starts to store what arrives in the inbox of s. The function that it returns
// stores what is left, if the store is available, and waits for the end.
func startStoring(ctx context.Context, s *session) (stop func()) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer s.inbox.discard()
		storeAll(ctx, s)
	}()
	return func() {
		s.inbox.close()
		<-done
	}
}

// storeAll stores the messages of the inbox, in their order. While the store is away it
// waits, unless the session has ended: the node repeats what was not acknowledged.
func storeAll(ctx context.Context, s *session) {
	for {
		a, ok := s.inbox.first(ctx)
		if !ok {
			return
		}
		err := s.handle(ctx, a)
		switch {
		case err == nil || s.replaced.Load():
			s.inbox.drop()
		case ctx.Err() != nil:
			return
		case awaitStore(ctx, s, err):
			if s.inbox.isClosed() {
				return
			}
		default:
			endDefect(s, err)
			return
		}
	}
}

// awaitStore waits until the store is available again, if err is the store's trouble, or until
// the session ends. It reports false for any other error.
func awaitStore(ctx context.Context, s *session, err error) bool {
	if !troubled(s.hub, err) {
		return false
	}
	s.hub.Log.Debug().Str("node_id", s.nodeID).Err(err).Msg("message of a node waits until the store is available")
	back := s.hub.Store.Back()
	for !s.inbox.isClosed() {
		select {
		case <-back:
			return true
		case <-ctx.Done():
			return true
		case <-s.inbox.arrived: // a message, or it was closed
		}
	}
	return true
}

// passes reports whether an error of a sending passes by itself: the trouble of the store, or a
// limit of time behind the work for other nodes.
func passes(h *Hub, err error) bool {
	return errors.Is(err, context.DeadlineExceeded) || troubled(h, err)
}

// again returns a channel that is closed when to try again what failed with an error that passes.
func again(h *Hub) <-chan struct{} {
	if _, away := h.Store.Away(); away != nil {
		return h.Store.Back()
	}
	c := make(chan struct{})
	time.AfterFunc(slowRetry, func() { close(c) })
	return c
}

// troubled reports whether an error is the trouble of the store, and no defect.
func troubled(h *Hub, err error) bool {
	if store.Unavailable(err) {
		return true
	}
	_, away := h.Store.Away()
	return away != nil && (errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled))
}
