package server

import "sync"

// subscriberQueue is how many records a subscriber may be behind.
const subscriberQueue = 256

// broadcast passes records to the current subscribers. One that is too slow is cut off;
// the events themselves are in the store. The zero value is ready.
type broadcast struct {
	mu          sync.Mutex
	subscribers map[chan any]bool
}

// subscribe returns a channel that gets every record until it is closed.
func (b *broadcast) subscribe() chan any {
	c := make(chan any, subscriberQueue)
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.subscribers == nil {
		b.subscribers = make(map[chan any]bool)
	}
	b.subscribers[c] = true
	return c
}

func (b *broadcast) unsubscribe(c chan any) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.subscribers[c] {
		delete(b.subscribers, c)
		close(c)
	}
}

func (b *broadcast) send(record any) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for c := range b.subscribers {
		select {
		case c <- record:
		default:
			delete(b.subscribers, c)
			close(c)
		}
	}
}

// Bounds of open event streams.
const (
	streamsByIdentity = 32
	streamsInAll      = 512
)

// openStreams counts the open event streams. The zero value is ready.
type openStreams struct {
	mu         sync.Mutex
	byIdentity map[string]int
	count      int
}

// open counts a stream of an identity until closed is called. It reports false if there
// are too many.
func (o *openStreams) open(identity string) (closed func(), ok bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.byIdentity == nil {
		o.byIdentity = make(map[string]int)
	}
	if o.count >= streamsInAll || o.byIdentity[identity] >= streamsByIdentity {
		return nil, false
	}
	o.count++
	o.byIdentity[identity]++
	return func() {
		o.mu.Lock()
		defer o.mu.Unlock()
		o.count--
		if o.byIdentity[identity]--; o.byIdentity[identity] == 0 {
			delete(o.byIdentity, identity)
		}
	}, true
}
