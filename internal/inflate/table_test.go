package inflate

import (
	"bufio"
	"math/bits"
	"math/rand/v2"
	"strings"
	"testing"
)

// randomCode returns the lengths of a random complete code of n symbols among all of them; deep
// codes have many long ones.
func randomCode(random *rand.Rand, n, all int, deep float64) []uint8 {
	leaves := []uint8{1, 1}
	for len(leaves) < n {
		i := random.IntN(len(leaves))
		if random.Float64() < deep {
			i = len(leaves) - 1
		}
		if leaves[i] == maxCode {
			deep *= 0.9
			continue
		}
		leaves[i]++
		leaves = append(leaves, leaves[i])
	}
	lengths := make([]uint8, all)
	for i, symbol := range random.Perm(all)[:n] {
		lengths[symbol] = leaves[i]
	}
	return lengths
}

// codesOf returns the code of each symbol as RFC 1951, section 3.2.2 describes, first bit lowest.
func codesOf(lengths []uint8) []uint64 {
	codes := make([]uint64, len(lengths))
	code := uint64(0)
	for n := uint8(1); n <= maxCode; n++ {
		for symbol, length := range lengths {
			if length == n {
				codes[symbol] = bits.Reverse64(code) >> (64 - n)
				code++
			}
		}
		code <<= 1
	}
	return codes
}

func TestEveryCodeIsFound(t *testing.T) {
	t.Parallel()
	random := rand.New(rand.NewPCG(5, 6))
	z := Reader{r: bufio.NewReader(strings.NewReader(""))}
	for range 3000 {
		for _, c := range []struct {
			kind       kind
			table      []uint32
			first      uint
			all, least int
		}{{litCodes, z.lit[:], litBits, maxLit, 2}, {distCodes, z.dist[:], distBits, maxDists, 2}} {
			lengths := randomCode(random, c.least+random.IntN(c.all-c.least+1), c.all, random.Float64())
			if !build(c.kind, c.table, c.first, lengths) {
				t.Fatal("a complete code is refused:", lengths)
			}
			for symbol, code := range codesOf(lengths) {
				n := uint(lengths[symbol])
				if n == 0 {
					continue
				}
				z.bits, z.nbits = random.Uint64()<<n&(1<<40-1)|code, 40
				e, err := z.lookUp(c.table, c.first, 0)
				if err != nil {
					t.Fatal(err)
				}
				want := entryOf(c.kind, uint(symbol))
				if e>>16 != want>>16 || e&255-e>>8&15 != want&255 || e&(special|link|endBlock) != want&(special|link|endBlock) || z.nbits != 40-n {
					t.Fatalf("symbol %d with the code %b of %d bits: entry %x, want %x", symbol, code, n, e, want)
				}
			}
			// One code more, or one less, is not complete.
			for symbol, n := range lengths {
				if n > 1 {
					lengths[symbol]--
					if build(c.kind, c.table, c.first, lengths) {
						t.Fatal("a code with too many words is accepted:", lengths)
					}
					lengths[symbol] = 0
					if build(c.kind, c.table, c.first, lengths) {
						t.Fatal("an incomplete code is accepted:", lengths)
					}
					break
				}
			}
		}
	}
}

func TestDegenerateCodes(t *testing.T) {
	t.Parallel()
	var table [distTable]uint32
	for _, c := range []struct {
		lengths []uint8
		ok      bool
	}{{[]uint8{0, 0, 0}, true}, {[]uint8{0, 1, 0}, true}, {[]uint8{0, 2, 0}, false}, {[]uint8{0, 15}, false}, {[]uint8{1, 1, 1}, false}, {[]uint8{1, 1, 15}, false}} {
		if ok := build(distCodes, table[:], distBits, c.lengths); ok != c.ok {
			t.Errorf("lengths %v: accepted is %v", c.lengths, ok)
		}
	}
}
