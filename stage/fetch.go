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
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/bilbycast/edge-agent/release"
	"github.com/bilbycast/edge-agent/verify"
	"github.com/cenkalti/backoff/v5"
)

// passing is an error that has a code already and may still pass by itself: a
// captive portal's redirect, for example. It uses one of the tries.
type passing struct{ error }

func (p passing) Unwrap() error { return p.error }

// retry runs fetch until it succeeds, fails for good (a *release.Error that is
// not passing), or has failed Tries times.
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

// final reports whether another try cannot help.
func final(err error) bool {
	var coded *release.Error
	var again passing
	return errors.As(err, &coded) && !errors.As(err, &again)
}

// get sends one request. The response has one of the statuses want, and no
// encoding; everything else is an error that may pass.
func (s *Stager) get(ctx context.Context, u string, header http.Header, want ...int) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u, nil)
	if err != nil {
		return nil, release.Errorf(release.URLInvalid, "%w", err)
	}
	for k, v := range header {
		req.Header[k] = v
	}
	req.Header.Set("User-Agent", "edge-agent")
	req.Header.Set("Accept-Encoding", "identity") // the digest is of the file's own bytes
	resp, err := s.client.Do(req)
	if err != nil {
		return nil, requestError(err)
	}
	if !slices.Contains(want, resp.StatusCode) {
		resp.Body.Close()
		return nil, statusError(resp)
	}
	if enc := strings.Join(resp.Header.Values("Content-Encoding"), ", "); enc != "" && !strings.EqualFold(enc, "identity") {
		resp.Body.Close()
		return nil, fmt.Errorf("the host answers with Content-Encoding %q, which was not asked for: a captive portal or a proxy?", release.Foreign(enc, release.ForeignLimit))
	}
	return resp, nil
}

// requestError returns what went wrong without the URL, which is a host's text
// after a redirect. Other texts of the host are cut.
func requestError(err error) error {
	var coded *release.Error
	if errors.As(err, &coded) {
		return passing{coded}
	}
	var u *url.Error
	if errors.As(err, &u) {
		err = u.Err
	}
	return release.ForeignError(err, release.ForeignLimit)
}

// statusError says what a response of an unexpected status means. Each may
// pass: a CDN is not consistent at once, and a captive portal gives any status.
func statusError(resp *http.Response) error {
	var err error
	switch code := resp.StatusCode; {
	case code == http.StatusNotFound || code == http.StatusGone:
		err = fmt.Errorf("the file is not there (%d): is the version published, with this name?%w", code, absent{})
	case code == http.StatusForbidden: // some hosts say so of a file that is not there
		err = fmt.Errorf("the host answers %s%w", status(resp), absent{})
	case code < 400 || code == http.StatusNetworkAuthenticationRequired:
		err = fmt.Errorf("the host answers %s: a captive portal?", status(resp))
	default:
		err = fmt.Errorf("the host answers %s", status(resp))
	}
	if secs, e := strconv.Atoi(resp.Header.Get("Retry-After")); e == nil && secs > 0 {
		pause := min(time.Duration(min(secs, int(maxRetryAfter/time.Second)))*time.Second, maxRetryAfter)
		return fmt.Errorf("%w; %w", err, backoff.RetryAfter(int(pause/time.Second)))
	}
	return err
}

// status is the status line, whose reason is the host's text.
func status(resp *http.Response) string {
	return release.Foreign(resp.Status, release.ForeignLimit)
}

// absent makes an error fs.ErrNotExist, and adds nothing to its text.
type absent struct{}

func (absent) Error() string        { return "" }
func (absent) Is(target error) bool { return target == fs.ErrNotExist }

func redact(u string) string {
	p, err := url.Parse(u)
	if err != nil {
		return "URL"
	}
	return p.Redacted()
}

// smallFile is a file beside the tarballs that is read into memory.
type smallFile struct {
	name     string
	limit    int64        // bytes
	tooLarge release.Code // of a file that has more
	// optional: the file may be absent, so that a 404 needs no second try. What
	// is in one that is there is for its reader to judge.
	optional bool
	// keys are members that the JSON object has, each with its alternatives: an
	// object without them is somebody else's answer, and not a forged file.
	keys [][]string
}

var (
	manifestFile = smallFile{name: release.ManifestName, limit: release.MaxManifest, tooLarge: release.ManifestInvalid, keys: [][]string{{"version"}, {"artefacts"}}}
	bundleFile   = smallFile{name: release.BundleName, limit: verify.MaxBundle, tooLarge: release.SignatureInvalid, keys: [][]string{{"mediaType", "base64Signature"}}}
)

// small fetches f from below the URL base.
func (s *Stager) small(ctx context.Context, base string, f smallFile) ([]byte, error) {
	u := base + "/" + f.name
	var body []byte
	err := s.retry(ctx, redact(u), func() error {
		// A host that sends a byte now and then must not hold the node for ever.
		most := smallStalls * s.StallTimeout
		ctx, cancel := context.WithTimeoutCause(ctx, most, fmt.Errorf("not complete after %v", most))
		defer cancel()
		ctx, watch := s.watchStall(ctx)
		defer watch.stop()
		resp, err := s.get(ctx, u, nil, http.StatusOK)
		if err != nil {
			if f.optional && errors.Is(err, fs.ErrNotExist) {
				return release.Errorf(release.NetworkError, "fetch %s: %w", redact(u), err)
			}
			return watch.explain(err)
		}
		defer resp.Body.Close()
		b, err := io.ReadAll(io.LimitReader(watch.reader(resp.Body), f.limit+1))
		if err != nil {
			return watch.explain(err)
		}
		if page := isPage(resp.Header, b); int64(len(b)) > f.limit && (f.optional || !page) {
			return release.Errorf(f.tooLarge, "%s has more than %d bytes", redact(u), f.limit)
		} else if !f.optional && (page || !isObject(b)) {
			return fmt.Errorf("not JSON: a captive portal? It has type %q and begins with %q",
				release.Foreign(resp.Header.Get("Content-Type"), 60), release.Foreign(string(b[:min(len(b), 40)]), 60))
		} else if missing := f.missing(b); missing != "" {
			return fmt.Errorf("the host answers with JSON that has no %q: a captive portal? It begins with %q", missing, release.Foreign(string(b[:min(len(b), 40)]), 60))
		}
		body = b
		return nil
	})
	return body, err
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

// isPage reports whether a response is a page for people, by its header or by
// how it begins.
func isPage(h http.Header, b []byte) bool {
	t, _, _ := strings.Cut(strings.ToLower(h.Get("Content-Type")), ";")
	if t = strings.TrimSpace(t); (t == "text/html" || t == "application/xhtml+xml") && !isObject(b) {
		return true
	}
	t = http.DetectContentType(b)
	return strings.HasPrefix(t, "text/html") || strings.HasPrefix(t, "text/xml")
}

// stallWatch ends a request that delivers no byte for a while. There is no
// limit on the whole: a slow link may take hours.
type stallWatch struct {
	limit  time.Duration
	timer  *time.Timer
	cancel context.CancelCauseFunc
	ctx    context.Context
}

var errStalled = errors.New("stalled")

func (s *Stager) watchStall(ctx context.Context) (context.Context, *stallWatch) {
	ctx, cancel := context.WithCancelCause(ctx)
	w := &stallWatch{limit: s.StallTimeout, cancel: cancel, ctx: ctx}
	w.timer = time.AfterFunc(w.limit, func() { cancel(errStalled) })
	return ctx, w
}

func (w *stallWatch) stop() {
	w.timer.Stop()
	w.cancel(nil)
}

func (w *stallWatch) explain(err error) error {
	if err != nil && errors.Is(context.Cause(w.ctx), errStalled) {
		return fmt.Errorf("no byte for %v: %w", w.limit, errStalled)
	}
	if cause := context.Cause(w.ctx); err != nil && errors.Is(err, context.DeadlineExceeded) && cause != nil {
		return cause
	}
	return err
}

func (w *stallWatch) reader(r io.Reader) io.Reader { return &stallReader{r, w} }

type stallReader struct {
	r io.Reader
	w *stallWatch
}

func (r *stallReader) Read(p []byte) (int, error) {
	n, err := r.r.Read(p)
	if n > 0 {
		r.w.timer.Reset(r.w.limit)
	}
	if cause := context.Cause(r.w.ctx); err == io.EOF && cause != nil {
		err = cause // the host's answer to our end of the connection
	}
	if err != nil && err != io.EOF {
		err = release.ForeignError(err, release.ForeignLimit) // HTTP/2 quotes the host
	}
	return n, err
}
