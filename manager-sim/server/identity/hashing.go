package identity

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/bilbycast/edge-agent/manager-sim/server/limit"
)

// Bounds of the requests that hash or wait in a hashQueue.
const (
	hashesBySource = 3
	hashesByName   = 8
	hashesInAll    = 24 // of each class
	busyWait       = 2 * time.Second
)

// The classes of a hashQueue. The first one has priority.
const (
	own      = iota // users who signed in from this source before, or are signed in
	stranger        // everybody else
	classes
)

// hashQueue lets one password be hashed at a time, because hashing needs 64 MiB.
// Sources take turns, so that none delays the others for long.
type hashQueue struct {
	mu      sync.Mutex
	running bool
	inAll   [classes]int
	held    map[string]int                      // running and waiting, by source and by name
	turns   [classes][]string                   // sources that wait, the next one first
	waiting [classes]map[string][]chan struct{} // by source
}

// enter waits for its turn, and returns a function that ends the turn. It returns
// ErrBusy at once if too many requests wait, and the cause of ctx when ctx ends.
func (q *hashQueue) enter(ctx context.Context, class int, source, name string) (leave func(), err error) {
	source, name = "source "+source, "name "+name
	q.mu.Lock()
	if q.inAll[class] >= hashesInAll || q.held[source] >= hashesBySource || class == stranger && q.held[name] >= hashesByName {
		q.mu.Unlock()
		return nil, &limit.TryLater{Wait: busyWait, Reason: "too many passwords are being checked", Cause: ErrBusy}
	}
	if q.held == nil {
		q.held = make(map[string]int)
	}
	q.inAll[class]++
	q.held[source]++
	q.held[name]++
	leave = func() {
		q.mu.Lock()
		defer q.mu.Unlock()
		q.forget(class, source, name)
		q.next()
	}
	if !q.running {
		q.running = true
		q.mu.Unlock()
		return leave, nil
	}
	turn := make(chan struct{})
	if q.waiting[class] == nil {
		q.waiting[class] = make(map[string][]chan struct{})
	}
	if len(q.waiting[class][source]) == 0 {
		q.turns[class] = append(q.turns[class], source)
	}
	q.waiting[class][source] = append(q.waiting[class][source], turn)
	q.mu.Unlock()
	select {
	case <-turn:
		return leave, nil
	case <-ctx.Done():
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	q.forget(class, source, name)
	if i := slices.Index(q.waiting[class][source], turn); i >= 0 {
		q.remove(class, source, i)
	} else { // it got its turn at the same moment
		q.next()
	}
	return nil, context.Cause(ctx)
}

func (q *hashQueue) forget(class int, keys ...string) {
	q.inAll[class]--
	for _, k := range keys {
		if q.held[k]--; q.held[k] == 0 {
			delete(q.held, k)
		}
	}
}

// remove removes the i-th waiting request of a source.
func (q *hashQueue) remove(class int, source string, i int) {
	w := slices.Delete(q.waiting[class][source], i, i+1)
	if q.waiting[class][source] = w; len(w) == 0 {
		delete(q.waiting[class], source)
		if t := slices.Index(q.turns[class], source); t >= 0 {
			q.turns[class] = slices.Delete(q.turns[class], t, t+1)
		}
	}
}

// next gives the turn to the next request.
func (q *hashQueue) next() {
	for class := range q.turns {
		if len(q.turns[class]) == 0 {
			continue
		}
		source := q.turns[class][0]
		turn := q.waiting[class][source][0]
		q.remove(class, source, 0)
		if i := slices.Index(q.turns[class], source); i >= 0 { // it has more requests: it goes to the end
			q.turns[class] = append(slices.Delete(q.turns[class], i, i+1), source)
		}
		close(turn)
		return
	}
	q.running = false
}
