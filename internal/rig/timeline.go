package rig

import (
	"context"
	"sync"
	"time"
)

// Where an Entry comes from.
const (
	FromManager = "manager" // its event stream: what an operator can see
	FromNode    = "node"    // the supervisor: what the device does
)

// Entry is something that happened. Type is the manager's record type
// ("event", "ack", "authenticated", "capabilities", "disconnected") or the supervisor's Kind.
type Entry struct {
	At   time.Time `json:"-"`
	From string    `json:"-"`
	Type string    `json:"type"`

	NodeID    string `json:"node_id"`
	Version   string `json:"version"`    // of "authenticated"
	ErrorCode string `json:"error_code"` // of "event" and "ack"
	Message   string `json:"message"`    // of "event"; of the supervisor's entries, their text
	CommandID string `json:"command_id"`
	Severity  string `json:"severity"`
	Success   bool   `json:"success"` // of "ack"
	Start     int    `json:"-"`       // of the supervisor's: which start of the service
	Node      string `json:"-"`       // of the supervisor's: the node's name
}

// Timeline is all that happened, in the order of its arrival.
type Timeline struct {
	tell    func(Entry)
	mu      sync.Mutex
	entries []Entry
	more    chan struct{} // closed and replaced at each entry
}

func newTimeline(tell func(Entry)) *Timeline {
	return &Timeline{tell: tell, more: make(chan struct{})}
}

func (t *Timeline) add(e Entry) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.entries = append(t.entries, e)
	if t.tell != nil {
		t.tell(e)
	}
	close(t.more)
	t.more = make(chan struct{})
}

// Mark returns the place in the timeline that is now.
func (t *Timeline) Mark() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return len(t.entries)
}

// Since returns what happened after a mark.
func (t *Timeline) Since(mark int) []Entry {
	t.mu.Lock()
	defer t.mu.Unlock()
	return append([]Entry(nil), t.entries[mark:]...)
}

// Wait returns the first entry after mark that match takes, waiting for it
// until ctx is done.
func (t *Timeline) Wait(ctx context.Context, mark int, match func(Entry) bool) (Entry, error) {
	for {
		t.mu.Lock()
		for ; mark < len(t.entries); mark++ {
			if e := t.entries[mark]; match(e) {
				t.mu.Unlock()
				return e, nil
			}
		}
		more := t.more
		t.mu.Unlock()
		select {
		case <-more:
		case <-ctx.Done():
			return Entry{}, context.Cause(ctx)
		}
	}
}
