package inflate

import (
	"io"
	"sync"
)

// readBlockHeader reads the header of a block, RFC 1951, section 3.2.3.
func (z *Reader) readBlockHeader() error {
	if err := z.need(3); err != nil {
		return err
	}
	z.final = z.take(1) == 1
	switch z.take(2) {
	case 0:
		return z.startStored()
	case 1:
		z.startFixed()
		return nil
	case 2:
		return z.startDynamic()
	default:
		return ErrCorrupt
	}
}

// startStored reads the length of a stored block.
func (z *Reader) startStored() error {
	z.bits, z.nbits = 0, 0 // the rest of a byte
	b := z.scratch[:4]
	if _, err := io.ReadFull(z.r, b); err != nil {
		return unexpected(err)
	}
	if b[0] != ^b[2] || b[1] != ^b[3] {
		return ErrCorrupt
	}
	z.stored, z.next = int(b[0])|int(b[1])<<8, storedData
	return nil
}

// copyStored copies bytes of a stored block until its end, or until the window is full.
func (z *Reader) copyStored() error {
	room := z.window[z.end:]
	n, err := io.ReadFull(z.r, room[:min(len(room), z.stored)])
	z.end += n
	z.stored -= n
	if err != nil {
		return unexpected(err)
	}
	if z.stored == 0 {
		z.endBlock()
	}
	return nil
}

// fixed returns the tables of the fixed codes.
var fixed = sync.OnceValue(func() (tables struct {
	lit  [litTable]uint32
	dist [distTable]uint32
}) {
	var lengths [maxLit + maxDists]uint8
	for i := range lengths {
		switch {
		case i < 144:
			lengths[i] = 8
		case i < 256:
			lengths[i] = 9
		case i < 280:
			lengths[i] = 7
		case i < maxLit:
			lengths[i] = 8
		default:
			lengths[i] = 5
		}
	}
	build(litCodes, tables.lit[:], litBits, lengths[:maxLit])
	build(distCodes, tables.dist[:], distBits, lengths[maxLit:])
	return tables
})

// startFixed sets the codes of section 3.2.6.
func (z *Reader) startFixed() {
	tables := fixed()
	z.lit, z.dist, z.minBits, z.next = tables.lit, tables.dist, 7, symbols
}

// preOrder is the order of the code lengths of code lengths.
var preOrder = [maxPre]uint8{16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15}

// startDynamic reads the codes of section 3.2.7.
func (z *Reader) startDynamic() error {
	if err := z.need(14); err != nil {
		return err
	}
	lits, dists, pres := z.take(5)+257, z.take(5)+1, z.take(4)+4
	if lits > maxLit-2 || dists > maxDists-2 {
		return ErrCorrupt
	}
	var pre [maxPre]uint8
	for _, symbol := range preOrder[:pres] {
		if err := z.need(3); err != nil {
			return err
		}
		pre[symbol] = uint8(z.take(3))
	}
	table := z.dist[:1<<preBits] // not yet used for distances
	if !build(preCodes, table, preBits, pre[:]) {
		return ErrCorrupt
	}
	if err := z.readLengths(table, z.lengths[:lits+dists], shortest(pre[:])); err != nil {
		return err
	}
	if !build(litCodes, z.lit[:], litBits, z.lengths[:lits]) || !build(distCodes, z.dist[:], distBits, z.lengths[lits:lits+dists]) {
		return ErrCorrupt
	}
	z.minBits = max(uint(z.lengths[endSymbol]), shortest(z.lengths[:lits]))
	z.next = symbols
	return nil
}

// shortest returns the number of bits of the shortest code, 0 without one.
func shortest(lengths []uint8) uint {
	least := uint8(0)
	for _, n := range lengths {
		if n != 0 && (least == 0 || n < least) {
			least = n
		}
	}
	return uint(least)
}

// readLengths reads the lengths of codes by the codes in table.
func (z *Reader) readLengths(table []uint32, lengths []uint8, least uint) error {
	for i := 0; i < len(lengths); {
		e, err := z.lookUp(table, preBits, least)
		if err != nil {
			return err
		}
		if e&special != 0 {
			return ErrCorrupt
		}
		symbol := uint8(e >> 16)
		if symbol < 16 {
			lengths[i] = symbol
			i++
			continue
		}
		again, extra, value := uint(3), uint(3), uint8(0)
		switch symbol {
		case 16:
			if i == 0 {
				return ErrCorrupt
			}
			extra, value = 2, lengths[i-1]
		case 18:
			again, extra = 11, 7
		}
		if err := z.need(extra); err != nil {
			return err
		}
		again += z.take(extra)
		if i+int(again) > len(lengths) {
			return ErrCorrupt
		}
		for range again {
			lengths[i] = value
			i++
		}
	}
	return nil
}

// lookUp returns the entry of the next code, and removes the code, not its extra bits. It reads no
// byte that the code does not need, unless that has less than least bits.
func (z *Reader) lookUp(table []uint32, first, least uint) (uint32, error) {
	for n := least; ; {
		if err := z.need(n); err != nil {
			return 0, err
		}
		e := table[z.bits&(1<<first-1)]
		code := uint(e >> 8 & 15)
		if e&link != 0 {
			e = table[uint(e>>16&(special-1))+uint(z.bits>>first)&(1<<code-1)]
			code = first + uint(e>>8&15)
		}
		if code <= z.nbits {
			z.bits >>= code
			z.nbits -= code
			return e, nil
		}
		n = code
	}
}
