package tarstream

import (
	"bufio"
	"bytes"
	"io"
	"strings"
	"testing"

	"github.com/bilbycast/edge-agent/release"
	"github.com/klauspost/compress/zstd"
)

// A frame has the bytes that the decoder takes of the file, and no more.
func FuzzFrame(f *testing.F) {
	small := []byte(strings.Repeat("some text, ", 1000))
	for _, data := range [][]byte{small, make([]byte, 300_000)} {
		for _, o := range []zstd.EOption{zstd.WithEncoderCRC(true), zstd.WithEncoderCRC(false), zstd.WithSingleSegment(true)} {
			w, err := zstd.NewWriter(nil, o)
			if err != nil {
				f.Fatal(err)
			}
			f.Add(w.EncodeAll(data, nil))
			if err := w.Close(); err != nil {
				f.Fatal(err)
			}
		}
	}
	f.Fuzz(func(t *testing.T, packed []byte) {
		file := bufio.NewReader(bytes.NewReader(packed))
		one, err := newFrame(file)
		if err != nil {
			return
		}
		d, err := zstd.NewReader(one, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true), zstd.WithDecoderMaxWindow(release.MaxZstdWindow))
		if err != nil {
			return
		}
		defer d.Close()
		n, err := io.Copy(io.Discard, io.LimitReader(d, 64<<20))
		if err != nil || n == 64<<20 {
			return
		}
		rest, _ := io.ReadAll(file)
		frame := packed[:len(packed)-len(rest)]
		whole, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxWindow(release.MaxZstdWindow))
		if err != nil {
			t.Fatal(err)
		}
		defer whole.Close()
		if got, err := whole.DecodeAll(frame, nil); err != nil || int64(len(got)) != n {
			t.Errorf("%d bytes through the frame; its bytes alone give %d, %v", n, len(got), err)
		}
	})
}
