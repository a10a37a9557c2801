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
	"github.com/cenkalti/backoff/v5"
)

// retryable is an error with a code that may still pass by itself: a captive portal's
// redirect, for example. It uses one attempt.
type retryable struct{ error }

func (p retryable) Unwrap() error { return p.error }

// retry runs fetch until it succeeds, fails for good (a *release.Error that is not
// retryable), or has failed Tries times.
func (s *Stager) retry(ctx context.Context, what string, fetch func() error) error {
	b := backoff.NewExponentialBackOff()
	b.InitialInterval, b.MaxInterval = s.FirstPause, s.MaxPause
	tries := 0
	_, err := backoff.Retry(ctx, func() (struct{}, error) {
		tries++
		err := fetch()
		if final(err) {
			err = backoff.Permanent(err)
		}
		return struct{}{}, err
	}, backoff.WithBackOff(b), backoff.WithMaxTries(uint(s.Tries)), backoff.WithMaxElapsedTime(0))
	if err == nil {
		return nil
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	code := release.NetworkError
	var coded *release.Error
	if errors.As(err, &coded) {
		if final(err) {
			return coded
		}
		code = coded.Code
	}
	return release.Errorf(code, "fetch %s: gave up after %d tries: %w", what, tries, err)
}

// final reports whether another attempt cannot help.
func final(err error) bool {
	var coded *release.Error
	var again retryable
	return errors.As(err, &coded) && !errors.As(err, &again)
}

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

// read returns the whole of a small file of src.
func (s *Stager) read(ctx context.Context, src Source, f smallFile) ([]byte, error) {
	var body []byte
	err := s.retry(ctx, src.Describe(f.name), func() error {
		// A host that sends single bytes must not delay the node for ever.
		most := smallStalls * s.StallTimeout
		ctx, cancel := context.WithTimeoutCause(ctx, most, fmt.Errorf("not complete after %v", most))
		defer cancel()
		p, err := src.Open(ctx, f.name, 0, "")
		if err != nil {
			if f.optional && errors.Is(err, fs.ErrNotExist) {
				return release.Errorf(release.NetworkError, "fetch %s: %w", src.Describe(f.name), err)
			}
			return err
		}
		defer p.Body.Close()
		b, err := io.ReadAll(io.LimitReader(p.Body, f.limit+1))
		if err != nil {
			return err
		}
		if err := f.check(src, p.Type, b); err != nil {
			return err
		}
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
