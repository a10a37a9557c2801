package server

import (
	"io"
	"net/http"
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
// arrive within 30 s and answers that are not read for 30 s.
func Bounded(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w, r = bound(w, r)
		h.ServeHTTP(w, r)
	})
}

func bound(w http.ResponseWriter, r *http.Request) (http.ResponseWriter, *http.Request) {
	if _, ok := w.(*boundedWriter); ok {
		return w, r
	}
	// A ResponseWriter of this process, as package web has, knows no deadlines: the
	// errors of the controller say that, and no more.
	rc := http.NewResponseController(w)
	if r.ContentLength != 0 {
		// Also for a handler that never reads the body: the server does, at the end.
		rc.SetReadDeadline(time.Now().Add(bodyTime))
		r2 := *r
		r2.Body = &boundedBody{r.Body, rc}
		r = &r2
	}
	if r.URL.Path == wire.Path { // a WebSocket takes over the connection, and clears the deadlines
		return w, r
	}
	rc.SetWriteDeadline(time.Time{}) // of the request before
	return &boundedWriter{w, rc}, r
}

// boundedBody lifts the deadline once the body is read: what the server reads
// afterwards is the next request, or the end of the connection.
type boundedBody struct {
	io.ReadCloser
	rc *http.ResponseController
}

func (b *boundedBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if err == io.EOF {
		b.rc.SetReadDeadline(time.Time{})
	}
	return n, err
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
