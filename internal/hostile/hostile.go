// Package hostile builds the tarballs that a node must refuse, each wrong in one
// way: entries that leave the version's directory, names and types that no
// release has, bombs, and damaged gzip and tar streams. Tests of every package
// that reads archives take their cases from here.
//
// It writes no file and knows nothing of package stage; a test of stage compares
// the limits below with the real ones.
package hostile

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"fmt"
	"io"
	"strings"

	"github.com/bilbycast/edge-agent/internal/state"
)

// Limits of package stage that the archives exceed.
const (
	MaxEntries = 100_000
	MaxPath    = 1024 // bytes of a name
	MaxDepth   = 64   // elements of a name
	MaxTrailer = 1 << 20
	Marker     = state.ReleaseFile // the reserved name
)

// Case is one archive that must be refused.
type Case struct {
	Name     string
	Error    string        // part of the refusal, by which an operator finds the entry
	Tarball  func() []byte // builds the archive
	Unpacked int64         // unpacked_size of the manifest, in bytes; 0: not given
	Slow     bool          // too slow for go test -short
}

// entry parses one line: TYPE NAME [-> TARGET] [= BODY], where TYPE is file, dir,
// link, hard, char, block or fifo. Every entry has set-id bits and an owner.
func entry(line string) (*tar.Header, string) {
	kind, rest, _ := strings.Cut(line, " ")
	rest, body, _ := strings.Cut(rest, " = ")
	name, target, _ := strings.Cut(rest, " -> ")
	h := &tar.Header{Name: name, Linkname: target, Mode: 0o6755, Size: int64(len(body)), Uid: 1234}
	h.Typeflag = map[string]byte{
		"file": tar.TypeReg, "dir": tar.TypeDir, "link": tar.TypeSymlink, "hard": tar.TypeLink,
		"char": tar.TypeChar, "block": tar.TypeBlock, "fifo": tar.TypeFifo,
	}[kind]
	return h, body
}

// Archive returns a gzipped tarball with one entry for each line, in the form
// TYPE NAME [-> TARGET] [= BODY]; TYPE is file, dir, link, hard, char, block or
// fifo. It leaves out a line that tar cannot express.
func Archive(lines ...string) []byte {
	return Gzip(tarOf(func(w *tar.Writer) {
		for _, line := range lines {
			h, body := entry(line)
			if w.WriteHeader(h) == nil {
				io.WriteString(w, body)
			}
		}
	}))
}

// Gzip returns b, compressed.
func Gzip(b []byte) []byte {
	var out bytes.Buffer
	gz, _ := gzip.NewWriterLevel(&out, gzip.BestSpeed) // the level is valid
	gz.Write(b)
	gz.Close()
	return out.Bytes()
}

func tarOf(f func(*tar.Writer)) []byte {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	f(w)
	w.Close() // into memory
	return b.Bytes()
}

// patch writes with at an offset of the first header block, and corrects its checksum.
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

// Cases returns every archive.
func Cases() []Case {
	var cases []Case
	add := func(name, message string, tarball func() []byte) {
		cases = append(cases, Case{Name: name, Error: message, Tarball: tarball})
	}
	for _, c := range []struct {
		message string
		lines   []string
	}{
		{"empty", nil},
		{`"../outside": the name contains ".."`, []string{"file ../outside = x"}},
		{`"a/../../outside"`, []string{"file a/../../outside = x"}},
		{`".."`, []string{"dir .."}},
		{`"/etc/passwd"`, []string{"file /etc/passwd = x"}},
		{"leaves the archive", []string{"link up -> ../outside"}},
		{"absolute", []string{"link up -> /etc/passwd"}},
		{"leaves the archive", []string{"link a/up -> ../../outside"}},
		{"after another element", []string{"link up -> x/../../outside"}},
		{"leaves the archive", []string{"link a -> b", "link b -> .."}},
		{`"a/b": lies below`, []string{"link a -> .", "file a/b = x"}},
		{"lies below", []string{"dir d", "link d/l -> ../d", "file d/l/x = x"}},
		{"lies below", []string{"file a = x", "file a/b = x"}},
		{`"a": a second entry`, []string{"file a = x", "file a = y"}},
		{"second entry", []string{"link a -> b", "file a = y"}},
		{"second entry", []string{"dir a", "file ./a = y"}},
		{"hard link", []string{"hard a -> ../outside"}},
		{"hard link", []string{"hard a -> later", "file later = x"}},
		{"hard link", []string{"link l -> f", "hard a -> l"}},
		{"hard link", []string{"hard a -> a"}},
		{`"null": `, []string{"char null"}},
		{"only files, directories and links", []string{"block sda"}},
		{"only files, directories and links", []string{"fifo pipe"}},
		{"reserved", []string{"file " + Marker + " = {}"}},
		{"elements", []string{"file " + strings.Repeat("a/", MaxDepth) + "x = x"}},
		{"bytes", []string{"file " + strings.Repeat("a", MaxPath+1) + " = x"}},
		{"UTF-8", []string{"file a\xff = x"}},
		{`"a\nb"`, []string{"file a\nb = x"}},
	} {
		name := strings.Join(c.lines, "; ")
		add(name[:min(60, len(name))], c.message, func() []byte { return Archive(c.lines...) })
	}

	one := tarOf(func(w *tar.Writer) {
		w.WriteHeader(&tar.Header{Name: "a", Mode: 0o644, Size: 3})
		io.WriteString(w, "abc")
	})
	good := Gzip(one)
	stream := func(name, message string, b func() []byte) { add(name, message, func() []byte { return Gzip(b()) }) }
	header := func(name, message string, h *tar.Header) {
		stream(name, message, func() []byte { return tarOf(func(w *tar.Writer) { w.WriteHeader(h) }) })
	}
	add("trailing garbage", "after the end of the gzip stream", func() []byte { return append(bytes.Clone(good), "garbage"...) })
	add("a second gzip member", "after the end of the gzip stream", func() []byte { return append(bytes.Clone(good), good...) })
	add("zeros after it", "after the end of the gzip stream", func() []byte { return append(bytes.Clone(good), make([]byte, 512)...) })
	add("nothing at all", "", func() []byte { return nil })
	add("not gzip", "", func() []byte { return []byte("hello, world") })
	add("cut", "", func() []byte { return good[:len(good)/2] })
	add("without its CRC", "", func() []byte { return good[:len(good)-4] })
	add("a wrong CRC", "", func() []byte { return append(bytes.Clone(good[:len(good)-8]), make([]byte, 8)...) })
	stream("megabytes after the last entry", "after the last entry", func() []byte { return append(bytes.Clone(one), make([]byte, 2*MaxTrailer)...) })
	stream("a size that is negative", "after 0 entries", func() []byte { return patch(one, 124, "\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x00") })
	stream("a size beyond all", "may unpack to", func() []byte { return patch(one, 124, "77777777777\x00") })
	stream("a size beyond the file", "EOF", func() []byte { return patch(one, 124, "00000040000\x00") })
	stream("a wrong checksum", "after 0 entries", func() []byte { return append([]byte("b"), one[1:]...) })
	stream("a sparse bomb", "", func() []byte { return gnuSparse("sparse", 1<<40) })
	stream("megabytes of PAX records", "after 0 entries", func() []byte { return pax(8 << 20) })
	stream("PAX records of 17 KiB", "after 0 entries: a header of more than", func() []byte { return pax(17 << 10) })
	stream("a name of 17 KiB, by GNU", "after 0 entries: a header of more than", func() []byte {
		return tarOf(func(w *tar.Writer) {
			w.WriteHeader(&tar.Header{Name: strings.Repeat("n", 17<<10), Typeflag: tar.TypeDir, Mode: 0o755, Format: tar.FormatGNU})
		})
	})
	header("a control character in a target", "control character", &tar.Header{Name: "x", Typeflag: tar.TypeSymlink, Linkname: "a\tb"})
	header("a name of 4 KiB, by PAX", "more than", &tar.Header{Name: strings.Repeat("long/", 820), Typeflag: tar.TypeDir, Mode: 0o755, Format: tar.FormatPAX})
	header("a name of 4 KiB, by GNU", "more than", &tar.Header{Name: strings.Repeat("n", 4096), Typeflag: tar.TypeDir, Mode: 0o755, Format: tar.FormatGNU})
	stream("a PAX name with a NUL", "after 0 entries", func() []byte { return paxName("a\x00b") })
	zeros := func() []byte { return Archive("file zeros = " + strings.Repeat("0", 20<<20)) } // unpacks to 1000 x its size
	cases = append(cases,
		Case{Name: "a gzip bomb, by the ratio", Error: "may unpack to", Tarball: zeros},
		Case{Name: "a gzip bomb, by the manifest", Error: "may unpack to", Tarball: zeros, Unpacked: 1000},
		Case{Name: "more directories than entries", Error: "more than", Slow: true, Tarball: func() []byte {
			return Gzip(tarOf(func(w *tar.Writer) {
				for i := range MaxEntries/50 + 1 {
					w.WriteHeader(&tar.Header{Name: fmt.Sprintf("%d/%s", i, strings.Repeat("d/", 50)), Typeflag: tar.TypeDir, Mode: 0o755})
				}
			}))
		}},
		Case{Name: "a million entries", Error: fmt.Sprintf("more than %d entries", MaxEntries), Unpacked: 1 << 36, Slow: true, Tarball: func() []byte {
			return Gzip(tarOf(func(w *tar.Writer) {
				for range 1_000_000 {
					w.WriteHeader(&tar.Header{Name: "d/", Typeflag: tar.TypeDir, Mode: 0o755})
				}
			}))
		}})
	return cases
}

// pax returns an entry whose PAX records have size bytes.
func pax(size int) []byte {
	record := fmt.Sprintf("%d comment=", size)
	return paxOf(record + strings.Repeat("x", size-len(record)-1) + "\n")
}

// paxName returns a file whose name comes from a PAX record, and may hold any byte.
func paxName(name string) []byte {
	record := fmt.Sprintf(" path=%s\n", name)
	n := len(record) + 2 // of two digits
	b := paxOf(fmt.Sprintf("%d%s", n, record))
	b = append(b, make([]byte, (512-len(b)%512)%512)...)
	return append(b, tarOf(func(w *tar.Writer) { w.WriteHeader(&tar.Header{Name: "short", Mode: 0o644}) })...)
}

func paxOf(records string) []byte {
	h := make([]byte, 512)
	copy(h[100:], "0000644\x00")
	copy(h[124:], fmt.Sprintf("%011o\x00", len(records)))
	h[156] = tar.TypeXHeader
	copy(h[257:], "ustar\x0000")
	return append(patch(h, 0, "pax"), records...)
}

// gnuSparse returns the header of an old GNU sparse file that claims size bytes.
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
