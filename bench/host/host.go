package host

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"log"
	"net"
	"net/http"
	"strings"
	"sync"

	"github.com/bilbycast/edge-agent/manager-sim/fakerelease"
	"github.com/bilbycast/edge-agent/manager-sim/selfsign"
)

// Host is a running server of the files below dir/www.
type Host struct {
	Link
	URL string
	CA  []byte // PEM
	srv *http.Server

	mu    sync.Mutex
	files map[string]int64 // bytes of each file sent, by its path
	hold  *hold
}

// hold is where the host stops to send a file.
type hold struct {
	suffix  string
	after   int64
	reached chan struct{}
}

// Start serves dir/www. The host has a certificate of its own, kept in dir.
func Start(dir string) (*Host, error) {
	cert, err := selfsign.Ensure(dir)
	if err != nil {
		return nil, err
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	_, port, _ := net.SplitHostPort(ln.Addr().String())
	h := &Host{URL: "https://localhost:" + port, CA: cert.PEM, files: map[string]int64{}}
	files := fakerelease.Handler(dir)
	h.srv = &http.Server{
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			files.ServeHTTP(&counter{w, r, h}, r)
		}),
		TLSConfig: &tls.Config{Certificates: []tls.Certificate{cert.TLS}},
		ErrorLog:  log.New(io.Discard, "", 0), // clients that are killed
	}
	go h.srv.ServeTLS(h.Listen(ln), "", "")
	return h, nil
}

// Close ends the server and its connections.
func (h *Host) Close() error { return h.srv.Close() }

// Begin forgets what was sent, and any hold.
func (h *Host) Begin() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.sent.Store(0)
	clear(h.files)
	h.hold = nil
}

// Served returns the bytes sent of files whose path ends with suffix, without TLS and
// headers.
func (h *Host) Served(suffix string) (n int64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for path, sent := range h.files {
		if strings.HasSuffix(path, suffix) {
			n += sent
		}
	}
	return n
}

// Hold makes the host stop once it has sent so many bytes of files whose path ends with
// suffix, as a link does that breaks. The channel is closed then. The host sends no more
// of them until Release.
func (h *Host) Hold(suffix string, after int64) <-chan struct{} {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.hold = &hold{suffix, after, make(chan struct{})}
	return h.hold.reached
}

// Release ends a hold for requests that come later.
func (h *Host) Release() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.hold = nil
}

// allow returns how many of n bytes of a file may be sent now, and counts them.
func (h *Host) allow(path string, n int) int {
	h.mu.Lock()
	defer h.mu.Unlock()
	if x := h.hold; x != nil && strings.HasSuffix(path, x.suffix) {
		sent := int64(0)
		for p, k := range h.files {
			if strings.HasSuffix(p, x.suffix) {
				sent += k
			}
		}
		if left := max(0, x.after-sent); int64(n) >= left {
			n = int(left)
			select {
			case <-x.reached:
			default:
				close(x.reached)
			}
		}
	}
	h.files[path] += int64(n)
	return n
}

// counter counts the body of an answer, and stops it at a hold.
type counter struct {
	http.ResponseWriter
	r *http.Request
	h *Host
}

var errHeld = errors.New("the link is held")

func (c *counter) Write(b []byte) (int, error) {
	n := c.h.allow(c.r.URL.Path, len(b))
	sent, err := c.ResponseWriter.Write(b[:n])
	if err != nil || n == len(b) {
		return sent, err
	}
	http.NewResponseController(c.ResponseWriter).Flush()
	<-c.r.Context().Done() // the client goes
	return sent, errors.Join(errHeld, context.Cause(c.r.Context()))
}
