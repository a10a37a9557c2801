//go:build !sim

package agent

import (
	"context"
	"crypto/tls"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/bilbycast/edge-agent/wire"
	"github.com/gorilla/websocket"
)

// slowLink is both ends of a link. What one end writes arrives at the other after half a round
// trip; pause, if set, is how long each piece of what the second end writes takes besides.
func slowLink(ctx context.Context, trip time.Duration, pause func(piece int) time.Duration) (node, manager net.Conn) {
	node, a := net.Pipe()
	b, manager := net.Pipe()
	relay := func(from, to net.Conn, pause func(int) time.Duration) {
		type piece struct {
			at time.Time
			b  []byte
		}
		line := make(chan piece, 10_000)
		go func() {
			defer close(line)
			for {
				b := make([]byte, 32<<10)
				n, err := from.Read(b)
				if err != nil {
					return
				}
				for i := 0; i < n; i += 512 {
					line <- piece{time.Now().Add(trip / 2), b[i:min(i+512, n)]}
				}
			}
		}()
		n := 0
		for p := range line {
			wait := max(0, time.Until(p.at))
			if pause != nil {
				wait += pause(n)
			}
			n++
			select {
			case <-time.After(wait):
			case <-ctx.Done():
			}
			to.Write(p.b)
		}
		to.Close()
	}
	go relay(a, b, nil)
	go relay(b, a, pause)
	context.AfterFunc(ctx, func() { a.Close(); b.Close() })
	return node, manager
}

// A connection is limited by how long nothing arrives, not by how long all of it takes.
func TestSlowLinks(t *testing.T) {
	t.Parallel()
	_, cert := authority(t, "manager")
	every := func(d time.Duration) func(int) time.Duration { return func(int) time.Duration { return d } }
	for name, tt := range map[string]struct {
		connect, trip time.Duration
		pause         func(piece int) time.Duration
		tls12         bool
		within        time.Duration // it fails until then; 0: it succeeds
	}{
		"a round trip of 4.8 s":                {connect: 4800 * time.Millisecond, trip: 4800 * time.Millisecond},
		"a round trip of 4.8 s, TLS 1.2":       {connect: 4800 * time.Millisecond, trip: 4800 * time.Millisecond, tls12: true},
		"a round trip of 12 s":                 {connect: 12 * time.Second, trip: 12 * time.Second, tls12: true},
		"512 bytes in 8 s":                     {pause: every(8 * time.Second)},
		"a packet that was lost":               {trip: 4 * time.Second, pause: func(n int) time.Duration { return time.Duration(n%6/5) * 20 * time.Second }},
		"nothing arrives":                      {pause: every(time.Hour), within: silentTimeout},
		"nothing arrives after the first part": {pause: func(n int) time.Duration { return time.Duration(n) * time.Hour }, within: silentTimeout},
		"a server that never comes to an end":  {pause: func(n int) time.Duration { return min(time.Duration(n)*20*time.Second, 25*time.Second) }, within: dialTimeout},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := rootWith(t, "wss://127.0.0.1:1")
				c.Manager.AcceptSelfSignedCert = true
				r, err := c.resolve()
				if err != nil {
					t.Fatal(err)
				}
				ctx, cancel := context.WithCancel(t.Context())
				defer synctest.Wait()
				defer cancel()
				r.connect = func(context.Context, string, string) (net.Conn, error) {
					node, manager := slowLink(ctx, tt.trip, tt.pause)
					go serveOnce(manager, cert, tt.tls12)
					time.Sleep(tt.connect)
					return node, nil
				}
				d, err := r.dialer()
				if err != nil {
					t.Fatal(err)
				}
				began := time.Now()
				conn, err := dial(ctx, d, r.URLs[0])
				if err == nil {
					defer conn.Close()
				}
				took := time.Since(began)
				if tt.within == 0 && err != nil || tt.within > 0 && (err == nil || took > tt.within || !isTimeout(err)) {
					t.Errorf("after %v: %v", took, err)
				}
			})
		})
	}
}

// serveOnce is a manager for one connection: it opens the WebSocket and waits.
func serveOnce(c net.Conn, cert tls.Certificate, tls12 bool) {
	conf := &tls.Config{Certificates: []tls.Certificate{cert}}
	if tls12 {
		conf.MaxVersion = tls.VersionTLS12
	}
	l := &oneConn{c: tls.Server(c, conf)}
	http.Serve(l, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		// Long, as some proxies answer.
		conn, err := new(websocket.Upgrader).Upgrade(w, r, http.Header{"X-Padding": {strings.Repeat("x", 8<<10)}})
		if err == nil {
			conn.ReadMessage()
			conn.Close()
		}
	}))
}

type oneConn struct{ c net.Conn }

func (l *oneConn) Accept() (net.Conn, error) {
	c := l.c
	l.c = nil
	if c == nil {
		return nil, io.EOF
	}
	return c, nil
}
func (l *oneConn) Close() error   { return nil }
func (l *oneConn) Addr() net.Addr { return &net.TCPAddr{} }

// The end of the process does not wait for a server that says nothing.
func TestADialEndsWithTheProcess(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		c, err := l.Accept()
		if err == nil {
			defer c.Close()
			c.Read(make([]byte, 1)) // the request is there
			cancel()
			io.Copy(io.Discard, c)
		}
	}()
	r, err := rootWith(t, "ws://"+l.Addr().String()).resolve()
	if err != nil {
		t.Fatal(err)
	}
	d, err := r.dialer()
	if err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	if _, err := dial(ctx, d, r.URLs[0]); err == nil || time.Since(began) > silentTimeout/2 {
		t.Errorf("after %v: %v", time.Since(began), err)
	}
}

// A long message is limited by how long a piece of it takes.
func TestALongMessageOnASlowLink(t *testing.T) {
	t.Parallel()
	for name, pause := range map[string]time.Duration{"slow": writeTimeout * 9 / 10, "stalled": writeTimeout * 11 / 10} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				node, manager := net.Pipe()
				var conn *websocket.Conn
				dialed := make(chan struct{})
				go func() {
					defer close(dialed)
					conn, _, _ = (&websocket.Dialer{WriteBufferSize: 4 << 10, NetDialContext: func(context.Context, string, string) (net.Conn, error) { return node, nil }}).Dial("ws://manager/", nil)
				}()
				ended := make(chan struct{})
				defer func() { <-ended }()
				go http.Serve(&oneConn{manager}, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					defer close(ended)
					c, err := new(websocket.Upgrader).Upgrade(w, r, nil)
					for err == nil {
						time.Sleep(pause)
						_, err = c.NetConn().Read(make([]byte, 2*writeChunk))
					}
				}))
				<-dialed
				defer conn.Close()
				pieces := 0
				err := sendTo(conn, &wire.Event{EventID: "e", Category: wire.CategoryUpgrade, Severity: "info", Message: strings.Repeat("x", 20<<10)}, time.Now(), func() { pieces++ })
				if slow := name == "slow"; (err == nil) != slow || !slow && !isTimeout(err) || slow && pieces < 5 {
					t.Errorf("after %d pieces: %v", pieces, err)
				}
			})
		})
	}
}
