package server

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"time"

	"github.com/bilbycast/edge-agent/manager-sim/api"
	"github.com/bilbycast/edge-agent/manager-sim/server/answer"
	"github.com/bilbycast/edge-agent/manager-sim/store"
)

const (
	// maxReplayed is how many missed events a stream repeats. A record "gap" reports that
	// there are more; the list of events has them.
	maxReplayed = api.MaxEventsPerPage
	// streamBeat is how often a stream sends something and checks its rights, whatever
	// happens.
	streamBeat = 15 * time.Second
)

// streamRoutes is the event stream.
type streamRoutes struct {
	*gate
	ctx     context.Context // of the server; all streams end with it
	records broadcast
	open    openStreams
}

// serve sends records as server-sent events until either side ends the stream. The id of
// an event is its seq. With the header Last-Event-ID the stream begins with the events
// since then. The other records are not repeated.
func (h *streamRoutes) serve(w http.ResponseWriter, r *http.Request) {
	last, err := strconv.ParseInt(cmp.Or(r.Header.Get("Last-Event-ID"), "0"), 10, 64)
	if err != nil || last < 0 {
		badRequest(w, errors.New("Last-Event-ID is not the id of an event"))
		return
	}
	if r.ContentLength != 0 && !bodyEnds(w, r) {
		badRequest(w, errors.New("this call has no body, and the body of this request does not end"))
		return
	}
	closed, ok := h.open.open(requester(r).Creator())
	if !ok {
		w.Header().Set("Retry-After", "30")
		answer.Problem(w, http.StatusTooManyRequests, api.CodeTooManyStreams, "too many event streams are open; close some, or try again in 30 s")
		return
	}
	defer closed()
	ctx, check, stop := h.identities.WhileAllowed(r.Context(), requester(r))
	defer stop()
	r = r.WithContext(ctx)
	rc := http.NewResponseController(w)
	rc.SetReadDeadline(time.Time{}) // a stream outlives the limit of a body
	w.Header().Set("Content-Type", "text/event-stream")
	w.Header().Set("Cache-Control", "no-store")
	records := h.records.subscribe() // before the replay, so that nothing is missed in between
	defer h.records.unsubscribe(records)
	fmt.Fprint(w, ": listening\n\n")
	if last > 0 {
		if last, err = h.replay(w, r, last); err != nil {
			return
		}
	}
	if err := rc.Flush(); err != nil {
		return
	}
	h.follow(w, r, records, last, check)
}

// replay sends the events after last, and returns the seq of the last one sent.
func (h *streamRoutes) replay(w http.ResponseWriter, r *http.Request, last int64) (int64, error) {
	f := store.EventFilter{Groups: requester(r).Scope(), After: last, Page: 1, PerPage: maxReplayed}
	missed, _, err := h.store.Events(r.Context(), f)
	if err != nil {
		h.log.Error().Err(err).Msg("missed events cannot be repeated")
		return last, err
	}
	budget := detailsBudget
	if len(missed) == maxReplayed { // the newest of them; there may be more
		if err := sendRecord(w, api.GapRecord{Type: api.RecordGap}); err != nil {
			return last, err
		}
	}
	for _, e := range slices.Backward(missed) {
		if err := sendRecord(w, api.EventRecord{Type: api.RecordEvent, Event: trimDetails(e, &budget)}); err != nil {
			return last, err
		}
		last = e.Seq
	}
	return last, nil
}

// follow sends records until the stream ends, except the events up to last.
func (h *streamRoutes) follow(w http.ResponseWriter, r *http.Request, records <-chan any, last int64, check func() error) {
	rc := http.NewResponseController(w)
	beat := time.NewTicker(streamBeat)
	defer beat.Stop()
	for {
		select {
		case <-r.Context().Done():
			return
		case <-h.ctx.Done():
			return
		case <-beat.C: // a comment; writing it fails once nobody reads
			if check() != nil {
				return
			}
			fmt.Fprint(w, ":\n\n")
		case v, ok := <-records:
			if !ok || r.Context().Err() != nil {
				return
			}
			if e, ok := v.(api.EventRecord); ok && e.Seq <= last {
				continue // it was repeated
			}
			if !h.visible(r, v) {
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

// visible reports whether the requester has a role for what a record is about.
func (h *streamRoutes) visible(r *http.Request, record any) bool {
	if requester(r).In("") {
		return true
	}
	var nodeID string
	switch v := record.(type) {
	case api.NodeRecord:
		nodeID = v.NodeID
	case api.CapabilityRecord:
		nodeID = v.NodeID
	case api.AckRecord:
		nodeID = v.NodeID
	case api.EventRecord:
		nodeID = v.NodeID
	case api.RolloutRecord:
		return requester(r).In(v.GroupID)
	}
	n, err := h.store.Node(r.Context(), nodeID)
	return err == nil && requester(r).In(n.GroupID)
}

// bodyEnds reads a body that nobody needs, and reports whether it ends soon. Before it
// ends the HTTP server sends nothing, whatever the handler writes.
func bodyEnds(w http.ResponseWriter, r *http.Request) bool {
	rc := http.NewResponseController(w)
	rc.SetReadDeadline(time.Now().Add(5 * time.Second))
	_, err := io.Copy(io.Discard, http.MaxBytesReader(w, r.Body, api.MaxBody))
	if err != nil {
		rc.SetReadDeadline(time.Now()) // so that nobody waits for its end now
	}
	return err == nil
}

func sendRecord(w io.Writer, record any) error {
	b, err := answer.Encode(record)
	if err != nil {
		return err
	}
	if e, ok := record.(api.EventRecord); ok {
		_, err = fmt.Fprintf(w, "id: %d\ndata: %s\n\n", e.Seq, b)
	} else {
		_, err = fmt.Fprintf(w, "data: %s\n\n", b)
	}
	return err
}
