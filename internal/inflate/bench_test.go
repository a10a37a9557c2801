package inflate

import (
	"bufio"
	"bytes"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	stdgzip "compress/gzip"

	"github.com/klauspost/compress/gzip"
)

// BenchmarkReader compares the reader with the fastest library and with that of Go, on the same files.
func BenchmarkReader(b *testing.B) {
	out, err := exec.Command("go", "env", "GOROOT").Output()
	if err != nil {
		b.Skip(err)
	}
	goroot := strings.TrimSpace(string(out))
	for _, file := range []struct{ name, path string }{
		{"program", filepath.Join(goroot, "bin", "go")},
		{"text", filepath.Join(goroot, "src", "net", "http", "h2_bundle.go")},
	} {
		data, err := os.ReadFile(file.path)
		if err != nil {
			b.Skip(err)
		}
		var packed bytes.Buffer
		w, _ := stdgzip.NewWriterLevel(&packed, 9)
		if _, err := w.Write(data); err != nil {
			b.Fatal(err)
		}
		if err := w.Close(); err != nil {
			b.Fatal(err)
		}
		run := func(open func(io.Reader) (io.Reader, error)) func(b *testing.B) {
			return func(b *testing.B) {
				buffer := make([]byte, 64<<10)
				b.SetBytes(int64(len(data)))
				for b.Loop() {
					r, err := open(bytes.NewReader(packed.Bytes()))
					if err != nil {
						b.Fatal(err)
					}
					if _, err := io.CopyBuffer(struct{ io.Writer }{io.Discard}, struct{ io.Reader }{r}, buffer); err != nil {
						b.Fatal(err)
					}
				}
			}
		}
		b.Run(file.name+"/ours", run(func(r io.Reader) (io.Reader, error) { return NewReader(bufio.NewReaderSize(r, 64<<10)) }))
		b.Run(file.name+"/klauspost", run(func(r io.Reader) (io.Reader, error) {
			return gzip.NewReader(bufio.NewReaderSize(r, 64<<10))
		}))
		b.Run(file.name+"/compress-gzip", run(func(r io.Reader) (io.Reader, error) {
			return stdgzip.NewReader(bufio.NewReaderSize(r, 64<<10))
		}))
	}
}
