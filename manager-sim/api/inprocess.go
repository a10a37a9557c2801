package api

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
)

// InProcess returns a transport that passes requests to h by a function call. Values
// of the request's context reach the handler. An answer is kept in memory until it
// is complete, so that it does not carry a Stream.
func InProcess(h http.Handler) http.RoundTripper { return inProcess{h} }

type inProcess struct{ handler http.Handler }

func (t inProcess) RoundTrip(req *http.Request) (*http.Response, error) {
	if req.Body == nil { // a handler may read it
		r := *req
		r.Body = http.NoBody
		req = &r
	}
	defer req.Body.Close()
	a := &answer{header: http.Header{}, status: http.StatusOK}
	t.handler.ServeHTTP(a, req)
	return &http.Response{Status: fmt.Sprintf("%d %s", a.status, http.StatusText(a.status)), StatusCode: a.status, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Header: a.header, Body: io.NopCloser(&a.body), ContentLength: int64(a.body.Len()), Request: req}, nil
}

// answer is an http.ResponseWriter that keeps what is written.
type answer struct {
	header http.Header
	status int
	wrote  bool
	body   bytes.Buffer
}

func (a *answer) Header() http.Header { return a.header }

func (a *answer) WriteHeader(status int) {
	if !a.wrote {
		a.wrote, a.status = true, status
	}
}

func (a *answer) Write(b []byte) (int, error) {
	a.wrote = true
	return a.body.Write(b)
}
