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

func zstdOf(t testing.TB, data []byte, options ...zstd.EOption) []byte {
	t.Helper()
	var b bytes.Buffer
	w, err := zstd.NewWriter(&b, options...)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(data); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// A frame has the bytes that the decoder takes of the file, and no more.
func FuzzFrame(f *testing.F) {
	small := []byte(strings.Repeat("some text, ", 1000))
	f.Add(zstdOf(f, small))
	f.Add(zstdOf(f, small, zstd.WithEncoderCRC(false)))
	f.Add(zstdOf(f, make([]byte, 300_000)))
	f.Add(zstdOf(f, small, zstd.WithSingleSegment(true)))
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
