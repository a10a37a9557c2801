package inflate

// readSymbols decodes symbols until the end of the block, or until the window is full.
func (z *Reader) readSymbols() error {
	for z.next == symbols && z.end <= fullAt {
		if n := z.r.Buffered(); n >= fastInput {
			in, err := z.r.Peek(n)
			if err != nil {
				return err
			}
			used, err := z.readFast(in)
			if _, err := z.r.Discard(used); err != nil {
				return err
			}
			if err != nil {
				return err
			}
			if z.next != symbols || z.end > fullAt {
				return nil
			}
		}
		if err := z.readSymbol(); err != nil {
			return err
		}
	}
	return nil
}

// readSymbol decodes one symbol. It reads no byte that the symbol does not need, so it decodes what
// readFast cannot: the last bytes that r has at once.
func (z *Reader) readSymbol() error {
	e, err := z.lookUp(z.lit[:], litBits, z.minBits)
	switch {
	case err != nil:
		return err
	case e&literal != 0:
		z.window[z.end] = byte(e >> 16)
		z.end++
		return nil
	case e&endBlock != 0:
		z.endBlock()
		return nil
	case e&special != 0:
		return ErrCorrupt
	}
	length, err := z.extra(e)
	if err != nil {
		return err
	}
	if e, err = z.lookUp(z.dist[:], distBits, 0); err != nil {
		return err
	}
	if e&special != 0 {
		return ErrCorrupt
	}
	dist, err := z.extra(e)
	if err != nil {
		return err
	}
	if dist > z.end {
		return ErrCorrupt
	}
	for range length {
		z.window[z.end] = z.window[z.end-dist]
		z.end++
	}
	return nil
}

// extra returns the length or distance of an entry: its base and the extra bits.
func (z *Reader) extra(e uint32) (int, error) {
	n := uint(e&255 - e>>8&15)
	if err := z.need(n); err != nil {
		return 0, err
	}
	return int(e>>16) + int(z.take(n)), nil
}
