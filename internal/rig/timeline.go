package rig

import (
	"context"
	"sync"
	"time"

	"github.com/bilbycast/edge-agent/manager-sim/api"
)

// Sources of an Entry.
const (
	FromManager = "manager" // the event stream, which an operator can see
	FromNode    = "node"    // the supervisor on the device
)

// Entry is a record of the manager's event stream, or a change that the supervisor of a
// node reports. Of the latter, Type is the supervisor's Kind, and Message its text.
type Entry struct {
	api.Record
	At    time.Time
	From  string // FromManager or FromNode
	Node  string // FromNode: the node's name
	Start int    // FromNode: number of the start of the service
}

// Timeline has all entries, in the order of their arrival.
type Timeline struct {
	observe func(Entry)
	mu      sync.Mutex
	entries []Entry
	more    chan struct{} // closed and replaced at each entry
}

func newTimeline(observe func(Entry)) *Timeline {
	return &Timeline{observe: observe, more: make(chan struct{})}
}

func (t *Timeline) add(e Entry) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.entries = append(t.entries, e)
	if t.observe != nil {
		t.observe(e)
	}
	close(t.more)
	t.more = make(chan struct{})
}

// Mark returns the present end of the timeline.
func (t *Timeline) Mark() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return len(t.entries)
}

// Since returns the entries after a mark.
func (t *Timeline) Since(mark int) []Entry {
	t.mu.Lock()
	defer t.mu.Unlock()
	return append([]Entry(nil), t.entries[mark:]...)
}

// Wait returns the first entry after mark that match accepts. It waits until ctx is done.
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
