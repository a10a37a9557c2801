package server

import (
	"context"
	"crypto/tls"
	"net"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gorilla/websocket"
)

// Bounds of sockets. Authenticated sessions count in none of them: a site with
// thousands of nodes may be behind one address.
const (
	strangersBySource = 256 // WebSockets that have not authenticated
	strangersInAll    = 2048
	connsBySource     = 512 // TCP connections that are no WebSocket
	connsInAll        = 4096
	maxStreams        = 100 // of one HTTP/2 connection
)

// room bounds how many of something there are, by source and in all. When it is
// full, the oldest one that may be ended gives way: so whoever holds many keeps
// nobody else out for long.
type room[K comparable] struct {
	bySource, inAll int

	mu  sync.Mutex
	in  map[string][]K // by source, oldest first
	all int
}

// add puts k in. It returns what has to be ended to make room, and false if k
// itself has to be.
func (r *room[K]) add(source string, k K, mayEnd func(K) bool) (end K, ended, ok bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.in == nil {
		r.in = make(map[string][]K)
	}
	from := ""
	switch {
	case len(r.in[source]) >= r.bySource:
		from = source
	case r.all >= r.inAll:
		for s, ks := range r.in { // the source that has the most
			if from == "" || len(ks) > len(r.in[from]) {
				from = s
			}
		}
	}
	if from != "" {
		i := slices.IndexFunc(r.in[from], mayEnd)
		if i < 0 {
			return end, false, false
		}
		end, ended = r.in[from][i], true
		r.drop(from, i)
	}
	r.in[source] = append(r.in[source], k)
	r.all++
	return end, ended, true
}

// remove reports whether k was in.
func (r *room[K]) remove(source string, k K) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	i := slices.Index(r.in[source], k)
	if i < 0 {
		return false
	}
	r.drop(source, i)
	return true
}

func (r *room[K]) drop(source string, i int) {
	r.in[source] = slices.Delete(r.in[source], i, i+1)
	if len(r.in[source]) == 0 {
		delete(r.in, source)
	}
	r.all--
}

// sockets are the WebSockets that have not authenticated.
type sockets struct{ room room[*session] }

func (s *sockets) opened(ss *session) {
	old, ended, ok := s.room.add(ss.source, ss, func(*session) bool { return true })
	if ended {
		old.crowdedOut()
	}
	if !ok {
		ss.crowdedOut()
	}
}

// crowdedOut ends a session that took too long to authenticate while others came.
func (ss *session) crowdedOut() {
	go func() { // the peer may not read
		ss.close(websocket.CloseTryAgainLater, "too many sockets from this address have not authenticated")
		ss.cancel()
	}()
}

// authenticated reports false for one that was ended to make room.
func (s *sockets) authenticated(ss *session) bool { return s.room.remove(ss.source, ss) }

func (s *sockets) closed(ss *session) { s.room.remove(ss.source, ss) }

// connections bounds the TCP connections of an http.Server. One that is asked
// nothing, or whose request has not arrived, gives way to a new one.
type connections struct {
	room room[*connection]
	of   sync.Map // *connection by net.Conn
}

type connection struct {
	net.Conn
	source  string
	serving atomic.Int64 // requests that are being served
}

type connectionKey struct{}

// serving counts a request of a connection until done is called.
func serving(ctx context.Context) (done func()) {
	c, ok := ctx.Value(connectionKey{}).(*connection)
	if !ok {
		return func() {}
	}
	c.serving.Add(1)
	return func() { c.serving.Add(-1) }
}

func (cs *connections) opened(ctx context.Context, conn net.Conn) context.Context {
	c := &connection{Conn: conn, source: sourceOf(conn.RemoteAddr().String())}
	cs.of.Store(conn, c)
	old, ended, ok := cs.room.add(c.source, c, func(c *connection) bool { return c.serving.Load() == 0 })
	if ended {
		abort(old.Conn)
	}
	if !ok {
		abort(conn)
	}
	return context.WithValue(ctx, connectionKey{}, c)
}

func (cs *connections) state(conn net.Conn, state http.ConnState) {
	if state != http.StateHijacked && state != http.StateClosed {
		return
	}
	if c, ok := cs.of.LoadAndDelete(conn); ok {
		c := c.(*connection)
		cs.room.remove(c.source, c)
	}
}

// abort closes a connection at once. A TLS connection would wait for a peer that
// does not read.
func abort(conn net.Conn) {
	if t, ok := conn.(*tls.Conn); ok {
		conn = t.NetConn()
	}
	conn.Close()
}

// HTTPServer returns an http.Server for s with limits that suit it: time for
// headers and between requests, and how many connections a source may have. The
// time limits of bodies and answers are those of Bounded, which a Handler that
// takes the place of s should keep.
func (s *Server) HTTPServer() *http.Server {
	c := &connections{room: room[*connection]{bySource: connsBySource, inAll: connsInAll}}
	return &http.Server{Handler: s, ConnContext: c.opened, ConnState: c.state, ReadHeaderTimeout: 10 * time.Second, IdleTimeout: 2 * time.Minute, MaxHeaderBytes: 64 << 10,
		HTTP2: &http.HTTP2Config{MaxConcurrentStreams: maxStreams, MaxReceiveBufferPerConnection: 128 << 10, MaxReceiveBufferPerStream: 64 << 10,
			SendPingTimeout: writeTime, PingTimeout: writeTime, WriteByteTimeout: writeTime}}
}
