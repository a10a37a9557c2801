package stage

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"slices"
	"strings"

	"github.com/bilbycast/edge-agent/release"
	"github.com/bilbycast/edge-agent/verify"
)

// smallFile is a file beside the tarballs that is read into memory.
type smallFile struct {
	name     string
	limit    int64        // bytes
	tooLarge release.Code // of a file that has more
	// optional: the file may be absent, so that a 404 is not retried. The reader of the file
	// checks its content.
	optional bool
	// keys are members of the JSON object, each with its alternatives. An object without them
	// is not a forged file but the answer of another server.
	keys [][]string
}

var (
	manifestFile = smallFile{name: release.ManifestName, limit: release.MaxManifest, tooLarge: release.ManifestInvalid, keys: [][]string{{"version"}, {"artefacts"}}}
	bundleFile   = smallFile{name: release.BundleName, limit: verify.MaxBundle, tooLarge: release.SignatureInvalid, keys: [][]string{{"mediaType", "base64Signature"}}}
)

// read returns the whole of a small file of src. A try goes on where the one before ended,
// if the entity tag says that it is the same file.
func (s *Stager) read(ctx context.Context, src Source, f smallFile) ([]byte, error) {
	var body, part []byte
	var etag string
	err := s.retry(ctx, src, f.name, func() error {
		// A host that sends single bytes must not delay the node for ever.
		most := smallStalls * s.StallTimeout
		ctx, cancel := context.WithTimeoutCause(ctx, most, fmt.Errorf("not complete after %v", most))
		defer cancel()
		p, err := src.Open(ctx, f.name, int64(len(part)), etag)
		if err != nil {
			if f.optional && errors.Is(err, fs.ErrNotExist) {
				return release.Errorf(release.NetworkError, "fetch %s: %w", src.Describe(f.name), err)
			}
			return err
		}
		defer p.Body.Close()
		if p.From == 0 || p.PastEnd {
			part = nil
		}
		b, err := io.ReadAll(io.LimitReader(p.Body, f.limit+1-int64(len(part))))
		part = append(part, b...)
		if err != nil {
			if etag = p.ETag; etag == "" {
				part = nil
			}
			s.effort.hold(int64(len(part)))
			return err
		}
		b, part, etag = part, nil, ""
		if err := f.check(src, p.Type, b); err != nil {
			s.effort.hold(0)
			return err
		}
		s.effort.complete(int64(len(b)))
		body = b
		return nil
	})
	return body, err
}

// check returns what is wrong with b, a file of that media type from src: it is too large,
// or the answer of a captive portal.
func (f smallFile) check(src Source, mediaType string, b []byte) error {
	page := !src.Local() && isPage(mediaType, b)
	if int64(len(b)) > f.limit && (f.optional || !page) {
		return release.Errorf(f.tooLarge, "%s has more than %d bytes", src.Describe(f.name), f.limit)
	}
	if src.Local() {
		return nil
	}
	begin := release.Foreign(string(b[:min(len(b), 40)]), 60)
	if !f.optional && (page || !isObject(b)) {
		return fmt.Errorf("not JSON: a captive portal? It has type %q and begins with %q", release.Foreign(mediaType, 60), begin)
	}
	if missing := f.missing(b); missing != "" {
		return fmt.Errorf("the host answers with JSON that has no %q: a captive portal? It begins with %q", missing, begin)
	}
	return nil
}

// missing returns a member that a file of this kind has and b has not, or "".
func (f smallFile) missing(b []byte) string {
	if len(f.keys) == 0 {
		return ""
	}
	var members map[string]json.RawMessage
	if json.Unmarshal(b, &members) != nil {
		return f.keys[0][0]
	}
	for _, key := range f.keys {
		if !slices.ContainsFunc(key, func(k string) bool { _, ok := members[k]; return ok }) {
			return key[0]
		}
	}
	return ""
}

// smallStalls times StallTimeout is what one try of a small file may take.
const smallStalls = 10

// isObject reports whether b is a JSON object and nothing else. One that was
// cut is not.
func isObject(b []byte) bool {
	return bytes.HasPrefix(bytes.TrimLeft(b, " \t\r\n"), []byte("{")) && json.Valid(b)
}

// isPage reports whether a response is a page for people, by its media type or
// by how it begins.
func isPage(mediaType string, b []byte) bool {
	t, _, _ := strings.Cut(strings.ToLower(mediaType), ";")
	if t = strings.TrimSpace(t); (t == "text/html" || t == "application/xhtml+xml") && !isObject(b) {
		return true
	}
	t = http.DetectContentType(b)
	return strings.HasPrefix(t, "text/html") || strings.HasPrefix(t, "text/xml")
}
