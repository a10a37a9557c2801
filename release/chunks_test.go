package release

import (
	"bytes"
	"encoding/json"
	"math/rand/v2"
	"reflect"
	"strings"
	"testing"
)

// artefactWith is one of size bytes with those members.
func artefactWith(t testing.TB, size int64, chunks, formats string) Artefact {
	t.Helper()
	a := Artefact{Arch: "x86_64-linux", Variant: DefaultVariant, URL: "https://example.com/a.tar.gz", SHA256: strings.Repeat("0", 64), Size: size}
	a.Chunks, a.Formats = json.RawMessage(chunks), json.RawMessage(formats)
	return a
}

func TestNewChunksAddUp(t *testing.T) {
	t.Parallel()
	data := make([]byte, 5*MinChunk/2)
	rand.NewChaCha8([32]byte{}).Read(data)
	for _, size := range []int64{1, MinChunk - 1, MinChunk, MinChunk + 1, 2 * MinChunk, int64(len(data))} {
		c, err := NewChunks(bytes.NewReader(data[:size]), MinChunk)
		if err != nil {
			t.Fatal(err)
		}
		if err := c.check(size); err != nil {
			t.Errorf("of %d bytes: %v", size, err)
		}
		b, err := json.Marshal(c)
		if err != nil {
			t.Fatal(err)
		}
		forms, wrong := artefactWith(t, size, string(b), "").Forms()
		if wrong != nil || len(forms) != 1 || !reflect.DeepEqual(*forms[0].Chunks, c) {
			t.Errorf("of %d bytes: %+v, %v", size, forms, wrong)
		}
	}
}

// A manifest of before chunks has the tarball alone, and so has one that says null.
func TestAnArtefactWithoutForms(t *testing.T) {
	t.Parallel()
	for _, of := range []string{"", "null"} {
		forms, wrong := artefactWith(t, 100, of, of).Forms()
		if wrong != nil || len(forms) != 1 || forms[0].Format != FormatGzip || forms[0].Chunks != nil {
			t.Errorf("%q: %+v, %v", of, forms, wrong)
		}
	}
}

// What is wrong with chunks and formats never costs the release.
func FuzzForms(f *testing.F) {
	good := `{"size":1048576,"sha256":["` + strings.Repeat("a", 64) + `"]}`
	f.Add(int64(100), good, `[{"format":"tar.zst","url":"https://example.com/a.tar.zst","size":50,"sha256":"`+strings.Repeat("b", 64)+`","chunks":`+good+`}]`)
	f.Add(int64(0), `{"size":0}`, `[]`)
	f.Add(int64(1<<40), `{"size":1e9,"sha256":[]}`, `[null,{"format":7}]`)
	f.Add(int64(100), `[1]`, `{"a":1}`)
	f.Fuzz(func(t *testing.T, size int64, chunks, formats string) {
		a := artefactWith(t, size, chunks, formats)
		forms, wrong := a.Forms()
		last := forms[len(forms)-1]
		if last.Format != FormatGzip || last.URL != a.URL || last.SHA256 != a.SHA256 || last.Size != size {
			t.Errorf("the tarball is %+v", last)
		}
		if len(forms) > 2 {
			t.Errorf("%d forms", len(forms))
		}
		for _, f := range forms {
			if f.Chunks == nil {
				continue
			}
			if n := int64(len(f.Chunks.SHA256)); n < 1 || n > MaxChunks || f.Chunks.Size < MinChunk || f.Chunks.Size > MaxChunk ||
				n*f.Chunks.Size < f.Size || (n-1)*f.Chunks.Size >= f.Size {
				t.Errorf("%d chunks of %d bytes for %d", n, f.Chunks.Size, f.Size)
			}
		}
		for _, err := range wrong {
			if CodeOf(err) != ManifestInvalid || len(err.Error()) > 1000 {
				t.Errorf("%v", err)
			}
		}
	})
}
