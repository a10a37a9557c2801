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
		r := NewReader(&b)
		var err error
		for err == nil {
			if _, err = r.Next(); err == nil {
				_, err = io.Copy(io.Discard, r)
			}
		}
		switch want := "after 1 entries: a header of more than 16384 bytes"; {
		case refused && err.Error() != want:
			t.Errorf("%d bytes of records: %v, want %s", records, err, want)
		case !refused && err != io.EOF:
			t.Errorf("%d bytes of records: %v", records, err)
		}
	}
}
