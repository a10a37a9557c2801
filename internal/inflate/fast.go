package inflate

const fastInput = 24 // bytes that one step of readFast may look at

// readFast decodes symbols of in, until the block ends, the window is full, or less than fastInput
// bytes are left. It returns how many bytes of in it used up; the bits of a byte that is used in
// part are in z.bits.
//
// The program is built without inlining, so the whole loop is one function, with its state in local
// variables. The lines with eight bytes fill bits, and the compiler makes one load of them. Above
// its nbits bits, bits then has some that are added once more later, which changes nothing. Only
// the low six bits of nbits count, so that a whole entry can be subtracted.
//
// After it is filled, bits has at least 56 bits: enough for two literals of the first table (22)
// and the longest length (20) or literal (15). The longest distance has 28.
func (z *Reader) readFast(in []byte) (used int, err error) {
	bits, nbits := z.bits, uint32(z.nbits)
	end := uint(z.end)
	at, last := uint(0), uint(len(in)-fastInput)

	b := in[at : at+8]
	bits |= (uint64(b[0]) | uint64(b[1])<<8 | uint64(b[2])<<16 | uint64(b[3])<<24 | uint64(b[4])<<32 | uint64(b[5])<<40 | uint64(b[6])<<48 | uint64(b[7])<<56) << (nbits & 63)
	at += uint(^nbits >> 3 & 7)
	nbits |= 56
	e := z.lit[bits&(1<<litBits-1)]
	for at <= last && end <= fullAt {
		if int32(e) < 0 {
			bits >>= e & 63
			nbits -= e
			z.window[end] = byte(e >> 16)
			end++
			e = z.lit[bits&(1<<litBits-1)]
			if int32(e) < 0 {
				bits >>= e & 63
				nbits -= e
				z.window[end] = byte(e >> 16)
				end++
				e = z.lit[bits&(1<<litBits-1)]
				if int32(e) < 0 {
					bits >>= e & 63
					nbits -= e
					z.window[end] = byte(e >> 16)
					end++
					b := in[at : at+8]
					bits |= (uint64(b[0]) | uint64(b[1])<<8 | uint64(b[2])<<16 | uint64(b[3])<<24 | uint64(b[4])<<32 | uint64(b[5])<<40 | uint64(b[6])<<48 | uint64(b[7])<<56) << (nbits & 63)
					at += uint(^nbits >> 3 & 7)
					nbits |= 56
					e = z.lit[bits&(1<<litBits-1)]
					continue
				}
			}
		}
		if e&special != 0 {
			if e&link != 0 {
				bits >>= litBits
				nbits -= litBits
				e = z.lit[uint(e>>16)+uint(bits)&(1<<(e>>8&15)-1)]
				if int32(e) < 0 {
					bits >>= e & 63
					nbits -= e
					z.window[end] = byte(e >> 16)
					end++
					b := in[at : at+8]
					bits |= (uint64(b[0]) | uint64(b[1])<<8 | uint64(b[2])<<16 | uint64(b[3])<<24 | uint64(b[4])<<32 | uint64(b[5])<<40 | uint64(b[6])<<48 | uint64(b[7])<<56) << (nbits & 63)
					at += uint(^nbits >> 3 & 7)
					nbits |= 56
					e = z.lit[bits&(1<<litBits-1)]
					continue
				}
			}
			if e&special != 0 {
				if e&endBlock == 0 {
					err = ErrCorrupt
					break
				}
				bits >>= e & 63
				nbits -= e
				z.endBlock()
				break
			}
		}
		length := uint(e>>16) + uint(bits&(1<<(e&63)-1)>>(e>>8&15))
		bits >>= e & 63
		nbits -= e
		if nbits&63 < 28 {
			b := in[at : at+8]
			bits |= (uint64(b[0]) | uint64(b[1])<<8 | uint64(b[2])<<16 | uint64(b[3])<<24 | uint64(b[4])<<32 | uint64(b[5])<<40 | uint64(b[6])<<48 | uint64(b[7])<<56) << (nbits & 63)
			at += uint(^nbits >> 3 & 7)
			nbits |= 56
		}
		e = z.dist[bits&(1<<distBits-1)]
		if e&special != 0 {
			if e&link == 0 {
				err = ErrCorrupt
				break
			}
			bits >>= distBits
			nbits -= distBits
			e = z.dist[uint(e>>16)+uint(bits)&(1<<(e>>8&15)-1)]
			if e&special != 0 {
				err = ErrCorrupt
				break
			}
		}
		dist := uint(e>>16) + uint(bits&(1<<(e&63)-1)>>(e>>8&15))
		bits >>= e & 63
		nbits -= e

		b := in[at : at+8]
		bits |= (uint64(b[0]) | uint64(b[1])<<8 | uint64(b[2])<<16 | uint64(b[3])<<24 | uint64(b[4])<<32 | uint64(b[5])<<40 | uint64(b[6])<<48 | uint64(b[7])<<56) << (nbits & 63)
		at += uint(^nbits >> 3 & 7)
		nbits |= 56
		e = z.lit[bits&(1<<litBits-1)]

		if dist > end {
			err = ErrCorrupt
			break
		}
		from, to := end-dist, end
		end += length
		switch {
		case dist >= 16:
		case dist == 1: // programs have long runs of zeros
			v := uint64(z.window[from]) * 0x0101010101010101
			for ; to < end; to += 8 {
				b := z.window[to : to+8]
				b[0], b[1], b[2], b[3], b[4], b[5], b[6], b[7] = byte(v), byte(v>>8), byte(v>>16), byte(v>>24), byte(v>>32), byte(v>>40), byte(v>>48), byte(v>>56)
			}
			continue
		default:
			// As many bytes as the pattern needs to repeat itself at 16 bytes or more.
			apart := uint(repeatAt[dist&15])
			for stop := min(to+apart, end); to < stop; to++ {
				z.window[to] = z.window[from]
				from++
			}
			from = to - apart
		}
		for to < end {
			copy(z.window[to:to+16], z.window[from:from+16])
			to += 16
			from += 16
		}
	}
	// Whole bytes go back to in.
	n := uint(nbits & 63)
	back := min(n>>3, at)
	n -= back << 3
	z.bits, z.nbits, z.end = bits&(1<<n-1), n, int(end)
	return int(at - back), err
}
