package server

import (
	"cmp"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/bilbycast/edge-agent/manager-sim/api"
	"github.com/bilbycast/edge-agent/manager-sim/store"
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

// maxReplayed bounds what a stream that is taken up again repeats. A record
// "gap" says that there was more: the list of events has it.
const maxReplayed = api.MaxEventsPerPage

// streamEvents sends records as server-sent events until either side ends it. An
// event has its seq as its id: with the header Last-Event-ID the stream begins
// with the events since. The other records say only what is now.
func (s *Server) streamEvents(w http.ResponseWriter, r *http.Request) {
	last, err := strconv.ParseInt(cmp.Or(r.Header.Get("Last-Event-ID"), "0"), 10, 64)
	if err != nil || last < 0 {
		fail(w, http.StatusBadRequest, api.CodeBadRequest, "Last-Event-ID is not the id of an event")
		return
	}
	if r.ContentLength != 0 && !bodyEnds(w, r) {
		fail(w, http.StatusBadRequest, api.CodeBadRequest, "this call takes no body, and this one does not end")
		return
	}
	closed, ok := s.streams.open(who(r).maker())
	if !ok {
		w.Header().Set("Retry-After", "30")
		fail(w, http.StatusTooManyRequests, api.CodeTooManyStreams, "too many event streams are open; close some, or try again in 30 s")
		return
	}
	defer closed()
	ctx, check, stop := s.holds(r.Context(), who(r))
	defer stop()
	r = r.WithContext(ctx)
	rc := http.NewResponseController(w)
	rc.SetReadDeadline(time.Time{}) // a stream outlives the limit of a body
	w.Header().Set("Content-Type", "text/event-stream")
	w.Header().Set("Cache-Control", "no-store")
	records := s.stream.subscribe() // before the replay, so that nothing falls between
	defer s.stream.unsubscribe(records)
	fmt.Fprint(w, ": listening\n\n")
	if last > 0 {
		f := store.EventFilter{Groups: who(r).scope(), After: last, Page: 1, PerPage: maxReplayed}
		missed, _, err := s.Store.Events(r.Context(), f)
		if err != nil {
			s.Log.Error().Err(err).Msg("replay")
			return
		}
		budget := pageBudget
		if len(missed) == maxReplayed { // the newest of them; there may be more
			if err := sendRecord(w, api.GapRecord{Type: api.RecordGap}); err != nil {
				return
			}
		}
		for _, e := range slices.Backward(missed) {
			if err := sendRecord(w, api.EventRecord{Type: api.RecordEvent, Event: slim(e, &budget)}); err != nil {
				return
			}
			last = e.Seq
		}
	}
	if err := rc.Flush(); err != nil {
		return
	}
	beat := time.NewTicker(streamBeat)
	defer beat.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-s.ctx.Done():
			return
		case <-beat.C: // a comment; writing it fails once nobody reads
			if check() != nil {
				return
			}
			fmt.Fprint(w, ":\n\n")
		case v, ok := <-records:
			if !ok || ctx.Err() != nil {
				return
			}
			if e, ok := v.(api.EventRecord); ok && e.Seq <= last {
				continue // it was replayed
			}
			if !s.streamable(r, v) {
				continue
			}
			if err := sendRecord(w, v); err != nil {
				return
			}
		}
		if err := rc.Flush(); err != nil {
			return
		}
	}
}

// streamBeat is how often a stream has something, and its rights are looked at,
// whatever happens.
const streamBeat = 15 * time.Second

// bodyEnds reads a body that nobody needs, and reports whether it ends soon. Before its
// end the server sends nothing, whatever the handler writes.
func bodyEnds(w http.ResponseWriter, r *http.Request) bool {
	rc := http.NewResponseController(w)
	rc.SetReadDeadline(time.Now().Add(5 * time.Second))
	_, err := io.Copy(io.Discard, http.MaxBytesReader(w, r.Body, api.MaxBody))
	if err != nil {
		rc.SetReadDeadline(time.Now()) // and do not wait for its end now
	}
	return err == nil
}

func sendRecord(w io.Writer, v any) error {
	b, err := encode(v)
	if err != nil {
		return err
	}
	if e, ok := v.(api.EventRecord); ok {
		_, err = fmt.Fprintf(w, "id: %d\ndata: %s\n\n", e.Seq, b)
	} else {
		_, err = fmt.Fprintf(w, "data: %s\n\n", b)
	}
	return err
}

// streamable reports whether a record is about something that the identity has
// a role for.
func (s *Server) streamable(r *http.Request, v any) bool {
	if who(r).In("") {
		return true
	}
	var nodeID string
	switch v := v.(type) {
	case api.NodeRecord:
		nodeID = v.NodeID
	case api.CapabilityRecord:
		nodeID = v.NodeID
	case api.AckRecord:
		nodeID = v.NodeID
	case api.EventRecord:
		nodeID = v.NodeID
	case api.RolloutRecord:
		return who(r).In(v.GroupID)
	}
	n, err := s.Store.Node(r.Context(), nodeID)
	return err == nil && who(r).In(n.GroupID)
}
