package tarstream

import (
	"archive/tar"
	"bytes"
	"io"
	"strings"
	"testing"
)

// An entry may have MaxHeader bytes before its content, and its content has no such limit.
func TestMaxHeader(t *testing.T) {
	t.Parallel()
	for records, refused := range map[int]bool{
		MaxHeader - 2*512:     false, // beside the headers of the records and of the entry
		MaxHeader - 2*512 + 1: true,
		MaxHeader - 512:       true, // the limit is where a header ends
	} {
		var b bytes.Buffer
		w := tar.NewWriter(&b)
		comment := strings.Repeat("c", records-len("16000 comment=\n"))
		for _, h := range []*tar.Header{
			{Name: "large", Size: 2*MaxHeader + 1}, // 511 bytes of padding follow
			{Name: "records", Size: 1, Format: tar.FormatPAX, PAXRecords: map[string]string{"comment": comment}},
			{Name: "last"},
		} {
			if err := w.WriteHeader(h); err != nil {
				t.Fatal(err)
			}
			w.Write(make([]byte, h.Size)) // into memory
		}
		w.Close()
		r := NewReader(&b, 1<<20)
		var err error
		for err == nil {
			if _, err = r.Next(); err == nil {
				_, err = io.Copy(io.Discard, r)
			}
		}
		switch want := "after 1 entries: a header of more than 16384 bytes, with PAX records and the map of a sparse file"; {
		case refused && err.Error() != want:
			t.Errorf("%d bytes of records: %v, want %s", records, err, want)
		case !refused && err != io.EOF:
			t.Errorf("%d bytes of records: %v", records, err)
		}
	}
}

// An archive of as many entries as a node accepts may have the longest names.
func TestTheLongestEntry(t *testing.T) {
	t.Parallel()
	for _, h := range []tar.Header{
		{Typeflag: tar.TypeSymlink, Name: strings.Repeat("é", MaxPath/2), Linkname: strings.Repeat("é", MaxPath/2)},
		{Typeflag: tar.TypeSymlink, Name: strings.Repeat("n", MaxPath), Linkname: strings.Repeat("l", MaxPath), Format: tar.FormatGNU},
	} {
		var b bytes.Buffer
		if err := tar.NewWriter(&b).WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		if b.Len()+511 > meanHeader { // of padding
			t.Errorf("%d bytes", b.Len())
		}
	}
}

// An archive that reaches its limit where an entry ends is not complete.
func TestTheLimitBetweenEntries(t *testing.T) {
	t.Parallel()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, name := range []string{"a/", "b/", "c/"} {
		if err := w.WriteHeader(&tar.Header{Typeflag: tar.TypeDir, Name: name}); err != nil {
			t.Fatal(err)
		}
	}
	w.Close()
	for most, want := range map[int64]string{2 * 512: "after 2 entries: the archive unpacks to more than its limit", 6 * 512: "EOF"} {
		r := NewReader(bytes.NewReader(b.Bytes()), most-MaxEntries*meanHeader-MaxTrailer)
		var err error
		for err == nil {
			_, err = r.Next()
		}
		if err.Error() != want {
			t.Errorf("%d bytes: %v, want %q", most, err, want)
		}
	}
}

// The files of an archive have as many bytes as its manifest says, or 200 times those of the
// packed file, and at least 16 MiB.
func TestLimit(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ unpacked, packed, want int64 }{
		{5, 1 << 40, 5}, {0, 1, 16 << 20}, {0, 1 << 20, 200 << 20}, {0, 1 << 40, 64 << 30},
	} {
		if got := Limit(tt.unpacked, tt.packed); got != tt.want {
			t.Errorf("Limit(%d, %d) is %d, want %d", tt.unpacked, tt.packed, got, tt.want)
		}
	}
}

// A directory may have as many elements as a file.
func TestADirectoryOfTheMostElements(t *testing.T) {
	t.Parallel()
	for n, want := range map[int]bool{MaxDepth: true, MaxDepth + 1: false} {
		var all Entries
		_, err := all.Next(&tar.Header{Typeflag: tar.TypeDir, Name: strings.Repeat("d/", n)})
		if (err == nil) != want {
			t.Errorf("%d elements: %v", n, err)
		}
	}
}
