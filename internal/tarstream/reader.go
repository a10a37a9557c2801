package tarstream

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
	"math"

	"github.com/bilbycast/edge-agent/release"
)

// MaxHeader is how many bytes an entry may have before its content. PAX records are most of it:
// archive/tar keeps them, several times over.
const MaxHeader = 16 << 10

const (
	meanHeader = 5 << 10 // bytes of an entry beside its content: two headers, PAX records of a name and a target, padding
	maxRatio   = 200     // unpacked to packed, where the manifest gives no size
	ratioFloor = 16 << 20
)

// Limit returns how many bytes the files of an archive may have together: as many as its manifest
// says (0: it does not), or 200 times those of the packed file, at least 16 MiB and at most
// release.MaxUnpacked.
func Limit(unpacked, packed int64) int64 {
	if unpacked > 0 {
		return unpacked
	}
	return min(release.MaxUnpacked, max(ratioFloor, packed*maxRatio))
}

// Reader reads the entries of a tar stream. The content of each must be read before the next.
type Reader struct {
	*tar.Reader
	limit int64 // bytes that all files together may have
	files int64
	all   io.LimitedReader // with headers, too: PAX records count
	head  io.LimitedReader
	n     int
}

// NewReader returns the Reader of an unpacked stream whose files have at most limit bytes.
func NewReader(unpacked io.Reader, limit int64) *Reader {
	r := &Reader{limit: limit, all: io.LimitedReader{R: unpacked, N: limit + MaxEntries*meanHeader + MaxTrailer}}
	r.head.R = &r.all
	r.Reader = tar.NewReader(&r.head)
	return r
}

// Next returns the header of the next entry, and io.EOF where the archive ends.
func (r *Reader) Next() (*tar.Header, error) {
	r.head.N = MaxHeader + 511 // of padding after the content before it
	h, err := r.Reader.Next()
	switch {
	case err != nil && r.all.N <= 0:
		err = errors.New("the archive unpacks to more than its limit")
	case err != nil && r.head.N <= 0:
		err = fmt.Errorf("a header of more than %d bytes, with PAX records and the map of a sparse file", MaxHeader)
	case err == io.EOF:
		return nil, err
	}
	if err != nil {
		return nil, fmt.Errorf("after %d entries: %w", r.n, err)
	}
	if h.Typeflag == tar.TypeReg {
		if h.Size < 0 || h.Size > r.limit-r.files {
			return nil, fmt.Errorf("entry %.200q: has %d bytes; the archive may unpack to %d in all", h.Name, h.Size, r.limit)
		}
		r.files += h.Size
	}
	r.head.N = math.MaxInt64
	r.n++
	return h, nil
}
