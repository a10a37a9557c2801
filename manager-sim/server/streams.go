package server

import "sync"

// Bounds of the event streams that are open.
const (
	streamsByIdentity = 32
	streamsInAll      = 512
)

// openStreams counts the event streams.
type openStreams struct {
	mu  sync.Mutex
	by  map[string]int
	all int
}

// open counts a stream, and returns false if there are too many.
func (o *openStreams) open(who string) (closed func(), ok bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.by == nil {
		o.by = make(map[string]int)
	}
	if o.all >= streamsInAll || o.by[who] >= streamsByIdentity {
		return nil, false
	}
	o.all++
	o.by[who]++
	return func() {
		o.mu.Lock()
		defer o.mu.Unlock()
		o.all--
		if o.by[who]--; o.by[who] == 0 {
			delete(o.by, who)
		}
	}, true
}
