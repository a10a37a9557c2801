package release

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
)

// Formats of a packed release. A tarball itself is a FormatGzip; the others stand in
// Artefact.Formats.
const (
	FormatGzip = "tar.gz"
	FormatZstd = "tar.zst"
)

// Limits of chunks and formats.
const (
	MinChunk      = 1 << 20   // bytes of a chunk
	MaxChunk      = 64 << 20  // of a chunk: an interrupted download may repeat two
	MaxChunks     = 4096      // of one file
	MaxFormats    = 8         // beside the tarball
	MaxZstdWindow = 8 << 20   // bytes that the decoder of a FormatZstd keeps
	GoodManifest  = 512 << 10 // bytes that a manifest with chunks should stay below
)

// Chunks are the SHA-256 of the pieces of a packed file: each of Size bytes, but the last
// one, which has the rest.
type Chunks struct {
	Size   int64    `json:"size"`
	SHA256 []string `json:"sha256"`
}

// Form is a packed form of a release that a node can take: the tarball, or a format of it.
type Form struct {
	Format string  `json:"format"`
	URL    string  `json:"url"` // as that of the Artefact
	Size   int64   `json:"size"`
	SHA256 string  `json:"sha256"`
	Chunks *Chunks `json:"chunks,omitempty"`
}

// NewChunks reads a packed file, and returns its chunks of size bytes each.
func NewChunks(r io.Reader, size int64) (Chunks, error) {
	c := Chunks{Size: size, SHA256: []string{}}
	for {
		sum := sha256.New()
		n, err := io.CopyN(sum, r, size)
		if n > 0 {
			c.SHA256 = append(c.SHA256, hex.EncodeToString(sum.Sum(nil)))
		}
		if err == io.EOF {
			return c, nil
		}
		if err != nil {
			return Chunks{}, err
		}
	}
}

// Forms returns the forms of a that a node can take, the tarball last, and what is wrong with
// the others and with chunks. What is wrong there costs speed, never the release: the
// tarball's own digest proves it. An error has the code ManifestInvalid.
func (a Artefact) Forms() (forms []Form, wrong []error) {
	bad := func(format string, args ...any) {
		wrong = append(wrong, Errorf(ManifestInvalid, format, args...))
	}
	var formats []json.RawMessage
	if present(a.Formats) {
		if err := json.Unmarshal(a.Formats, &formats); err != nil {
			bad("formats of the tarball: %w", ForeignError(err, ForeignLimit))
		} else if len(formats) > MaxFormats {
			bad("formats of the tarball: %d, more than %d", len(formats), MaxFormats)
			formats = nil
		}
	}
	seen := map[string]bool{FormatGzip: true}
	for i, b := range formats {
		f, err := parseForm(b)
		if err == nil && seen[f.Format] {
			err = fmt.Errorf("a second one of %s", f.Format)
		}
		if err != nil {
			bad("format %d of the tarball: %w", i+1, err)
			continue
		}
		seen[f.Format] = true
		forms = append(forms, f)
	}
	tarball := Form{Format: FormatGzip, URL: a.URL, Size: a.Size, SHA256: a.SHA256}
	if present(a.Chunks) {
		var c Chunks
		err := json.Unmarshal(a.Chunks, &c)
		if err != nil {
			err = ForeignError(err, ForeignLimit)
		} else {
			err = c.check(a.Size)
		}
		if err != nil {
			bad("chunks of the tarball: %w", err)
		} else {
			tarball.Chunks = &c
		}
	}
	return append(forms, tarball), wrong
}

func present(b json.RawMessage) bool { return len(b) > 0 && !bytes.Equal(b, []byte("null")) }

// parseForm reads one of Artefact.Formats.
func parseForm(b []byte) (Form, error) {
	var f Form
	if err := json.Unmarshal(b, &f); err != nil {
		return f, ForeignError(err, ForeignLimit)
	}
	if f.Format != FormatZstd {
		return f, fmt.Errorf("%q is not known to this program", Foreign(f.Format, MaxNameLen))
	}
	if f.URL == "" || len(f.URL) > maxURLLen {
		return f, fmt.Errorf("url has %d bytes; allowed are 1 to %d", len(f.URL), maxURLLen)
	}
	if !IsSHA256(f.SHA256) {
		return f, fmt.Errorf("sha256 %.80q is not 64 lower-case hex digits", f.SHA256)
	}
	if f.Size < 1 || f.Size > MaxTarball {
		return f, fmt.Errorf("size %d is outside 1 to %d", f.Size, int64(MaxTarball))
	}
	if f.Chunks != nil {
		if err := f.Chunks.check(f.Size); err != nil {
			return f, fmt.Errorf("chunks: %w", err)
		}
	}
	return f, nil
}

// check returns what is wrong with the chunks of a file of total bytes.
func (c Chunks) check(total int64) error {
	switch {
	case total <= 0:
		return fmt.Errorf("the file has no size, so its chunks do not add up")
	case c.Size < MinChunk || c.Size > MaxChunk:
		return fmt.Errorf("size %d is outside %d to %d", c.Size, MinChunk, MaxChunk)
	case len(c.SHA256) > MaxChunks:
		return fmt.Errorf("%d chunks, more than %d", len(c.SHA256), MaxChunks)
	}
	if n := (total + c.Size - 1) / c.Size; int64(len(c.SHA256)) != n {
		return fmt.Errorf("%d chunks of %d bytes do not add up to a file of %d bytes, which has %d", len(c.SHA256), c.Size, total, n)
	}
	for i, s := range c.SHA256 {
		if !IsSHA256(s) {
			return fmt.Errorf("sha256 of chunk %d is %.80q, not 64 lower-case hex digits", i+1, s)
		}
	}
	return nil
}
