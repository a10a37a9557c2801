// Package pack makes the packed forms of a release: what release-manifest and the fake
// releases have in common. No node runs it.
package pack

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"strings"

	"github.com/bilbycast/edge-agent/release"
	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
)

// Writer packs what is written to it into w, in that format. The same bytes give the same
// file. level is one of gzip, from 1 to 9; a zstd file has the best level if it is 9, and
// the fastest otherwise.
func Writer(format string, w io.Writer, level int) (io.WriteCloser, error) {
	if format == release.FormatGzip {
		return gzip.NewWriterLevel(w, level) // its header has no name and no time
	}
	if format != release.FormatZstd {
		return nil, fmt.Errorf("format %q: known are %s and %s", format, release.FormatGzip, release.FormatZstd)
	}
	best := zstd.SpeedFastest
	if level == gzip.BestCompression {
		best = zstd.SpeedBestCompression
	}
	return zstd.NewWriter(w, zstd.WithEncoderLevel(best), zstd.WithWindowSize(release.MaxZstdWindow), zstd.WithEncoderConcurrency(1))
}

// Name returns the name of a tarball's other format.
func Name(tarball, format string) string {
	return strings.TrimSuffix(tarball, release.FormatGzip) + format
}

// Complete adds to the artefacts of m the formats whose files are beside their tarballs in
// dir and, with chunks, the chunks of each file. It returns the manifest, and the largest size of
// a chunk; 0: there are none, because no size keeps the manifest below release.GoodManifest.
func Complete(m release.Manifest, dir string, formats []string, chunks bool) ([]byte, int64, error) {
	size := int64(0)
	if chunks {
		size = release.MinChunk
	}
	for ; ; size *= 2 {
		if size > release.MaxChunk {
			size = 0
		}
		largest, err := describe(&m, dir, formats, size)
		if err != nil {
			return nil, 0, err
		}
		b, err := json.MarshalIndent(m, "", "  ")
		if err != nil || size == 0 || len(b)+len("\n") < release.GoodManifest {
			return append(b, '\n'), largest, err
		}
	}
}

// describe sets the formats of m, and chunks of at least that many bytes; 0: none. It
// returns the size of the largest.
func describe(m *release.Manifest, dir string, formats []string, size int64) (largest int64, err error) {
	chunk := func(file string, total int64) (*release.Chunks, error) {
		if size == 0 || total == 0 {
			return nil, nil
		}
		least := size
		for least*release.MaxChunks < total {
			least *= 2
		}
		largest = max(largest, least)
		f, err := os.Open(filepath.Join(dir, file))
		if err != nil {
			return nil, err
		}
		defer f.Close()
		c, err := release.NewChunks(f, least)
		return &c, err
	}
	m.Artefacts = append([]release.Artefact(nil), m.Artefacts...)
	for i := range m.Artefacts {
		a := &m.Artefacts[i]
		tarball := path.Base(a.URL)
		var forms []release.Form
		for _, format := range formats {
			f := release.Form{Format: format, URL: strings.TrimSuffix(a.URL, tarball) + Name(tarball, format)}
			if f.SHA256, f.Size, err = Digest(filepath.Join(dir, path.Base(f.URL))); err != nil {
				return 0, err
			}
			if f.Chunks, err = chunk(path.Base(f.URL), f.Size); err != nil {
				return 0, err
			}
			forms = append(forms, f)
		}
		a.Chunks, a.Formats = nil, nil
		if c, err := chunk(tarball, a.Size); err != nil {
			return 0, err
		} else if c != nil {
			if a.Chunks, err = json.Marshal(c); err != nil {
				return 0, err
			}
		}
		if forms != nil {
			if a.Formats, err = json.Marshal(forms); err != nil {
				return 0, err
			}
		}
	}
	return largest, nil
}
