// Package hostile makes archives that somebody might send to harm a node, each
// of them wrong in one way. It is for tests.
package hostile

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"fmt"
	"io"
	"strings"
)

// Limits of package stage that the archives go beyond.
const (
	MaxEntries = 100_000
	MaxPath    = 1024 // bytes of a name
	MaxDepth   = 64   // elements of a name
	MaxTrailer = 1 << 20
	Marker     = ".release.json" // the name that an archive must not bring
)

// Case is one archive. Tarball makes it; Says is a part of what the refusal must
// say, so that an operator can find the entry. Unpacked is what the manifest
// says, if that matters.
type Case struct {
	Name     string
	Says     string
	Tarball  func() []byte
	Unpacked int64
	Slow     bool
}

// entry is one line of an archive: TYPE NAME [-> TARGET] [= BODY], where TYPE is
// file, dir, link, hard, char, block or fifo. All have set-id bits and an owner.
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

// Archive is a tarball of entries as lines. A line that tar cannot express is
// left out.
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

// Gzip compresses text.
func Gzip(text []byte) []byte {
	var b bytes.Buffer
	gz, _ := gzip.NewWriterLevel(&b, gzip.BestSpeed) // the level is a constant that is valid
	gz.Write(text)
	gz.Close()
	return b.Bytes()
}

func tarOf(f func(*tar.Writer)) []byte {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	f(w)
	w.Close() // into memory
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

// Cases are all the archives.
func Cases() []Case {
	var cases []Case
	add := func(name, says string, tarball func() []byte) {
		cases = append(cases, Case{Name: name, Says: says, Tarball: tarball})
	}
	for _, c := range []struct {
		says  string
		lines []string
	}{
		{"empty", nil},
		{`"../outside": the name holds ".."`, []string{"file ../outside = x"}},
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
		add(name[:min(60, len(name))], c.says, func() []byte { return Archive(c.lines...) })
	}

	one := tarOf(func(w *tar.Writer) {
		w.WriteHeader(&tar.Header{Name: "a", Mode: 0o644, Size: 3})
		io.WriteString(w, "abc")
	})
	good := Gzip(one)
	stream := func(name, says string, b func() []byte) { add(name, says, func() []byte { return Gzip(b()) }) }
	header := func(name, says string, h *tar.Header) {
		stream(name, says, func() []byte { return tarOf(func(w *tar.Writer) { w.WriteHeader(h) }) })
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
	header("a control character in a target", "control character", &tar.Header{Name: "x", Typeflag: tar.TypeSymlink, Linkname: "a\tb"})
	header("a name of 4 KiB, by PAX", "more than", &tar.Header{Name: strings.Repeat("long/", 820), Typeflag: tar.TypeDir, Mode: 0o755, Format: tar.FormatPAX})
	header("a name of 4 KiB, by GNU", "more than", &tar.Header{Name: strings.Repeat("n", 4096), Typeflag: tar.TypeDir, Mode: 0o755, Format: tar.FormatGNU})
	stream("a PAX name with a NUL", "after 0 entries", func() []byte { return paxName("a\x00b") })
	stream("more directories than entries", "more than", func() []byte {
		return tarOf(func(w *tar.Writer) {
			for i := range MaxEntries/50 + 1 {
				w.WriteHeader(&tar.Header{Name: fmt.Sprintf("%d/%s", i, strings.Repeat("d/", 50)), Typeflag: tar.TypeDir, Mode: 0o755})
			}
		})
	})
	zeros := func() []byte { return Archive("file zeros = " + strings.Repeat("0", 20<<20)) } // unpacks to 1000 x its size
	cases = append(cases,
		Case{Name: "a gzip bomb, by the ratio", Says: "may unpack to", Tarball: zeros},
		Case{Name: "a gzip bomb, by the manifest", Says: "may unpack to", Tarball: zeros, Unpacked: 1000},
		Case{Name: "a million entries", Says: fmt.Sprintf("more than %d entries", MaxEntries), Unpacked: 1 << 36, Slow: true, Tarball: func() []byte {
			return Gzip(tarOf(func(w *tar.Writer) {
				for range 1_000_000 {
					w.WriteHeader(&tar.Header{Name: "d/", Typeflag: tar.TypeDir, Mode: 0o755})
				}
			}))
		}})
	return cases
}

// pax is an entry whose PAX records claim, and have, size bytes.
func pax(size int) []byte {
	record := fmt.Sprintf("%d comment=", size)
	return paxOf(record + strings.Repeat("x", size-len(record)-1) + "\n")
}

// paxName is a file whose name comes from a PAX record, whatever is in it.
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
