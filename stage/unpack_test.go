package stage

import (
	"archive/tar"
	"bytes"
	"errors"
	"math/rand/v2"
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

func tarOf(t testing.TB, name string, size int64) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	err := errors.Join(w.WriteHeader(&tar.Header{Name: name, Typeflag: tar.TypeReg, Mode: 0o644, Size: size}))
	_, e := w.Write(make([]byte, size))
	if err := errors.Join(err, e, w.Close()); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestZstdFilesThatAreRefused(t *testing.T) {
	t.Parallel()
	small := tarOf(t, "file", 100)
	noise := make([]byte, 20<<20)
	for i := range noise {
		noise[i] = byte(rand.Uint32())
	}
	dict := bytes.Repeat([]byte("dictionary"), 100)
	skippable := append([]byte{0x50, 0x2A, 0x4D, 0x18, 4, 0, 0, 0}, "skip"...)
	for name, tt := range map[string]struct {
		packed   []byte
		unpacked int64
		says     string
	}{
		"a bomb":               {zstdOf(t, tarOf(t, "file", 100<<20)), 1000, "may unpack to 1000"},
		"a bomb of no file":    {zstdOf(t, append(small, make([]byte, 60<<20)...)), 1000, "after the last entry"},
		"a window of 16 MiB":   {zstdOf(t, noise, zstd.WithWindowSize(16<<20)), 30 << 20, "window of 16777216 bytes, more than 8388608"},
		"one segment of it":    {zstdOf(t, noise, zstd.WithSingleSegment(true), zstd.WithWindowSize(32<<20)), 30 << 20, "window of"},
		"a dictionary":         {zstdOf(t, small, zstd.WithEncoderDictRaw(7, dict)), 1000, "dictionary 7"},
		"a skippable frame":    {append(bytes.Clone(skippable), zstdOf(t, small)...), 1000, "skippable"},
		"one at the end":       {append(zstdOf(t, small), skippable...), 1000, "after the end of the zstd stream"},
		"a second frame":       {append(zstdOf(t, small), zstdOf(t, small)...), 1000, "after the end of the zstd stream"},
		"a wrong checksum":     {flipLast(zstdOf(t, small)), 1000, "CRC"},
		"a header that is cut": {zstdOf(t, small)[:3], 1000, "not a zstd file"},
		"nothing":              {nil, 1000, "not a zstd file"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := setup(t, nil)
			_, err := s.extract(t.Context(), bytes.NewReader(tt.packed), t.TempDir(),
				packing{format: release.FormatZstd, size: int64(len(tt.packed)), unpacked: tt.unpacked, progress: func(int64) {}})
			if code(err) != release.ExtractFailed || !strings.Contains(err.Error(), tt.says) {
				t.Errorf("got %v, want %q", err, tt.says)
			}
		})
	}
}

func flipLast(b []byte) []byte {
	b[len(b)-1] ^= 1
	return b
}
