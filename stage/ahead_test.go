package stage

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"testing"
	"testing/iotest"
)

// Every byte arrives once and in order, whatever the sizes of the reads and of the ring are, and
// then the error.
func TestAhead(t *testing.T) {
	t.Parallel()
	broken := errors.New("broken")
	for seed := range uint64(300) {
		rng := rand.New(rand.NewPCG(seed, 2))
		want := make([]byte, rng.IntN(5000))
		for i := range want {
			want[i] = byte(rng.Uint32())
		}
		var from io.Reader = randomReader{bytes.NewReader(want), rand.New(rand.NewPCG(seed, 3)), rng.IntN(2) == 0}
		var end error
		if rng.IntN(3) == 0 {
			from, end = io.MultiReader(from, iotest.ErrReader(broken)), broken
		}
		a := newAhead(from, 1+rng.IntN(1+rng.IntN(1000)), rng.IntN(2) == 0)
		var got bytes.Buffer
		var err error
		if rng.IntN(2) == 0 {
			_, err = a.WriteTo(&got)
		} else {
			_, err = got.ReadFrom(randomReader{struct{ io.Reader }{a}, rng, false})
		}
		if !bytes.Equal(got.Bytes(), want) || err != end {
			t.Fatalf("seed %d: %d bytes of %d, %v", seed, got.Len(), len(want), err)
		}
		<-a.done
	}
}

// randomReader reads fewer bytes than it is asked for, at random. If early is set, io.EOF comes
// with the last bytes, and not after them.
type randomReader struct {
	from  io.Reader
	rng   *rand.Rand
	early bool
}

func (r randomReader) Read(b []byte) (int, error) {
	n, err := r.from.Read(b[:1+r.rng.IntN(len(b))])
	if l, ok := r.from.(*bytes.Reader); ok && r.early && l.Len() == 0 {
		err = io.EOF
	}
	return n, err
}

// What was read is there while the next Read waits, and a writer that fails ends it.
func TestAheadHoldsNothingBack(t *testing.T) {
	t.Parallel()
	from, to := io.Pipe()
	a := newAhead(from, 1000, false)
	go to.Write([]byte("all that has arrived"))
	b := make([]byte, 100)
	if n, err := a.Read(b); string(b[:n]) != "all that has arrived" || err != nil {
		t.Errorf("%q, %v", b[:n], err)
	}
	go to.Write(make([]byte, 10_000))
	full := errors.New("full")
	if n, err := a.WriteTo(failingWriter{full}); n != 0 || err != full {
		t.Errorf("%d, %v", n, err)
	}
	a.stop()
	from.Close()
	<-a.done
}

type failingWriter struct{ err error }

func (w failingWriter) Write([]byte) (int, error) { return 0, w.err }
