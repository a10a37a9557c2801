package stage

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"syscall"
	"time"
)

// line says how a link behaves.
type line struct {
	rate       float64       // bytes a second
	delay      time.Duration // one way, when a connection is made
	up, period time.Duration // up for so long in each period; 0: always
	// cut ends the connections when the link goes down, and refuses others at once. Without
	// it nothing arrives, and nobody is told.
	cut   bool
	start time.Time // of the first period; zero: now
}

// link is a line between this node and its release host, in memory. It works in simulated
// time, too.
type link struct {
	line
	accepted chan net.Conn
	mu       sync.Mutex
	free     [2]time.Time // when each direction has sent what it has
	sent     [2]int64     // bytes that arrived
	dials    int
	// lost are bytes that arrived at the node for nothing: of a TLS record that was cut.
	lost int64
}

const (
	toNode = 0
	toHost = 1
	packet = 1400 // bytes
	window = 32   // packets that a sender has on its way, and that a receiver has not read
)

func newLink(l line) *link {
	if l.start.IsZero() {
		l.start = time.Now()
	}
	return &link{line: l, accepted: make(chan net.Conn)}
}

// toChange returns whether the link is up at t, and how long it stays so.
func (l *link) toChange(t time.Time) (up bool, left time.Duration) {
	if l.period == 0 {
		return true, time.Hour
	}
	in := t.Sub(l.start) % l.period
	if in < l.up {
		return true, l.up - in
	}
	return false, l.period - in
}

// pass waits until a packet of n bytes has arrived; false: the connection was ended.
func (l *link) pass(dir, n int, ended <-chan struct{}) bool {
	l.mu.Lock()
	now := time.Now()
	if l.free[dir].Before(now) {
		l.free[dir] = now
	}
	l.free[dir] = l.free[dir].Add(time.Duration(float64(n) / l.rate * float64(time.Second)))
	wait := l.free[dir].Sub(now)
	l.mu.Unlock()
	for {
		if !pause(wait, ended) {
			return false
		}
		up, left := l.toChange(time.Now())
		if up {
			break
		}
		wait = left
	}
	l.mu.Lock()
	l.sent[dir] += int64(n)
	l.mu.Unlock()
	return true
}

func pause(d time.Duration, ended <-chan struct{}) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ended:
		return false
	case <-t.C:
		return true
	}
}

// dial is a Transport's DialContext.
func (l *link) dial(ctx context.Context, _, _ string) (net.Conn, error) {
	l.mu.Lock()
	l.dials++
	l.mu.Unlock()
	up, left := l.toChange(time.Now())
	if !up && l.cut {
		return nil, &net.OpError{Op: "dial", Net: "tcp", Err: os.NewSyscallError("connect", syscall.EHOSTUNREACH)}
	}
	wait := 2 * l.delay
	if !up {
		wait += left
	}
	if !pause(wait, ctx.Done()) {
		return nil, ctx.Err()
	}
	node, host := newEnds(l)
	select {
	case <-ctx.Done():
		node.reset()
		return nil, ctx.Err()
	case l.accepted <- host:
	}
	if l.cut && l.period > 0 {
		go func() {
			if _, left := l.toChange(time.Now()); pause(left, node.ended) {
				node.reset()
			}
		}()
	}
	return node, nil
}

// listener is the host's end of the link.
type listener struct {
	*link
	closed chan struct{}
	once   *sync.Once
}

func (l *link) listener() listener { return listener{l, make(chan struct{}), new(sync.Once)} }

func (l listener) Accept() (net.Conn, error) {
	select {
	case c := <-l.accepted:
		return c, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

func (l listener) Close() error { l.once.Do(func() { close(l.closed) }); return nil }
func (listener) Addr() net.Addr { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 443} }

// tlsPart is a packet, and whether it is the last one of a write, which is a TLS record.
type tlsPart struct {
	b    []byte
	last bool
}

// end is one end of a connection.
type end struct {
	link     *link
	out      chan tlsPart // closed by the sender
	in       chan []byte  // closed once all has arrived
	rest     []byte       // of the packet that is being read
	reset    func()
	ended    chan struct{}
	closed   chan struct{}
	once     sync.Once
	writing  sync.Mutex
	deadline time.Time // of writes
}

func newEnds(l *link) (node, host *end) {
	ended := make(chan struct{})
	reset := sync.OnceFunc(func() { close(ended) })
	chans := func(dir int) (from chan tlsPart, to chan []byte) {
		from, to = make(chan tlsPart, window), make(chan []byte, window)
		go func() {
			defer close(to)
			open := int64(0) // bytes of a record that is not complete
			for p := range from {
				if !l.pass(dir, len(p.b), ended) {
					break
				}
				open += int64(len(p.b))
				if p.last {
					open = 0
				}
				select {
				case to <- p.b:
				case <-ended:
				}
			}
			if dir == toNode {
				l.mu.Lock()
				l.lost += open
				l.mu.Unlock()
			}
		}()
		return from, to
	}
	fromNode, atHost := chans(toHost)
	fromHost, atNode := chans(toNode)
	node = &end{link: l, out: fromNode, in: atNode, reset: reset, ended: ended, closed: make(chan struct{})}
	host = &end{link: l, out: fromHost, in: atHost, reset: reset, ended: ended, closed: make(chan struct{})}
	return node, host
}

func (e *end) Read(b []byte) (int, error) {
	if len(e.rest) == 0 {
		select {
		case <-e.closed:
			return 0, net.ErrClosed
		case <-e.ended:
			return 0, syscall.ECONNRESET
		case p, ok := <-e.in:
			if !ok {
				select {
				case <-e.ended:
					return 0, syscall.ECONNRESET
				default:
					return 0, io.EOF
				}
			}
			e.rest = p
		}
	}
	n := copy(b, e.rest)
	e.rest = e.rest[n:]
	return n, nil
}

func (e *end) Write(b []byte) (n int, err error) {
	e.writing.Lock()
	defer e.writing.Unlock()
	var late <-chan time.Time
	if !e.deadline.IsZero() {
		t := time.NewTimer(time.Until(e.deadline))
		defer t.Stop()
		late = t.C
	}
	for len(b) > n {
		to := min(len(b), n+packet)
		p := tlsPart{append([]byte(nil), b[n:to]...), to == len(b)}
		select {
		case <-e.closed:
			return n, net.ErrClosed
		default:
		}
		select {
		case <-e.closed:
			return n, net.ErrClosed
		case <-e.ended:
			return n, syscall.ECONNRESET
		case <-late:
			return n, os.ErrDeadlineExceeded
		case e.out <- p:
			n = to
		}
	}
	return n, nil
}

// Close ends the connection for both, as a TCP connection that has data to send to an end
// that is closed.
func (e *end) Close() error {
	e.once.Do(func() {
		close(e.closed)
		e.reset()
		e.writing.Lock()
		defer e.writing.Unlock()
		close(e.out)
	})
	return nil
}

func (*end) LocalAddr() net.Addr             { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 1} }
func (*end) RemoteAddr() net.Addr            { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 443} }
func (e *end) SetDeadline(t time.Time) error { return e.SetWriteDeadline(t) }
func (*end) SetReadDeadline(time.Time) error { return nil }
func (e *end) SetWriteDeadline(t time.Time) error {
	// TLS sets it before it ends a connection.
	if !e.writing.TryLock() {
		return errors.New("a write is blocked")
	}
	defer e.writing.Unlock()
	e.deadline = t
	return nil
}
