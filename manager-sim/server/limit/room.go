package limit

import (
	"slices"
	"sync"
)

// Room bounds how many entries exist at the same time, by source and in all. When it
// is full, the oldest entry that may be ended makes room for a new one. So a source
// with many entries keeps nobody else out for long.
type Room[K comparable] struct {
	BySource, InAll int

	mu       sync.Mutex
	bySource map[string][]K // oldest first
	count    int
}

// Add puts k in. It returns the entry that the caller has to end to make room, if any.
// ok is false if no entry may be ended: then k is not in, and the caller has to end k.
func (r *Room[K]) Add(source string, k K, mayEnd func(K) bool) (end K, ended, ok bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.bySource == nil {
		r.bySource = make(map[string][]K)
	}
	from := ""
	switch {
	case len(r.bySource[source]) >= r.BySource:
		from = source
	case r.count >= r.InAll:
		for s, ks := range r.bySource { // the source that has the most
			if from == "" || len(ks) > len(r.bySource[from]) {
				from = s
			}
		}
	}
	if from != "" {
		i := slices.IndexFunc(r.bySource[from], mayEnd)
		if i < 0 {
			return end, false, false
		}
		end, ended = r.bySource[from][i], true
		r.removeAt(from, i)
	}
	r.bySource[source] = append(r.bySource[source], k)
	r.count++
	return end, ended, true
}

// Remove removes k, and reports whether it was in the room.
func (r *Room[K]) Remove(source string, k K) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	i := slices.Index(r.bySource[source], k)
	if i < 0 {
		return false
	}
	r.removeAt(source, i)
	return true
}

func (r *Room[K]) removeAt(source string, i int) {
	r.bySource[source] = slices.Delete(r.bySource[source], i, i+1)
	if len(r.bySource[source]) == 0 {
		delete(r.bySource, source)
	}
	r.count--
}
