package tarstream

import (
	"archive/tar"
	"fmt"
	"io"
	"math"
)

// MaxHeader is how many bytes an entry may have before its content. PAX records are most of it:
// archive/tar keeps them, several times over.
const MaxHeader = 16 << 10

// Reader reads the entries of a tar stream. The content of each must be read before the next.
type Reader struct {
	*tar.Reader
	from io.LimitedReader
	n    int
}

// NewReader returns the Reader of an unpacked stream.
func NewReader(unpacked io.Reader) *Reader {
	r := &Reader{from: io.LimitedReader{R: unpacked}}
	r.Reader = tar.NewReader(&r.from)
	return r
}

// Next returns the header of the next entry, and io.EOF where the archive ends.
func (r *Reader) Next() (*tar.Header, error) {
	r.from.N = MaxHeader + 511 // of padding after the content before it
	h, err := r.Reader.Next()
	if err != nil && r.from.N <= 0 {
		err = fmt.Errorf("a header of more than %d bytes", MaxHeader)
	}
	if err != nil && err != io.EOF {
		err = fmt.Errorf("after %d entries: %w", r.n, err)
	}
	r.from.N = math.MaxInt64
	r.n++
	return h, err
}
