// Package host serves the files of a benchmark over HTTPS, at the speed of a link, and
// counts what it sends.
//
// All connections share the link. Bytes are counted as they are sent, with TLS and
// headers; of a connection that breaks, some may not have arrived. The package keeps
// nothing on disk, and listens on loopback only.
package host

import (
	"context"
	"net"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"
)

// piece is the most that is sent at once where the link has a limit, in bytes: about
// 1 ms at 100 Mbit/s.
const piece = 16 << 10

// Link limits and counts what some connections send. Its zero value has no limit.
type Link struct {
	sent    atomic.Int64
	limiter atomic.Pointer[rate.Limiter]
}

// SetRate limits the link to so many bits a second; 0 removes the limit. It begins with
// an empty bucket, so that a run does not profit from a pause before it.
func (l *Link) SetRate(bitsPerSecond int64) {
	if bitsPerSecond == 0 {
		l.limiter.Store(nil)
		return
	}
	perSecond := float64(bitsPerSecond) / 8
	// A sender that was not scheduled for 20 ms catches up.
	bucket := rate.NewLimiter(rate.Limit(perSecond), max(2*piece, int(perSecond/50)))
	bucket.AllowN(time.Now(), bucket.Burst())
	l.limiter.Store(bucket)
}

// Sent returns the bytes that all connections have sent.
func (l *Link) Sent() int64 { return l.sent.Load() }

// Listen returns a listener whose connections use the link.
func (l *Link) Listen(ln net.Listener) net.Listener { return &listener{ln, l} }

type listener struct {
	net.Listener
	link *Link
}

func (l *listener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(context.Background()) // a connection's life: Close ends it
	return &conn{c, l.link, ctx, cancel}, nil
}

type conn struct {
	net.Conn
	link   *Link
	ctx    context.Context
	cancel context.CancelFunc
}

func (c *conn) Close() error {
	c.cancel()
	return c.Conn.Close()
}

func (c *conn) Write(b []byte) (sent int, err error) {
	for {
		part := b[sent:]
		if bucket := c.link.limiter.Load(); bucket != nil {
			part = part[:min(len(part), piece)]
			if err := bucket.WaitN(c.ctx, len(part)); err != nil {
				return sent, net.ErrClosed
			}
		}
		n, err := c.Conn.Write(part)
		c.link.sent.Add(int64(n))
		if sent += n; err != nil || sent == len(b) {
			return sent, err
		}
	}
}
