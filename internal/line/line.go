// Package line is the line between a node and its manager, and fails in the ways that
// real lines fail. It is for tests.
//
// A line listens on an address of loopback of its own, and passes each connection on to
// the manager, or does what its present Fault says. Set changes the fault, and resets the
// open connections: each later one meets the new fault. The manager itself is real.
package line

import (
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Line is one line. Its methods are safe for concurrent use.
type Line struct {
	target string // host:port of the manager
	addr   *net.TCPAddr

	set       sync.Mutex // one Set at a time
	accepting sync.WaitGroup
	serving   sync.WaitGroup

	mu       sync.Mutex
	listener io.Closer // of the present fault
	open     map[net.Conn]bool
	count    int // connections, since New
	closed   bool
}

// Fault is how a line fails. Sound is the one that does not.
type Fault struct {
	listen func(*net.TCPAddr) (io.Closer, error) // nil: accepts connections
	serve  func(l *Line, c net.Conn, n int)      // n counts the connections from 1
}

// Conn returns the fault that serves each connection with f. The line closes c when f
// returns. n counts the connections of this fault from 1.
func Conn(f func(l *Line, c net.Conn, n int)) Fault { return Fault{serve: f} }

// Serve does with a connection what the fault does. A fault of Conn may call it.
func (f Fault) Serve(l *Line, c net.Conn, n int) { f.serve(l, c, n) }

// New returns a sound line to target, which is host:port.
func New(target string) (*Line, error) {
	l := &Line{target: target, open: make(map[net.Conn]bool),
		// Nobody else connects from this address, so its port stays free while nobody listens.
		addr: &net.TCPAddr{IP: net.IPv4(127, byte(rand.IntN(250)+2), byte(rand.IntN(250)+2), byte(rand.IntN(250)+2))}}
	return l, l.Set(Sound)
}

// Addr returns host:port, where the node finds the manager.
func (l *Line) Addr() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.addr.String()
}

// IP returns the host of Addr.
func (l *Line) IP() net.IP { return l.addr.IP }

// Count returns how many connections were accepted so far.
func (l *Line) Count() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.count
}

// Set changes the fault, and resets the open connections.
func (l *Line) Set(f Fault) error { return l.change(f, false) }

// SetLater changes the fault for later connections. The open ones go on.
func (l *Line) SetLater(f Fault) error { return l.change(f, true) }

func (l *Line) change(f Fault, keep bool) error {
	l.set.Lock()
	defer l.set.Unlock()
	l.end(keep)
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return errors.New("line: closed")
	}
	if f.listen != nil {
		closer, err := f.listen(l.addr)
		l.listener = closer
		return err
	}
	listener, err := net.ListenTCP("tcp", l.addr)
	if err != nil {
		return fmt.Errorf("line: %w", err)
	}
	l.addr, l.listener = listener.Addr().(*net.TCPAddr), listener
	l.accepting.Go(func() { l.accept(listener, f) })
	return nil
}

// end closes the listener, and resets the open connections unless they are to be kept. The
// caller holds set.
func (l *Line) end(keep bool) {
	l.mu.Lock()
	if l.listener != nil {
		if c, ok := l.listener.(syscall.Conn); ok {
			stopListening(c)
		}
		l.listener.Close()
		l.listener = nil
	}
	for c := range l.open {
		if !keep {
			reset(c)
		}
	}
	l.mu.Unlock()
	l.accepting.Wait() // until then the address may be in use
}

// stopListening frees the address of a listener. Its Close alone would not, while this
// process forks: until exec the child has the socket as well.
func stopListening(c syscall.Conn) {
	if raw, err := c.SyscallConn(); err == nil {
		raw.Control(func(fd uintptr) { unix.Shutdown(int(fd), unix.SHUT_RDWR) })
	}
}

// Close ends the line.
func (l *Line) Close() {
	l.set.Lock()
	defer l.set.Unlock()
	l.mu.Lock()
	l.closed = true
	l.mu.Unlock()
	l.end(false)
	l.serving.Wait()
}

func (l *Line) accept(from *net.TCPListener, f Fault) {
	for n := 1; ; n++ {
		c, err := from.AcceptTCP()
		if err != nil {
			return
		}
		l.mu.Lock()
		if l.listener != from { // Set came first
			l.mu.Unlock()
			reset(c)
			return
		}
		l.count++
		l.open[c] = true
		l.mu.Unlock()
		l.serving.Go(func() {
			f.serve(l, c, n)
			c.Close()
			l.mu.Lock()
			defer l.mu.Unlock()
			delete(l.open, c)
		})
	}
}

// reset ends a connection without the peer's FIN: what is not read yet is lost.
func reset(c net.Conn) {
	if t, ok := c.(*net.TCPConn); ok {
		t.SetLinger(0)
	}
	c.Close()
}

// splice copies in both directions until one end closes.
func splice(a, b net.Conn) {
	var wg sync.WaitGroup
	copyTo := func(to, from net.Conn) {
		io.Copy(to, from)
		to.Close()
		from.Close()
	}
	wg.Go(func() { copyTo(a, b) })
	copyTo(b, a)
	wg.Wait()
}

// Forward passes c on to the manager until one of them closes.
func (l *Line) Forward(c net.Conn) {
	up, err := net.Dial("tcp", l.target)
	if err != nil {
		reset(c)
		return
	}
	splice(c, up)
}

// The faults of the network, besides those with a parameter.
var (
	// Sound passes everything on.
	Sound = Conn(func(l *Line, c net.Conn, _ int) { l.Forward(c) })
	// Refused answers each SYN with RST: nobody listens.
	Refused = Fault{listen: func(*net.TCPAddr) (io.Closer, error) { return io.NopCloser(nil), nil }}
	// Dropped answers no SYN.
	Dropped = Fault{listen: fullBacklog}
	// Stalls accepts connections, and never answers a byte.
	Stalls = Conn(func(_ *Line, c net.Conn, _ int) { io.Copy(io.Discard, c) })
	// Resets ends each connection at once.
	Resets = Conn(func(_ *Line, c net.Conn, _ int) { reset(c) })
)

// ResetsAfter resets each connection after the time that life returns for it; 0: never.
func ResetsAfter(life func() time.Duration) Fault {
	return Conn(func(l *Line, c net.Conn, _ int) {
		if d := life(); d > 0 {
			defer time.AfterFunc(d, func() { reset(c) }).Stop()
		}
		l.Forward(c)
	})
}

// UpSometimes is a line that is up for the first part of every period, and answers nothing
// in the rest of it.
func UpSometimes(up, period time.Duration) Fault {
	began := time.Now()
	return Conn(func(l *Line, c net.Conn, _ int) {
		left := up - time.Since(began)%period
		if left <= 0 {
			io.Copy(io.Discard, c)
			return
		}
		defer time.AfterFunc(left, func() { reset(c) }).Stop()
		l.Forward(c)
	})
}

// fullBacklog listens with a backlog that is full: the kernel drops every further SYN.
func fullBacklog(addr *net.TCPAddr) (io.Closer, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	b := &backlog{fd: fd}
	to := &unix.SockaddrInet4{Port: addr.Port, Addr: [4]byte(addr.IP.To4())}
	err = errors.Join(unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1), unix.Bind(fd, to), unix.Listen(fd, 0))
	for err == nil {
		c, dialErr := net.DialTimeout("tcp", addr.String(), 100*time.Millisecond)
		if dialErr != nil {
			return b, nil
		}
		if b.waiting = append(b.waiting, c); len(b.waiting) > 16 {
			err = errors.New("line: the kernel drops no SYN")
		}
	}
	b.Close()
	return nil, err
}

type backlog struct {
	fd      int
	waiting []net.Conn
}

func (b *backlog) Close() error {
	for _, c := range b.waiting {
		reset(c)
	}
	unix.Shutdown(b.fd, unix.SHUT_RDWR) // see stopListening
	return unix.Close(b.fd)
}
