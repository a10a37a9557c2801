package server

import (
	"io"
	"net/http"
	"sync"
	"time"

	"github.com/bilbycast/edge-agent/manager-sim/server/limit"
	"github.com/bilbycast/edge-agent/wire"
)

const (
	// bodyTime is how long a request's body may take.
	bodyTime = 30 * time.Second
	// writeTime is how long the client may take to read writeChunk bytes of an answer. The
	// whole answer may take longer.
	writeTime  = 30 * time.Second
	writeChunk = 32 << 10

	// Bounds of requests whose body has not arrived.
	bodiesBySource = 64
	bodiesInAll    = 512
)

// bounds limits how long requests and answers take.
type bounds struct {
	bodies limit.Room[*boundedBody] // of requests whose body has not arrived
}

func newBounds() *bounds {
	return &bounds{limit.Room[*boundedBody]{BySource: bodiesBySource, InAll: bodiesInAll}}
}

// apply returns the request and the answer with their limits. done ends them.
func (bs *bounds) apply(w http.ResponseWriter, r *http.Request) (_ http.ResponseWriter, _ *http.Request, done func()) {
	done = func() {}
	if _, ok := w.(*boundedWriter); ok || r.RemoteAddr == "" { // bounded already, or from this process
		return w, r, done
	}
	rc := http.NewResponseController(w)
	served := serving(r.Context())
	done = served
	if r.ContentLength != 0 {
		// Also for a handler that never reads the body: the HTTP server does, at the end.
		rc.SetReadDeadline(time.Now().Add(bodyTime))
		b := &boundedBody{ReadCloser: r.Body, rc: rc}
		ended := bs.await(limit.SourceOf(r.RemoteAddr), b)
		done = func() { ended(); served() }
		r2 := *r
		r2.Body = b
		r = &r2
	}
	if r.URL.Path == wire.Path { // a WebSocket uses the connection itself, and clears the deadlines
		return w, r, done
	}
	rc.SetWriteDeadline(time.Time{}) // of the request before
	return &boundedWriter{w, rc}, r, done
}

// await counts a body until it has arrived or ended is called. If too many are awaited,
// the oldest one is aborted.
func (bs *bounds) await(source string, b *boundedBody) (ended func()) {
	b.leave = func() { bs.bodies.Remove(source, b) }
	if old, full, _ := bs.bodies.Add(source, b, func(*boundedBody) bool { return true }); full {
		old.abort()
	}
	return b.end
}

// boundedBody is a request's body.
type boundedBody struct {
	io.ReadCloser
	rc    *http.ResponseController
	leave func() // removes it from the bodies that are awaited

	mu    sync.Mutex
	ended bool
}

// Read reads the body.
func (b *boundedBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if err == io.EOF {
		// What the HTTP server reads next is the next request, or the end of the connection.
		b.end()
		b.rc.SetReadDeadline(time.Time{})
	}
	return n, err
}

// end removes the body from those that are awaited.
func (b *boundedBody) end() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.ended {
		b.ended = true
		b.leave()
	}
}

// abort makes reading the body fail.
func (b *boundedBody) abort() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.ended { // otherwise the connection may serve another request by now
		b.rc.SetReadDeadline(time.Unix(1, 0))
	}
}

// boundedWriter gives each part of an answer its own time.
type boundedWriter struct {
	http.ResponseWriter
	rc *http.ResponseController
}

// Write writes an answer in parts.
func (b *boundedWriter) Write(p []byte) (int, error) {
	for n := 0; ; {
		part := p[n:min(len(p), n+writeChunk)]
		b.rc.SetWriteDeadline(time.Now().Add(writeTime))
		k, err := b.ResponseWriter.Write(part)
		if n += k; err != nil || n >= len(p) {
			return n, err
		}
	}
}

// FlushError is what an http.ResponseController calls.
func (b *boundedWriter) FlushError() error {
	b.rc.SetWriteDeadline(time.Now().Add(writeTime))
	return b.rc.Flush()
}

// Unwrap returns the answer without its limits.
func (b *boundedWriter) Unwrap() http.ResponseWriter { return b.ResponseWriter }
