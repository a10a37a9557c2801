package inflate

import (
	"bufio"
	"encoding/binary"
	"hash/crc32"
	"io"
)

// The flags of a member's header, RFC 1952, section 2.3.1.
const (
	flagHeaderCRC = 1 << 1
	flagExtra     = 1 << 2
	flagName      = 1 << 3
	flagComment   = 1 << 4

	maxText = 512 // bytes of a name or comment with its final zero, as in compress/gzip
)

// header reads the header of a member. Only its CRC-16 is needed of it.
type header struct {
	r   *bufio.Reader
	crc uint32
}

func readHeader(r *bufio.Reader) error {
	h := header{r: r}
	var b [10]byte
	if err := h.read(b[:]); err != nil {
		return err
	}
	if b[0] != 0x1f || b[1] != 0x8b || b[2] != 8 {
		return ErrHeader
	}
	flags := b[3]
	if flags&flagExtra != 0 {
		if err := h.read(b[:2]); err != nil {
			return unexpected(err)
		}
		if err := h.read(make([]byte, binary.LittleEndian.Uint16(b[:]))); err != nil {
			return unexpected(err)
		}
	}
	for _, flag := range []byte{flagName, flagComment} {
		if flags&flag != 0 {
			if err := h.skipText(); err != nil {
				return unexpected(err)
			}
		}
	}
	if flags&flagHeaderCRC != 0 {
		want := uint16(h.crc)
		if err := h.read(b[:2]); err != nil {
			return unexpected(err)
		}
		if binary.LittleEndian.Uint16(b[:]) != want {
			return ErrHeader
		}
	}
	return nil
}

// read fills b.
func (h *header) read(b []byte) error {
	_, err := io.ReadFull(h.r, b)
	h.crc = crc32.Update(h.crc, crc32.IEEETable, b)
	return err
}

// skipText reads a text and the zero that ends it.
func (h *header) skipText() error {
	var b [1]byte
	for range maxText {
		if err := h.read(b[:]); err != nil {
			return err
		}
		if b[0] == 0 {
			return nil
		}
	}
	return ErrHeader
}

// readTrailer compares the trailer of the member with what was decoded. Without a difference its
// error is io.EOF.
func (z *Reader) readTrailer() error {
	z.bits, z.nbits = 0, 0 // the rest of the last byte
	b := &z.scratch
	if _, err := io.ReadFull(z.r, b[:]); err != nil {
		return unexpected(err)
	}
	if binary.LittleEndian.Uint32(b[:4]) != z.crc || binary.LittleEndian.Uint32(b[4:]) != z.size {
		return ErrChecksum
	}
	return io.EOF
}
