package inflate

import "math/bits"

const (
	maxLit    = 288 // codes of literals and lengths; the last two are of no symbol
	maxDists  = 32  // codes of distances; the last two are of no symbol
	maxPre    = 19  // codes of code lengths
	maxCode   = 15  // bits of a code
	endSymbol = 256

	litBits  = 11 // of the index of the first table
	distBits = 8
	preBits  = 7
	// The sizes of the tables with their second levels, for any complete code: zlib's enough.c.
	litTable  = 2342
	distTable = 402
)

// An entry of a table says what the next bits mean, and how many they are.
//
//	bits 0-7    the number of bits: the code and the extra bits of its length or distance
//	bits 8-11   the number of bits of the code alone; in a link, of the index of the second table
//	bits 12-15  flags
//	bits 16-30  the literal, the base of the length or distance, or the start of the second table
//	bit 31      it is a literal
//
// With the flag special it is a link to a second table, the end of the block (endBlock), or of no
// symbol.
const (
	literal  = 1 << 31
	special  = 1 << 15
	link     = 1 << 14
	endBlock = 1 << 13
)

// lengthEntries are those of the codes from 257, without the bits of the code.
var lengthEntries = [...]uint32{
	3 << 16, 4 << 16, 5 << 16, 6 << 16, 7 << 16, 8 << 16, 9 << 16, 10 << 16,
	11<<16 | 1, 13<<16 | 1, 15<<16 | 1, 17<<16 | 1, 19<<16 | 2, 23<<16 | 2, 27<<16 | 2, 31<<16 | 2,
	35<<16 | 3, 43<<16 | 3, 51<<16 | 3, 59<<16 | 3, 67<<16 | 4, 83<<16 | 4, 99<<16 | 4, 115<<16 | 4,
	131<<16 | 5, 163<<16 | 5, 195<<16 | 5, 227<<16 | 5, 258 << 16, special, special,
}

// distEntries are those of the codes of distances.
var distEntries = [...]uint32{
	1 << 16, 2 << 16, 3 << 16, 4 << 16, 5<<16 | 1, 7<<16 | 1, 9<<16 | 2, 13<<16 | 2,
	17<<16 | 3, 25<<16 | 3, 33<<16 | 4, 49<<16 | 4, 65<<16 | 5, 97<<16 | 5, 129<<16 | 6, 193<<16 | 6,
	257<<16 | 7, 385<<16 | 7, 513<<16 | 8, 769<<16 | 8, 1025<<16 | 9, 1537<<16 | 9, 2049<<16 | 10, 3073<<16 | 10,
	4097<<16 | 11, 6145<<16 | 11, 8193<<16 | 12, 12289<<16 | 12, 16385<<16 | 13, 24577<<16 | 13, special, special,
}

// kind is an alphabet.
type kind uint8

const (
	litCodes kind = iota
	distCodes
	preCodes
)

// entryOf returns the entry of a symbol, without the bits of its code.
func entryOf(k kind, symbol uint) uint32 {
	switch {
	case k == distCodes:
		return distEntries[symbol]
	case k == preCodes || symbol < endSymbol:
		return literal | uint32(symbol)<<16
	case symbol == endSymbol:
		return special | endBlock
	}
	return lengthEntries[symbol-endSymbol-1]
}

// build fills table for the codes of those lengths; its first level has 1<<first entries. It
// reports whether the code is one that compress/flate accepts: complete, or a single code of one
// bit, or without any code.
func build(k kind, table []uint32, first uint, lengths []uint8) bool {
	var count [maxCode + 2]uint
	for _, n := range lengths {
		count[n&15]++
	}
	count[0] = 0
	var start [maxCode + 2]uint // of the symbols of a length, in the order of their codes
	total, longest := uint(0), uint(0)
	for n := uint(1); n <= maxCode; n++ {
		total = total<<1 + count[n]
		start[n+1] = start[n] + count[n]
		if count[n] > 0 {
			longest = n
		}
	}
	total >>= maxCode - longest
	symbols := start[maxCode+1]
	var sorted [maxLit]uint16
	for s, n := range lengths {
		if n != 0 {
			sorted[start[n&15]%maxLit] = uint16(s)
			start[n&15]++
		}
	}
	size := uint(1) << first
	if symbols == 0 || symbols == 1 && longest == 1 {
		for i := range table[:size] {
			table[i] = special
			if symbols == 1 && i&1 == 0 {
				table[i] = entryOf(k, uint(sorted[0])) + 1<<8 + 1
			}
		}
		return true
	}
	if total != 1<<longest {
		return false
	}

	// code is the code of the next symbol, its first bit lowest. filled entries of the first level
	// are done for codes of n bits; a longer code needs the same entries once more behind them.
	code, n, filled := uint(0), uint(1), uint(2)
	i := uint(0)
	for ; n <= first && i < symbols; n++ {
		for ; count[n] > 0; count[n]-- {
			table[code] = entryOf(k, uint(sorted[i])) + uint32(n<<8+n)
			i++
			code = nextCode(code, n)
		}
		if filled < size {
			copy(table[filled:], table[:filled])
			filled <<= 1
		}
	}
	if i == symbols {
		for ; filled < size; filled <<= 1 {
			copy(table[filled:], table[:filled])
		}
		return true
	}
	// Codes that are longer than the index are in second tables, one for each index.
	prefix, base, end := ^uint(0), size, size
	var second uint
	for ; i < symbols; n++ {
		for ; count[n] > 0; count[n]-- {
			if code&(size-1) != prefix {
				prefix = code & (size - 1)
				base = end
				second = n - first
				// The table has room for all codes with this prefix.
				for room := count[n]; room < 1<<second && first+second < maxCode; {
					second++
					room = room<<1 + count[first+second]
				}
				end = base + 1<<second
				table[prefix] = special | link | uint32(base<<16|second<<8|first)
			}
			e := entryOf(k, uint(sorted[i])) + uint32((n-first)<<8+n-first)
			for j := base + code>>first; j < end; j += 1 << (n - first) {
				table[j] = e
			}
			i++
			code = nextCode(code, n)
		}
	}
	return true
}

// nextCode returns the code of n bits after code, and 0 after the last one; first bit lowest.
func nextCode(code, n uint) uint {
	zeros := ^code & (1<<n - 1)
	if zeros == 0 {
		return 0
	}
	top := uint(1) << (bits.Len(zeros) - 1)
	return code&(top-1) | top
}

// repeatAt is the least multiple of a distance below 16 that is not below 16.
var repeatAt = [16]uint8{2: 16, 3: 18, 4: 16, 5: 20, 6: 18, 7: 21, 8: 16, 9: 18, 10: 20, 11: 22, 12: 24, 13: 26, 14: 28, 15: 30}
