package stage

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/bilbycast/edge-agent/release"
)

// What is wrong with a form costs time, and the node says it with its code.
func TestFormsThatAreWrong(t *testing.T) {
	t.Parallel()
	setup(t, nil) // publishes
	zst := formBytes(t, streamed, release.FormatZstd)
	gz := formBytes(t, streamed, release.FormatGzip)
	flip := func(b []byte, at int) []byte {
		b = bytes.Clone(b)
		b[at] ^= 1
		return b
	}
	signed := func(f *release.Form, b []byte) {
		c, err := release.NewChunks(bytes.NewReader(b), release.MinChunk)
		if err != nil {
			t.Fatal(err)
		}
		f.Size, f.SHA256, f.Chunks = int64(len(b)), fmt.Sprintf("%x", sha256.Sum256(b)), &c
	}
	for name, tt := range map[string]struct {
		files  map[string][]byte
		change func(a *release.Artefact, zst *release.Form, chunks *release.Chunks)
		raw    func(a *release.Artefact)
		asked  string
		says   string
	}{
		"the host has no zst":           {files: map[string][]byte{".zst": nil}, asked: "tar.zst, tar.gz", says: "upgrade_network_error"},
		"a chunk of the zst is another": {files: map[string][]byte{".zst": flip(zst, release.MinChunk+5)}, asked: "tar.zst, tar.zst 1048576, tar.gz", says: "chunk 2 of 4"},
		"the zst is shorter":            {files: map[string][]byte{".zst": zst[:len(zst)-9]}, asked: "tar.zst, tar.zst, tar.zst, tar.zst, tar.zst, tar.zst, tar.gz", says: "captive portal"},
		"the zst has another digest":    {change: func(_ *release.Artefact, f *release.Form, _ *release.Chunks) { f.SHA256 = strings.Repeat("0", 64) }, asked: "tar.zst, tar.gz", says: "upgrade_checksum_mismatch"},
		"a zst without chunks":          {change: func(_ *release.Artefact, f *release.Form, _ *release.Chunks) { f.Chunks = nil }, asked: "tar.zst"},
		"trailing frames": {change: func(_ *release.Artefact, f *release.Form, _ *release.Chunks) {
			signed(f, append(bytes.Clone(zst), zst...))
		},
			files: map[string][]byte{".zst": append(bytes.Clone(zst), zst...)}, asked: "tar.zst, tar.gz", says: "after the end of the zstd stream"},
		"a trailing byte": {change: func(_ *release.Artefact, f *release.Form, _ *release.Chunks) { signed(f, append(bytes.Clone(zst), 0)) },
			files: map[string][]byte{".zst": append(bytes.Clone(zst), 0)}, asked: "tar.zst, tar.gz", says: "after the end of the zstd stream"},
		"the zst is a gzip file": {change: func(_ *release.Artefact, f *release.Form, _ *release.Chunks) { signed(f, gz) },
			files: map[string][]byte{".zst": gz}, asked: "tar.zst, tar.gz", says: "not a zstd file"},
		"a zst that is cut": {change: func(_ *release.Artefact, f *release.Form, _ *release.Chunks) { signed(f, zst[:len(zst)-100]) },
			files: map[string][]byte{".zst": zst[:len(zst)-100]}, asked: "tar.zst, tar.gz", says: "upgrade_extract_failed"},
		"the zst is at another URL":  {change: func(_ *release.Artefact, f *release.Form, _ *release.Chunks) { f.URL = "https://example.com/x.tar.zst" }, asked: "tar.gz", says: "upgrade_url_invalid"},
		"a format that nobody knows": {change: func(_ *release.Artefact, f *release.Form, _ *release.Chunks) { f.Format = "tar.xz" }, asked: "tar.gz", says: `"tar.xz" is not known`},
		"formats is no list":         {raw: func(a *release.Artefact) { a.Formats = json.RawMessage(`{"format":"tar.zst"}`) }, asked: "tar.gz", says: "upgrade_manifest_invalid"},
		"too many formats":           {raw: func(a *release.Artefact) { a.Formats = json.RawMessage("[" + strings.Repeat("{},", 8) + "{}]") }, asked: "tar.gz", says: "9, more than 8"},
		"a second zst": {raw: func(a *release.Artefact) {
			a.Formats = slices.Concat(a.Formats[:len(a.Formats)-1], []byte(","), a.Formats[1:])
		}, asked: "tar.zst", says: "a second one"},
		"the chunks are another's": {change: func(a *release.Artefact, f *release.Form, c *release.Chunks) {
			c.SHA256[1] = c.SHA256[0]
			f.Format = ""
		}, asked: "tar.gz, tar.gz 1048576, tar.gz 1048576", says: "by its chunks"},
		"one chunk too few": {change: func(_ *release.Artefact, f *release.Form, c *release.Chunks) { c.SHA256 = c.SHA256[1:]; f.Format = "" }, asked: "tar.gz", says: "do not add up"},
		"one chunk too many": {change: func(_ *release.Artefact, f *release.Form, c *release.Chunks) {
			c.SHA256 = append(c.SHA256, c.SHA256[0])
			f.Format = ""
		}, asked: "tar.gz", says: "do not add up"},
		"small chunks":                  {change: func(_ *release.Artefact, f *release.Form, c *release.Chunks) { c.Size = 1 << 19; f.Format = "" }, asked: "tar.gz", says: "outside 1048576"},
		"large chunks":                  {change: func(_ *release.Artefact, f *release.Form, c *release.Chunks) { c.Size = 1 << 40; f.Format = "" }, asked: "tar.gz", says: "outside 1048576"},
		"negative chunks":               {change: func(_ *release.Artefact, f *release.Form, c *release.Chunks) { c.Size = -1; f.Format = "" }, asked: "tar.gz", says: "outside 1048576"},
		"a digest that is none":         {change: func(_ *release.Artefact, f *release.Form, c *release.Chunks) { c.SHA256[0] = "x"; f.Format = "" }, asked: "tar.gz", says: "not 64 lower-case hex digits"},
		"chunks is a number":            {raw: func(a *release.Artefact) { a.Chunks, a.Formats = json.RawMessage("7"), nil }, asked: "tar.gz", says: "upgrade_manifest_invalid"},
		"chunks without a size of file": {raw: func(a *release.Artefact) { a.Size, a.Formats = 0, nil }, asked: "tar.gz", says: "has no size"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var asked requests
			var notes []string
			s := setup(t, serving(&asked, tt.files))
			s.Note = func(text string) { notes = append(notes, text) }
			rel, a := fetch(t, s, streamed)
			if tt.change != nil {
				formsOf(t, &a, func(f *release.Form, c *release.Chunks) { tt.change(&a, f, c) })
			}
			if tt.raw != nil {
				tt.raw(&a)
			}
			told := 0
			if _, err := s.Stage(t.Context(), s.Host(release.MustVersion(streamed)), rel, a, func() { told++ }); err != nil {
				t.Fatal(err, notes)
			}
			if got := asked.all(); got != tt.asked && !strings.Contains(tt.asked, "*") {
				t.Errorf("asked for %s, want %s", got, tt.asked)
			}
			if all := strings.Join(notes, "\n"); !strings.Contains(all, tt.says) || tt.says == "" && all != "" {
				t.Errorf("says %q, want %q", all, tt.says)
			}
			if told != 1 || strings.Contains(left(t, s), "partial") || strings.Contains(left(t, s), "unverified") {
				t.Errorf("told %d times; it leaves %s", told, left(t, s))
			}
		})
	}
}
