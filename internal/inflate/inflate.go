// Package inflate decompresses one member of a gzip file (RFC 1952, RFC 1951), faster than the
// libraries in Go. It accepts the same files as compress/gzip, returns the same data, and fails
// where compress/gzip fails. It reads nothing behind the member, and needs 150 KB.
package inflate

import (
	"bufio"
	"errors"
	"hash/crc32"
	"io"
)

var (
	// ErrHeader reports that the file does not begin with a valid gzip header.
	ErrHeader = errors.New("gzip: invalid header")
	// ErrCorrupt reports compressed data that break the format.
	ErrCorrupt = errors.New("gzip: corrupt data")
	// ErrChecksum reports data that differ from the length or the CRC-32 at the end of the member.
	ErrChecksum = errors.New("gzip: invalid checksum")
)

const (
	windowSize = 128 << 10 // what was decoded last
	maxDist    = 32 << 10  // how far a match reaches back
	maxMatch   = 258
	// fullAt is where the window ends for a new step of decoding. A step writes at most 2 literals
	// and a match, in pieces of 16 bytes: at most 15 bytes more than its length.
	fullAt = windowSize - 2 - maxMatch - 15
)

// stage is what follows in the input.
type stage uint8

const (
	blockHeader stage = iota
	storedData        // the rest of a stored block
	symbols           // the symbols of a compressed block
	trailer           // the end of the member
)

// Reader decompresses one member.
type Reader struct {
	r     *bufio.Reader
	err   error // sticky, returned when everything before it was read
	next  stage
	final bool // the block is the last one

	bits  uint64 // bits of the input that r no longer has, the next one lowest
	nbits uint   // their number; the bits above are zero

	stored  int  // bytes left of a stored block
	minBits uint // no shorter code is looked for: that of the end of the block, as compress/flate does

	read, end int    // window[read:end] is decoded and not yet read
	crc, size uint32 // of what was decoded
	scratch   [8]byte

	lit     [litTable]uint32  // codes of literals and lengths
	dist    [distTable]uint32 // codes of distances
	lengths [maxLit + maxDists]uint8
	window  [windowSize]byte
}

// NewReader reads the header of the member at which r stands. Without a single byte in r its error
// is io.EOF. After a Read that returned io.EOF, r stands right behind the member.
func NewReader(r *bufio.Reader) (*Reader, error) {
	if err := readHeader(r); err != nil {
		return nil, err
	}
	return &Reader{r: r}, nil
}

// Read returns io.EOF after the last byte, if length and CRC-32 are those of the trailer.
func (z *Reader) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	for z.read == z.end {
		if z.err != nil {
			return 0, z.err
		}
		z.fill()
	}
	n := copy(p, z.window[z.read:z.end])
	z.read += n
	return n, nil
}

// fill decodes until the window is full, or sets err.
func (z *Reader) fill() {
	if z.end > fullAt {
		z.end = copy(z.window[:], z.window[z.end-maxDist:z.end])
	}
	z.read = z.end
	for z.err == nil && z.end <= fullAt {
		switch z.next {
		case blockHeader:
			z.err = z.readBlockHeader()
		case storedData:
			z.err = z.copyStored()
		case symbols:
			z.err = z.readSymbols()
		case trailer:
			z.addUp()
			z.err = z.readTrailer()
			return
		}
	}
	z.addUp()
}

// addUp adds what fill decoded to crc and size.
func (z *Reader) addUp() {
	z.crc = crc32.Update(z.crc, crc32.IEEETable, z.window[z.read:z.end])
	z.size += uint32(z.end - z.read)
}

// endBlock sets what follows the block.
func (z *Reader) endBlock() {
	z.next = blockHeader
	if z.final {
		z.next = trailer
	}
}

// need adds whole bytes until there are n bits, at most 56. It never takes a byte more than that.
func (z *Reader) need(n uint) error {
	for z.nbits < n {
		b, err := z.r.ReadByte()
		if err != nil {
			return unexpected(err)
		}
		z.bits |= uint64(b) << (z.nbits & 63)
		z.nbits += 8
	}
	return nil
}

// take removes n bits of those that need added, and returns them.
func (z *Reader) take(n uint) uint {
	v := uint(z.bits & (1<<n - 1))
	z.bits >>= n
	z.nbits -= n
	return v
}

// unexpected returns err for a place where the input must not end.
func unexpected(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}
