package server

import (
	"io"
	"net/http"
	"sync"
	"time"

	"github.com/bilbycast/edge-agent/wire"
)

const (
	// bodyTime is how long a request's body may take.
	bodyTime = 30 * time.Second
	// writeTime is how long writeChunk bytes of an answer may take; an answer may
	// take longer in all.
	writeTime  = 30 * time.Second
	writeChunk = 32 << 10
)

// Bounded returns a handler that serves h, and ends requests whose body does not
// arrive within 30 s and answers that are not read for 30 s. Of many bodies that
// arrive at once, the oldest end earlier.
func (s *Server) Bounded(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w, r, done := s.bound(w, r)
		defer done()
		h.ServeHTTP(w, r)
	})
}

func (s *Server) bound(w http.ResponseWriter, r *http.Request) (_ http.ResponseWriter, _ *http.Request, done func()) {
	done = func() {}
	if _, ok := w.(*boundedWriter); ok || r.RemoteAddr == "" { // bounded already, or of this process
		return w, r, done
	}
	rc := http.NewResponseController(w)
	served := serving(r.Context())
	done = served
	if r.ContentLength != 0 {
		// Also for a handler that never reads the body: the server does, at the end.
		rc.SetReadDeadline(time.Now().Add(bodyTime))
		b := &boundedBody{ReadCloser: r.Body, rc: rc}
		ended := s.bodies.hold(sourceOf(r.RemoteAddr), b)
		done = func() { ended(); served() }
		r2 := *r
		r2.Body = b
		r = &r2
	}
	if r.URL.Path == wire.Path { // a WebSocket takes over the connection, and clears the deadlines
		return w, r, done
	}
	rc.SetWriteDeadline(time.Time{}) // of the request before
	return &boundedWriter{w, rc}, r, done
}

// Bounds of requests whose body has not arrived.
const (
	bodiesBySource = 64
	bodiesInAll    = 512
)

// bodies are those that have not arrived.
type bodies struct{ room room[*boundedBody] }

// hold puts b in, and returns a function that takes it out.
func (bs *bodies) hold(source string, b *boundedBody) (done func()) {
	b.leave = func() { bs.room.remove(source, b) }
	if old, ended, _ := bs.room.add(source, b, func(*boundedBody) bool { return true }); ended {
		old.cut()
	}
	return b.end
}

// boundedBody is a request's body, for as long as it has not arrived.
type boundedBody struct {
	io.ReadCloser
	rc    *http.ResponseController
	leave func()

	mu    sync.Mutex
	ended bool
}

func (b *boundedBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if err == io.EOF {
		// What the server reads next is the next request, or the end of the connection.
		b.end()
		b.rc.SetReadDeadline(time.Time{})
	}
	return n, err
}

// end takes the body out of those that are waited for.
func (b *boundedBody) end() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.ended {
		b.ended = true
		b.leave()
	}
}

// cut ends the reading of a body.
func (b *boundedBody) cut() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.ended { // otherwise the connection may be another request's by now
		b.rc.SetReadDeadline(time.Unix(1, 0))
	}
}

// boundedWriter gives each part of an answer its own time.
type boundedWriter struct {
	http.ResponseWriter
	rc *http.ResponseController
}

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

// FlushError is what a http.ResponseController calls.
func (b *boundedWriter) FlushError() error {
	b.rc.SetWriteDeadline(time.Now().Add(writeTime))
	return b.rc.Flush()
}

func (b *boundedWriter) Unwrap() http.ResponseWriter { return b.ResponseWriter }
