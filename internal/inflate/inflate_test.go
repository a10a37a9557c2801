package inflate

import (
	"bufio"
	"bytes"
	"compress/flate"
	"compress/gzip"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"math/rand/v2"
	"strings"
	"testing"
	"testing/iotest"
)

// pack returns data as a gzip member.
func pack(tb testing.TB, level int, data []byte) []byte {
	tb.Helper()
	var b bytes.Buffer
	w, err := gzip.NewWriterLevel(&b, level)
	if err != nil {
		tb.Fatal(err)
	}
	if _, err := w.Write(data); err != nil {
		tb.Fatal(err)
	}
	if err := w.Close(); err != nil {
		tb.Fatal(err)
	}
	return b.Bytes()
}

// samples are data of several kinds, by name.
func samples() map[string][]byte {
	random := rand.New(rand.NewPCG(1, 2))
	noise := make([]byte, 200_000)
	for i := range noise {
		noise[i] = byte(random.Uint32())
	}
	skewed := make([]byte, 500_000) // the codes have every length up to 15 bits
	for i := range skewed {
		skewed[i] = byte(min(random.ExpFloat64()*9, 255))
	}
	words := strings.Fields("the agent reads a frame and asks the policy of the node whether it may run this version of its program")
	var text strings.Builder
	for text.Len() < 400_000 {
		text.WriteString(words[random.IntN(len(words))])
		text.WriteByte(" \n"[random.IntN(2)])
	}
	var periods []byte // matches of every short distance
	for p := 1; p <= 40; p++ {
		for i := range 700 {
			periods = append(periods, byte(p*7+i%p*13))
		}
	}
	far := append(bytes.Clone(noise[:maxDist]), noise[:maxDist]...) // matches of the longest distance
	return map[string][]byte{
		"empty": nil, "byte": {7}, "zeros": make([]byte, 1<<20), "noise": noise, "skewed": skewed,
		"text": []byte(text.String()), "periods": periods, "far": far,
		"mixed": bytes.Join([][]byte{skewed[:90_000], noise[:70_000], []byte(text.String())[:100_000], periods, far}, nil),
	}
}

// outcome is what a reader made of a file.
type outcome struct {
	data []byte
	err  error
	rest []byte // what the reader left
}

// kind is the part of an error that must be the same in both readers.
func (o outcome) kind() string {
	var corrupt flate.CorruptInputError
	switch {
	case errors.Is(o.err, gzip.ErrHeader), errors.Is(o.err, ErrHeader):
		return "header"
	case errors.Is(o.err, gzip.ErrChecksum), errors.Is(o.err, ErrChecksum):
		return "checksum"
	case errors.As(o.err, &corrupt), errors.Is(o.err, ErrCorrupt):
		return "corrupt"
	}
	return fmt.Sprint(o.err)
}

func finish(r *bufio.Reader, z io.Reader, err error) outcome {
	var o outcome
	if o.err = err; err == nil {
		o.data, o.err = io.ReadAll(z)
	}
	o.rest, _ = io.ReadAll(r)
	return o
}

func ours(file io.Reader, buffer int) outcome {
	r := bufio.NewReaderSize(file, buffer)
	z, err := NewReader(r)
	return finish(r, z, err)
}

func theirs(file io.Reader) outcome {
	r := bufio.NewReader(file)
	z, err := gzip.NewReader(r)
	if err == nil {
		z.Multistream(false)
	}
	return finish(r, z, err)
}

// compare fails unless both readers made the same of a file.
func compare(tb testing.TB, name string, got, want outcome) {
	tb.Helper()
	if got.kind() != want.kind() {
		tb.Fatalf("%s: error %v, compress/gzip has %v", name, got.err, want.err)
	}
	if !bytes.Equal(got.data, want.data) {
		tb.Fatalf("%s: %d bytes, compress/gzip has %d others", name, len(got.data), len(want.data))
	}
	if want.err == nil && !bytes.Equal(got.rest, want.rest) {
		tb.Fatalf("%s: leaves %d bytes, compress/gzip %d", name, len(got.rest), len(want.rest))
	}
}

func TestEveryLevelIsReadBack(t *testing.T) {
	t.Parallel()
	for name, data := range samples() {
		for level := gzip.HuffmanOnly; level <= gzip.BestCompression; level++ {
			file := append(pack(t, level, data), "what follows"...)
			compare(t, fmt.Sprintf("%s at level %d", name, level), ours(bytes.NewReader(file), 64<<10), outcome{data, nil, []byte("what follows")})
		}
	}
}

func TestEveryShapeOfInput(t *testing.T) {
	t.Parallel()
	data := samples()["mixed"]
	for _, level := range []int{0, 6} {
		file := append(pack(t, level, data), "what follows"...)
		for name, shape := range map[string]func(io.Reader) io.Reader{
			"one byte": iotest.OneByteReader, "half": iotest.HalfReader, "error with data": iotest.DataErrReader,
			"uneven": func(r io.Reader) io.Reader { return &uneven{r: r} },
		} {
			for _, buffer := range []int{16, 23, 24, 100, 4096, 64 << 10} {
				compare(t, fmt.Sprintf("%s, buffer of %d", name, buffer), ours(shape(bytes.NewReader(file)), buffer), outcome{data, nil, []byte("what follows")})
			}
		}
	}
}

// uneven returns 1, 2, 3 ... 99 bytes in turn.
type uneven struct {
	r io.Reader
	n int
}

func (u *uneven) Read(b []byte) (int, error) {
	u.n = u.n%99 + 1
	return u.r.Read(b[:min(len(b), u.n)])
}

func TestEveryLengthOfRead(t *testing.T) {
	t.Parallel()
	data := samples()["mixed"]
	file := pack(t, 6, data)
	for _, n := range []int{1, 2, 3, 100, 257, 258, 259, 4096, maxDist, windowSize - 1, windowSize, 1 << 20} {
		z, err := NewReader(bufio.NewReader(bytes.NewReader(file)))
		if err != nil {
			t.Fatal(err)
		}
		if n, err := z.Read(nil); n != 0 || err != nil {
			t.Fatal("an empty read:", n, err)
		}
		var got []byte
		for b := make([]byte, n); err == nil; {
			var n int
			n, err = z.Read(b)
			got = append(got, b[:n]...)
		}
		if err != io.EOF || !bytes.Equal(got, data) {
			t.Fatalf("reads of %d: %d bytes and %v", n, len(got), err)
		}
	}
}

// small returns files with every part of the format.
func small(tb testing.TB) map[string][]byte {
	data := []byte(strings.Repeat("the agent reads a frame; ", 20) + "and asks the policy of the node")
	var skewed []byte
	for i, n := 0, 1; n < 3000; i, n = i+1, n*3/2+1 {
		skewed = append(skewed, bytes.Repeat([]byte{byte(i * 11)}, n)...)
	}
	rand.New(rand.NewPCG(3, 4)).Shuffle(len(skewed), func(i, j int) { skewed[i], skewed[j] = skewed[j], skewed[i] })
	random := rand.New(rand.NewPCG(5, 6))
	var matches []byte // of many lengths and distances
	for i := range 120 {
		matches = append(matches, byte(random.Uint32()), byte(i), byte(i))
		from := random.IntN(len(matches))
		matches = append(matches, matches[from:min(len(matches), from+3+random.IntN(90))]...)
	}
	var named bytes.Buffer
	w := gzip.NewWriter(&named)
	w.Name, w.Comment, w.Extra = "a name", "a cömment", []byte("extra")
	w.Write(data)
	w.Flush()
	w.Write(data[:100])
	w.Close()
	return map[string][]byte{
		"empty": pack(tb, 6, nil), "fixed": pack(tb, 9, []byte("aaaaaaaaaaaaaaaaaaaab")), "dynamic": pack(tb, 9, data),
		"huffman": pack(tb, gzip.HuffmanOnly, skewed[:800]), "long codes": pack(tb, gzip.HuffmanOnly, skewed), "stored": pack(tb, 0, data[:60]), "matches": pack(tb, 9, matches), "named": named.Bytes(),
	}
}

func TestEveryTruncation(t *testing.T) {
	t.Parallel()
	failed := errors.New("the line is down")
	for name, file := range small(t) {
		for n := range file {
			where := fmt.Sprintf("%s, %d of %d bytes", name, n, len(file))
			compare(t, where, ours(bytes.NewReader(file[:n]), 4096), theirs(bytes.NewReader(file[:n])))
			cut := func() io.Reader { return io.MultiReader(bytes.NewReader(file[:n]), iotest.ErrReader(failed)) }
			got := ours(cut(), 4096)
			compare(t, where, got, theirs(cut()))
			if !errors.Is(got.err, failed) {
				t.Fatalf("%s: error %v", where, got.err)
			}
		}
	}
}

func TestAnErrorStays(t *testing.T) {
	t.Parallel()
	file := pack(t, 6, []byte("some data"))
	for _, want := range []error{io.ErrUnexpectedEOF, errors.New("the line is down")} {
		in := io.Reader(bytes.NewReader(file[:len(file)-3]))
		if want != io.ErrUnexpectedEOF {
			in = io.MultiReader(in, iotest.ErrReader(want), bytes.NewReader(file[len(file)-3:]))
		}
		z, err := NewReader(bufio.NewReader(in))
		if err != nil {
			t.Fatal(err)
		}
		io.ReadAll(z)
		for range 3 {
			if n, err := z.Read(make([]byte, 10)); n != 0 || err != want {
				t.Fatal(n, err)
			}
		}
	}
}

func TestEveryFlippedBit(t *testing.T) {
	t.Parallel()
	for name, file := range small(t) {
		all := 4000 // bits that are flipped one by one
		if testing.Short() {
			all = 800
		}
		for bit := range len(file) * 8 {
			if bit > all && bit%13 != 0 {
				continue
			}
			flipped := append(bytes.Clone(file), make([]byte, 40)...)
			flipped[bit/8] ^= 1 << (bit % 8)
			where := fmt.Sprintf("%s, bit %d", name, bit)
			want := theirs(bytes.NewReader(flipped))
			compare(t, where, ours(bytes.NewReader(flipped), 4096), want)
			compare(t, where+", without readFast", ours(bytes.NewReader(flipped), 16), want)
		}
	}
}

func TestCorruptBlocks(t *testing.T) {
	t.Parallel()
	header := pack(t, 6, nil)[:10]
	for name, fields := range map[string][][2]uint64{ // value and bits
		"reserved type":            {{1, 1}, {3, 2}},
		"stored length":            {{1, 1}, {0, 2}, {0, 5}, {5, 16}, {5, 16}},
		"287 codes":                {{1, 1}, {2, 2}, {30, 5}, {0, 5}, {0, 4}},
		"31 distances":             {{1, 1}, {2, 2}, {0, 5}, {30, 5}, {0, 4}},
		"no code of lengths":       {{1, 1}, {2, 2}, {0, 5}, {0, 5}, {0, 4}, {0, 12}},
		"incomplete code":          {{1, 1}, {2, 2}, {0, 5}, {0, 5}, {0, 4}, {2, 3}, {0, 9}},
		"repeats nothing":          {{1, 1}, {2, 2}, {0, 5}, {0, 5}, {0, 4}, {1, 3}, {0, 3}, {1, 3}, {0, 3}, {0, 1}},
		"repeats too much":         {{1, 1}, {2, 2}, {0, 5}, {0, 5}, {0, 4}, {1, 3}, {0, 3}, {1, 3}, {0, 3}, {1, 1}, {127, 7}, {1, 1}, {127, 7}},
		"no literal and no end":    {{1, 1}, {2, 2}, {0, 5}, {0, 5}, {0, 4}, {1, 3}, {0, 3}, {1, 3}, {0, 3}, {1, 1}, {127, 7}, {1, 1}, {109, 7}},
		"a code of no length":      {{1, 1}, {1, 2}, {0b01100011, 8}},                    // 286 of the fixed codes
		"a code of no distance":    {{1, 1}, {1, 2}, {0b1100, 8}, {64, 7}, {0b01111, 5}}, // a literal, 257, 30
		"a distance before a byte": {{1, 1}, {1, 2}, {64, 7}, {0, 5}},
	} {
		file, n := bytes.Clone(header), uint64(0)
		for _, f := range fields {
			for i := range f[1] {
				if n%8 == 0 {
					file = append(file, 0)
				}
				file[len(file)-1] |= byte(f[0]>>i&1) << (n % 8)
				n++
			}
		}
		for _, follow := range []int{0, 50} {
			file := append(bytes.Clone(file), make([]byte, follow)...)
			got := ours(bytes.NewReader(file), 4096)
			compare(t, name, got, theirs(bytes.NewReader(file)))
			if got.kind() != "corrupt" {
				t.Errorf("%s: %v", name, got.err)
			}
		}
	}
}

func TestEveryHeader(t *testing.T) {
	t.Parallel()
	plain := pack(t, 6, []byte("some data"))
	for flags := range 256 {
		for _, length := range []int{0, 1, 510, 511, 512, 600} {
			header := append(bytes.Clone(plain[:3]), byte(flags))
			header = append(header, plain[4:10]...)
			text := append(bytes.Repeat([]byte{0xe4}, length), 0)
			if flags&flagExtra != 0 {
				header = append(header, byte(len(text)), byte(len(text)>>8))
				header = append(header, text...)
			}
			for _, flag := range []int{flagName, flagComment} {
				if flags&flag != 0 {
					header = append(header, text...)
				}
			}
			crc := crc32.ChecksumIEEE(header)
			for _, wrong := range []byte{0, 1} {
				file := bytes.Clone(header)
				if flags&flagHeaderCRC != 0 {
					file = append(file, byte(crc)^wrong, byte(crc>>8))
				}
				file = append(file, plain[10:]...)
				compare(t, fmt.Sprintf("flags %b, texts of %d bytes", flags, length), ours(bytes.NewReader(file), 4096), theirs(bytes.NewReader(file)))
			}
		}
	}
}

func TestMemory(t *testing.T) {
	file := pack(t, 9, samples()["mixed"])
	r := bufio.NewReaderSize(nil, 64<<10)
	in := bytes.NewReader(nil)
	fixed()
	allocated := testing.AllocsPerRun(10, func() {
		in.Reset(file)
		r.Reset(in)
		z, err := NewReader(r)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.Copy(io.Discard, struct{ io.Reader }{z}); err != nil {
			t.Fatal(err)
		}
	})
	if allocated > 8 { // whatever the number of blocks
		t.Error(allocated, "allocations")
	}
}
