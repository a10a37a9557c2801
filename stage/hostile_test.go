package stage

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"fmt"
	"io"
	"os"
	"strings"
	"testing"

	"github.com/bilbycast/edge-agent/release"
)

// gzipped packs a tar stream that archive/tar would perhaps not write.
func gzipped(text []byte) []byte {
	var b bytes.Buffer
	gz, _ := gzip.NewWriterLevel(&b, gzip.BestSpeed)
	gz.Write(text)
	gz.Close()
	return b.Bytes()
}

func tarOf(t testing.TB, f func(*tar.Writer)) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	f(w)
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// patch changes the header block at the beginning of a tar stream, and mends its checksum.
func patch(text []byte, at int, with string) []byte {
	text = bytes.Clone(text)
	copy(text[at:], with)
	copy(text[148:156], "        ")
	sum := 0
	for _, c := range text[:512] {
		sum += int(c)
	}
	copy(text[148:156], fmt.Sprintf("%06o\x00 ", sum))
	return text
}

// Archives that are hostile in ways that the mini language has no words for.
func TestExtractRefusesHostileStreams(t *testing.T) {
	t.Parallel()
	one := tarOf(t, func(w *tar.Writer) {
		w.WriteHeader(&tar.Header{Name: "a", Mode: 0o644, Size: 3})
		io.WriteString(w, "abc")
	})
	good := gzipped(one)
	for name, tt := range map[string]struct {
		b    []byte
		want string
	}{
		"trailing garbage":        {append(bytes.Clone(good), "garbage"...), "after the end of the gzip stream"},
		"a second gzip member":    {append(bytes.Clone(good), good...), "after the end of the gzip stream"},
		"zeros after it":          {append(bytes.Clone(good), make([]byte, 512)...), "after the end of the gzip stream"},
		"megabytes after the end": {gzipped(append(bytes.Clone(one), make([]byte, 2*maxTrailer)...)), "after the last entry"},
		"a size that is negative": {gzipped(patch(one, 124, "\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x00")), "after 0 entries"},
		"a size beyond all":       {gzipped(patch(one, 124, "77777777777\x00")), "may unpack to"},
		"a size beyond the file":  {gzipped(patch(one, 124, "00000040000\x00")), "EOF"},
		"a wrong checksum":        {gzipped(append([]byte("b"), one[1:]...)), "after 0 entries"},
		"a NUL in the name": {gzipped(tarOf(t, func(w *tar.Writer) {
			w.WriteHeader(&tar.Header{Name: "x", Typeflag: tar.TypeSymlink, Linkname: "a\tb"})
		})), "control character"},
		"a sparse bomb": {gzipped(gnuSparse("sparse", 1<<40)), ""},
		"a name of 4 KiB, by PAX": {gzipped(tarOf(t, func(w *tar.Writer) {
			w.WriteHeader(&tar.Header{Name: strings.Repeat("long/", 820), Typeflag: tar.TypeDir, Mode: 0o755, Format: tar.FormatPAX})
		})), "more than"},
		"a name of 4 KiB, by GNU": {gzipped(tarOf(t, func(w *tar.Writer) {
			w.WriteHeader(&tar.Header{Name: strings.Repeat("n", 4096), Typeflag: tar.TypeDir, Mode: 0o755, Format: tar.FormatGNU})
		})), "more than"},
		"megabytes of PAX records": {gzipped(paxOf(8 << 20)), "after 0 entries"},
		"links in a chain": {gzipped(tarOf(t, func(w *tar.Writer) {
			w.WriteHeader(&tar.Header{Name: "a", Typeflag: tar.TypeSymlink, Linkname: "b"})
			w.WriteHeader(&tar.Header{Name: "b", Typeflag: tar.TypeSymlink, Linkname: ".."})
		})), "leaves the archive"},
		"more directories than entries": {gzipped(tarOf(t, func(w *tar.Writer) {
			for i := range maxEntries/50 + 1 {
				w.WriteHeader(&tar.Header{Name: fmt.Sprintf("%d/%s", i, strings.Repeat("d/", 50)), Typeflag: tar.TypeDir, Mode: 0o755})
			}
		})), "more than"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := unpack(t, tt.b, release.Artefact{})
			if code(err) != release.ExtractFailed || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %s: %v, want %q", code(err), err, tt.want)
			}
		})
	}
}

// paxOf is an entry whose PAX records claim, and have, size bytes.
func paxOf(size int) []byte {
	h := make([]byte, 512)
	copy(h[100:], "0000644\x00")
	copy(h[124:], fmt.Sprintf("%011o\x00", size))
	h[156] = tar.TypeXHeader
	copy(h[257:], "ustar\x0000")
	record := fmt.Sprintf("%d comment=", size)
	h = append(patch(h, 0, "pax"), record...)
	return append(h, strings.Repeat("x", size-len(record)-1)+"\n"...)
}

// gnuSparse is the header of an old GNU sparse file that claims size bytes.
func gnuSparse(name string, size int64) []byte {
	h := make([]byte, 3*512)
	copy(h, name)
	copy(h[100:], "0000644\x00")
	copy(h[108:], "0000000\x00")
	copy(h[116:], "0000000\x00")
	copy(h[124:], "00000000000\x00")
	copy(h[136:], "00000000000\x00")
	h[156] = tar.TypeGNUSparse
	copy(h[257:], "ustar  \x00")
	copy(h[483:], fmt.Sprintf("%011o\x00", size>>9))
	return patch(h, 0, name)
}

// A million entries are refused at the limit, in little memory.
func TestExtractBoundsEntries(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("a million entries")
	}
	var b bytes.Buffer
	gz, _ := gzip.NewWriterLevel(&b, gzip.BestSpeed)
	w := tar.NewWriter(gz)
	for range 1_000_000 {
		w.WriteHeader(&tar.Header{Name: "d/", Typeflag: tar.TypeDir, Mode: 0o755})
	}
	w.Close()
	gz.Close()
	if _, err := unpack(t, b.Bytes(), release.Artefact{UnpackedSize: release.MaxUnpacked}); code(err) != release.ExtractFailed || !strings.Contains(err.Error(), "more than 100000 entries") {
		t.Errorf("got %v", err)
	}
}

// Names that only look alike are different files, and stay so.
func TestExtractKeepsCase(t *testing.T) {
	t.Parallel()
	dir, err := unpack(t, archive(t, "file a = 1", "file A = 2", "link B -> a", "file b = 3", "file \u00e4 = 4", "file a\u0308 = 5"), release.Artefact{})
	if err != nil {
		t.Fatal(err)
	}
	if entries, _ := os.ReadDir(dir); len(entries) != 6 {
		t.Errorf("%v", entries)
	}
}
