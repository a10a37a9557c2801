package stage

import (
	"io"
	"runtime"
	"sync"
)

// ahead reads from on a goroutine of its own, into a ring of bytes that somebody else empties.
// What was read is there at once, however much more the next Read of from waits for.
type ahead struct {
	ring   []byte
	thread bool          // from is read on a thread of its own
	done   chan struct{} // closed when from is not read any more

	mu      sync.Mutex
	changed sync.Cond
	begin   int // of what is filled
	filled  int // bytes, which may go round the end
	err     error
	stopped bool
}

func newAhead(from io.Reader, size int, thread bool) *ahead {
	a := &ahead{ring: make([]byte, size), thread: thread, done: make(chan struct{})}
	a.changed.L = &a.mu
	go a.fill(from)
	return a
}

func (a *ahead) fill(from io.Reader) {
	defer close(a.done)
	if a.thread {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
	}
	for b := a.room(); b != nil; b = a.room() {
		n, err := from.Read(b)
		a.mu.Lock()
		a.filled, a.err = a.filled+n, err
		a.changed.Signal()
		a.mu.Unlock()
		if err != nil {
			return
		}
	}
}

// room waits for a quarter of the ring, so that a reader of a few bytes does not wake it each time.
// It returns nil once nobody reads.
func (a *ahead) room() []byte {
	a.mu.Lock()
	defer a.mu.Unlock()
	for !a.stopped && len(a.ring)-a.filled < max(1, len(a.ring)/4) {
		a.changed.Wait()
	}
	if a.stopped {
		return nil
	}
	if end := a.begin + a.filled; end < len(a.ring) {
		return a.ring[end:]
	}
	return a.ring[a.begin+a.filled-len(a.ring) : a.begin]
}

// next waits for bytes, and returns those that are in one piece.
func (a *ahead) next() ([]byte, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for a.filled == 0 && a.err == nil {
		a.changed.Wait()
	}
	if a.filled == 0 {
		return nil, a.err
	}
	return a.ring[a.begin:min(a.begin+a.filled, len(a.ring))], nil
}

// used gives back the first n bytes of what next returned.
func (a *ahead) used(n int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.begin, a.filled = (a.begin+n)%len(a.ring), a.filled-n
	a.changed.Signal()
}

func (a *ahead) Read(b []byte) (int, error) {
	from, err := a.next()
	n := copy(b, from)
	a.used(n)
	return n, err
}

// WriteTo writes all that is read. It copies nothing.
func (a *ahead) WriteTo(w io.Writer) (n int64, err error) {
	for {
		from, err := a.next()
		if err == io.EOF {
			return n, nil
		}
		if err != nil {
			return n, err
		}
		more, err := w.Write(from)
		a.used(more)
		n += int64(more)
		if err != nil {
			return n, err
		}
	}
}

// stop makes from be read no more, once the Read that waits has ended.
func (a *ahead) stop() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.stopped = true
	a.changed.Signal()
}
