package stage

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/bilbycast/edge-agent/release"
	"github.com/cenkalti/backoff/v5"
	"golang.org/x/sys/unix"
)

// Host returns the release host as the Source of v.
func (s *Stager) Host(v release.Version) Source {
	var hosts []Source
	for _, u := range s.Trust.FetchURLs(v) {
		hosts = append(hosts, s.HostAt(u))
	}
	return named(hosts...)
}

// HostAt returns the https URL of a directory with a release's files as a Source.
func (s *Stager) HostAt(base string) Source {
	if u, err := url.Parse(base); err == nil {
		s.client.trust(u.Hostname())
	}
	go s.client.Transport.(*transport).authorities() // before the first request needs it
	return &host{base: base, client: s.client, stall: s.StallTimeout}
}

// host has the files of one release below a URL.
type host struct {
	base   string
	client *client
	stall  time.Duration // how long it may send no byte
}

func (*host) Close() error { return nil }

func (*host) Local() bool { return false }

func (h *host) url(name string) string { return h.base + "/" + name }

// Describe returns the URL of the file, without a password.
func (h *host) Describe(name string) string {
	u, err := url.Parse(h.url(name))
	if err != nil {
		return name
	}
	return u.Redacted()
}

// Open requests the file from byte at on. There is no limit on the whole of a
// body: a slow link may take hours. A host that sends no byte for a while ends it.
func (h *host) Open(ctx context.Context, name string, at int64, etag string) (Part, error) {
	ctx, watch := watchStall(ctx, h.stall)
	header, want := http.Header{}, []int{http.StatusOK}
	if at > 0 {
		header.Set("Range", fmt.Sprintf("bytes=%d-", at))
		if etag != "" {
			header.Set("If-Range", etag)
		}
		want = append(want, http.StatusPartialContent, http.StatusRequestedRangeNotSatisfiable)
	}
	resp, err := h.get(ctx, h.url(name), header, want...)
	if err != nil {
		watch.stop()
		return Part{}, watch.explain(err)
	}
	p, err := parseAnswer(resp, at)
	p.Body = watch.body(resp.Body)
	if err != nil {
		p.Body.Close()
		return Part{}, err
	}
	return p, nil
}

// get sends one request. The response has one of the statuses want, and no
// encoding; everything else is an error that may pass.
func (h *host) get(ctx context.Context, u string, header http.Header, want ...int) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u, nil)
	if err != nil {
		return nil, release.Errorf(release.URLInvalid, "%w", err)
	}
	for k, v := range header {
		req.Header[k] = v
	}
	var connected atomic.Bool // to the host of the last redirect, TLS included
	req = req.WithContext(httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		GetConn: func(string) { connected.Store(false) },
		GotConn: func(httptrace.GotConnInfo) { connected.Store(true) },
	}))
	req.Header.Set("User-Agent", "edge-agent")
	req.Header.Set("Accept-Encoding", "identity") // the digest is of the file's own bytes
	resp, err := h.client.Do(req)
	if err != nil {
		err = requestError(err)
		if !connected.Load() && noAnswer(err) {
			err = unreachable{err}
		}
		return nil, err
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

// noAnswer reports whether err, of a connection that was not made, says that nothing answered.
// What this node's own rules refuse, a host with another certificate, a server without TLS, and
// a proxy that refuses are answers.
func noAnswer(err error) bool {
	var op *net.OpError
	var late net.Error
	switch {
	case errors.As(err, new(proxyWithoutLine)):
		return true
	case errors.As(err, new(*release.Error)), errors.As(err, new(*tls.CertificateVerificationError)), errors.As(err, new(tls.RecordHeaderError)):
		return false
	case errors.As(err, &op):
		return op.Op != "remote error" && op.Op != "local error" // alerts of TLS
	case errors.As(err, &late) && late.Timeout():
		return true
	}
	return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, context.Canceled) || errors.Is(err, unix.ECONNRESET)
}

// proxyWithoutLine is the answer of a proxy that cannot reach the host either.
type proxyWithoutLine struct{ error }

// checkProxy is an http.Transport's OnProxyConnectResponse.
func checkProxy(_ context.Context, _ *url.URL, _ *http.Request, resp *http.Response) error {
	switch resp.StatusCode {
	case http.StatusOK:
		return nil
	case http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		return proxyWithoutLine{fmt.Errorf("the proxy cannot reach the host: it answers %s", status(resp))}
	}
	return fmt.Errorf("the proxy answers %s", status(resp))
}

// requestError returns what went wrong without the URL, which is a host's text
// after a redirect. Other texts of the host are cut.
func requestError(err error) error {
	var coded *release.Error
	if errors.As(err, &coded) {
		return retryable{coded}
	}
	var u *url.Error
	if errors.As(err, &u) {
		err = u.Err
	}
	if e := ofThisMachine(err); e != nil {
		return e
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
		err = fmt.Errorf("the host answers %s%w", status(resp), perhapsAbsent{})
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

// absent and perhapsAbsent make an error fs.ErrNotExist, and add nothing to its text. Nor does
// otherFile: the host has another file of that name.
type (
	absent        struct{}
	perhapsAbsent struct{}
	otherFile     struct{}
)

func (otherFile) Error() string { return "" }

func (absent) Error() string               { return "" }
func (absent) Is(target error) bool        { return target == fs.ErrNotExist }
func (perhapsAbsent) Error() string        { return "" }
func (perhapsAbsent) Is(target error) bool { return target == fs.ErrNotExist }

// stallWatch ends a request that delivers no byte for a while. There is no
// limit on the whole: a slow link may take hours.
type stallWatch struct {
	limit  time.Duration
	timer  *time.Timer
	cancel context.CancelCauseFunc
	ctx    context.Context
}

var errStalled = errors.New("stalled")

func watchStall(ctx context.Context, limit time.Duration) (context.Context, *stallWatch) {
	ctx, cancel := context.WithCancelCause(ctx)
	w := &stallWatch{limit: limit, cancel: cancel, ctx: ctx}
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

// body is the body of a response, whose stall w watches. Closing it ends w.
func (w *stallWatch) body(b io.ReadCloser) io.ReadCloser { return &stallBody{b, w} }

type stallBody struct {
	b io.ReadCloser
	w *stallWatch
}

func (r *stallBody) Close() error {
	defer r.w.stop()
	return r.b.Close()
}

func (r *stallBody) Read(p []byte) (int, error) {
	n, err := r.b.Read(p)
	if n > 0 {
		r.w.timer.Reset(r.w.limit)
	}
	if cause := context.Cause(r.w.ctx); err == io.EOF && cause != nil {
		err = cause // the host's answer to our end of the connection
	}
	if err != nil && err != io.EOF {
		err = r.w.explain(release.ForeignError(err, release.ForeignLimit)) // HTTP/2 quotes the host
	}
	return n, err
}
