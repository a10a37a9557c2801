// Package tarstream reads the tar stream in a packed file: one gzip member, or one zstd frame with a
// bounded window. Nodes and the publisher's check read it alike.
package tarstream

import (
	"bufio"
	"errors"
	"fmt"
	"io"

	"github.com/bilbycast/edge-agent/internal/inflate"
	"github.com/bilbycast/edge-agent/release"
	"github.com/klauspost/compress/zstd"
)

// MaxTrailer is how many bytes may follow the end of a tar stream, as padding.
const MaxTrailer = 1 << 20

// Stream is the tar stream in a packed file.
type Stream struct {
	io.Reader
	file *bufio.Reader
	name string // of the compression
	free func()
}

// New returns the tar stream in packed, a file of that format.
func New(format string, packed io.Reader) (*Stream, error) {
	file := bufio.NewReaderSize(packed, 64<<10)
	name := "gzip"
	if format == release.FormatZstd {
		name = "zstd"
	}
	from, free, err := decoder(format, file)
	if err != nil {
		return nil, err
	}
	return &Stream{from, file, name, free}, nil
}

// Rest reads what follows the last entry, to the end of the packed stream, which has the checksum.
// unpacked is s, or what reads s ahead. Rest returns what is wrong: more than MaxTrailer bytes, or
// anything after the packed stream, since nobody would count it.
func (s *Stream) Rest(unpacked io.Reader) error {
	if n, err := io.Copy(io.Discard, io.LimitReader(unpacked, MaxTrailer+1)); err != nil {
		return fmt.Errorf("after the last entry: %w", err)
	} else if n > MaxTrailer {
		return fmt.Errorf("more than %d bytes after the last entry", MaxTrailer)
	}
	switch _, err := s.file.ReadByte(); {
	case err == nil:
		return fmt.Errorf("more bytes after the end of the %s stream", s.name)
	case err != io.EOF:
		return err
	}
	return nil
}

// Close frees what the Stream needs. No Read may run.
func (s *Stream) Close() { s.free() }

// decoder returns what unpacks a file of that format; free frees it.
func decoder(format string, file *bufio.Reader) (r io.Reader, free func(), err error) {
	if format == release.FormatZstd {
		frame, err := newFrame(file)
		if err != nil {
			return nil, nil, err
		}
		// More goroutines of its own would take 5 MB more, and are not faster on two cores.
		z, err := zstd.NewReader(frame, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true), zstd.WithDecoderMaxWindow(release.MaxZstdWindow))
		if err != nil {
			return nil, nil, fmt.Errorf("not a zstd file: %w", err)
		}
		return z, z.Close, nil
	}
	gz, err := inflate.NewReader(file) // of one member: a second one would be bytes that nobody counts
	if err != nil {
		return nil, nil, fmt.Errorf("not a gzip file: %w", err)
	}
	return gz, func() {}, nil
}

// frame is the one frame of a zstd file: the decoder would go on with the next one.
type frame struct {
	r        *bufio.Reader
	left     int64 // bytes until the next header of a block
	last     bool  // they are those of the last block
	checksum bool  // follows the last block
	ended    bool  // nothing follows them
}

// newFrame reads the header of a frame, and refuses what a release need not have: a large
// window, a dictionary, a skippable frame.
func newFrame(r *bufio.Reader) (*frame, error) {
	head, err := r.Peek(zstd.HeaderMaxSize)
	if err != nil && err != io.EOF {
		return nil, err
	}
	var h zstd.Header
	if err := h.Decode(head); err != nil {
		return nil, fmt.Errorf("not a zstd file: %w", err)
	}
	window := h.WindowSize
	if h.SingleSegment {
		window = h.FrameContentSize
	}
	switch {
	case h.Skippable:
		return nil, errors.New("not a zstd file: it begins with a skippable frame")
	case h.DictionaryID != 0:
		return nil, fmt.Errorf("the zstd file needs the dictionary %d", h.DictionaryID)
	case window > release.MaxZstdWindow:
		return nil, fmt.Errorf("the zstd file needs a window of %d bytes, more than %d", window, release.MaxZstdWindow)
	}
	return &frame{r: r, left: int64(h.HeaderSize), checksum: h.HasCheckSum}, nil
}

func (f *frame) Read(b []byte) (int, error) {
	for f.left == 0 {
		if err := f.next(); err != nil {
			return 0, err
		}
	}
	n, err := f.r.Read(b[:min(int64(len(b)), f.left)])
	f.left -= int64(n)
	if err == io.EOF {
		err = io.ErrUnexpectedEOF
	}
	return n, err
}

// next sets left to the length of the next block with its header, or of the checksum. Its
// error is io.EOF at the end.
func (f *frame) next() error {
	const raw, rle, compressed = 0, 1, 2
	switch {
	case f.ended:
		return io.EOF
	case f.last:
		f.ended = true
		if f.checksum {
			f.left = 4
		}
		return nil
	}
	b, err := f.r.Peek(3)
	if err == io.EOF {
		err = io.ErrUnexpectedEOF
	}
	if err != nil {
		return err
	}
	head := int64(b[0]) | int64(b[1])<<8 | int64(b[2])<<16
	size := head >> 3
	switch head >> 1 & 3 {
	case raw, compressed:
	case rle:
		size = 1
	default:
		return errors.New("a block of the zstd file has a reserved type")
	}
	f.last, f.left = head&1 == 1, 3+size
	return nil
}
