package stage

import "io"

// ahead reads from on a goroutine of its own, some buffers ahead of who reads it.
type ahead struct {
	full, empty chan []byte
	now, rest   []byte // the buffer that is read, and what is left of it
	err         error  // of from; valid once full is closed
	stop        chan struct{}
	done        chan struct{}
}

const (
	aheadBuffers = 4
	aheadSize    = 128 << 10 // a block of zstd
)

func newAhead(from io.Reader) *ahead {
	a := &ahead{full: make(chan []byte, aheadBuffers), empty: make(chan []byte, aheadBuffers), stop: make(chan struct{}), done: make(chan struct{})}
	for range aheadBuffers {
		a.empty <- make([]byte, aheadSize)
	}
	go a.fill(from)
	return a
}

func (a *ahead) fill(from io.Reader) {
	defer close(a.done)
	defer close(a.full)
	for {
		var b []byte
		select {
		case b = <-a.empty:
		case <-a.stop:
			return
		}
		n, err := io.ReadFull(from, b[:aheadSize])
		if err == io.ErrUnexpectedEOF && n > 0 { // or one of from, which the next read returns again
			err = nil
		}
		if n > 0 {
			a.full <- b[:n]
		}
		if err != nil {
			a.err = err
			return
		}
	}
}

func (a *ahead) Read(b []byte) (int, error) {
	if len(a.rest) == 0 {
		if a.now != nil {
			a.empty <- a.now
			a.now = nil
		}
		next, ok := <-a.full
		if !ok {
			return 0, a.err
		}
		a.now, a.rest = next, next
	}
	n := copy(b, a.rest)
	a.rest = a.rest[n:]
	return n, nil
}

// close ends it. A Read of from that waits must be ended first.
func (a *ahead) close() {
	close(a.stop)
	<-a.done
}
