package server

import (
	"encoding/json"
	"fmt"
	"net/http"
	"sync"
	"time"

	"github.com/bilbycast/edge-agent/manager-sim/store"
)

// The records of GET /api/v1/events/stream, one JSON object each.
type (
	nodeRecord struct {
		Type    string    `json:"type"` // "authenticated" or "disconnected"
		Time    time.Time `json:"time"`
		NodeID  string    `json:"node_id"`
		Version string    `json:"version,omitempty"`
	}
	capabilityRecord struct {
		Type         string    `json:"type"` // "capabilities": at the first health beat, and when they change
		Time         time.Time `json:"time"`
		NodeID       string    `json:"node_id"`
		Version      string    `json:"version"`
		Capabilities []string  `json:"capabilities"`
	}
	ackRecord struct {
		Type      string    `json:"type"` // "ack"
		Time      time.Time `json:"time"`
		NodeID    string    `json:"node_id"`
		CommandID string    `json:"command_id"`
		Success   bool      `json:"success"`
		ErrorCode string    `json:"error_code,omitempty"`
	}
	eventRecord struct {
		Type string `json:"type"` // "event"
		store.Event
	}
)

// broadcast passes records on to whoever listens now. One that does not keep
// up is cut off: the events themselves are in the store.
type broadcast struct {
	mu          sync.Mutex
	subscribers map[chan any]bool
}

const subscriberQueue = 256

func (b *broadcast) subscribe() chan any {
	c := make(chan any, subscriberQueue)
	b.mu.Lock()
	defer b.mu.Unlock()
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

func (b *broadcast) send(v any) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for c := range b.subscribers {
		select {
		case c <- v:
		default:
			delete(b.subscribers, c)
			close(c)
		}
	}
}

// streamEvents sends records as server-sent events until either side ends it.
func (s *Server) streamEvents(w http.ResponseWriter, r *http.Request) {
	rc := http.NewResponseController(w)
	w.Header().Set("Content-Type", "text/event-stream")
	w.Header().Set("Cache-Control", "no-store")
	records := s.stream.subscribe()
	defer s.stream.unsubscribe(records)
	fmt.Fprint(w, ": listening\n\n")
	if err := rc.Flush(); err != nil {
		return
	}
	for {
		select {
		case <-r.Context().Done():
			return
		case <-s.ctx.Done():
			return
		case v, ok := <-records:
			if !ok {
				return
			}
			if !s.streamable(r, v) {
				continue
			}
			b, err := json.Marshal(v)
			if err != nil {
				return
			}
			if _, err := fmt.Fprintf(w, "data: %s\n\n", b); err != nil {
				return
			}
			if err := rc.Flush(); err != nil {
				return
			}
		}
	}
}

// streamable reports whether a record is about something that the identity has
// a role for.
func (s *Server) streamable(r *http.Request, v any) bool {
	if who(r).In("") {
		return true
	}
	var nodeID string
	switch v := v.(type) {
	case nodeRecord:
		nodeID = v.NodeID
	case capabilityRecord:
		nodeID = v.NodeID
	case ackRecord:
		nodeID = v.NodeID
	case eventRecord:
		nodeID = v.NodeID
	case rolloutRecord:
		return who(r).In(v.GroupID)
	}
	n, err := s.Store.Node(r.Context(), nodeID)
	return err == nil && who(r).In(n.GroupID)
}
