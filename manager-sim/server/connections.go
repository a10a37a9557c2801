package server

import (
	"context"
	"crypto/tls"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/bilbycast/edge-agent/manager-sim/server/limit"
)

// Bounds of TCP connections that are no WebSocket.
const (
	connsBySource = 512
	connsInAll    = 4096
	maxStreams    = 100 // of one HTTP/2 connection
)

// HTTPServer returns an http.Server for s with limits that suit it: the time for headers
// and between requests, and the connections of a source. A Handler that replaces s
// should keep the time limits of Bounded.
func (s *Server) HTTPServer() *http.Server {
	c := &connections{room: limit.Room[*connection]{BySource: connsBySource, InAll: connsInAll}}
	return &http.Server{Handler: s, ConnContext: c.opened, ConnState: c.state, ReadHeaderTimeout: 10 * time.Second, IdleTimeout: 2 * time.Minute, MaxHeaderBytes: 64 << 10,
		HTTP2: &http.HTTP2Config{MaxConcurrentStreams: maxStreams, MaxReceiveBufferPerConnection: 128 << 10, MaxReceiveBufferPerStream: 64 << 10,
			SendPingTimeout: writeTime, PingTimeout: writeTime, WriteByteTimeout: writeTime}}
}

// connections bounds the TCP connections of an http.Server. An idle one, or one whose
// request has not arrived, makes room for a new one.
type connections struct {
	room limit.Room[*connection]
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
	c := &connection{Conn: conn, source: limit.SourceOf(conn.RemoteAddr().String())}
	cs.of.Store(conn, c)
	old, ended, ok := cs.room.Add(c.source, c, func(c *connection) bool { return c.serving.Load() == 0 })
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
		cs.room.Remove(c.source, c)
	}
}

// abort closes a connection at once. Closing a TLS connection would wait for a peer that
// does not read.
func abort(conn net.Conn) {
	if t, ok := conn.(*tls.Conn); ok {
		conn = t.NetConn()
	}
	conn.Close()
}
