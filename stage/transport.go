package stage

import (
	"crypto/tls"
	"net/http"
	"net/url"
	"sync"

	"github.com/bilbycast/edge-agent/cert"
)

// transport makes each request with the authorities that the system has now, by the clock
// of now. Where a host does not answer a TLS handshake it tries once without the
// post-quantum key share, and keeps to that if it helps.
type transport struct {
	base  *http.Transport // without TLS settings
	pem   []byte          // CAs beside those of the system
	clock func() cert.Clock
	note  func(string)

	mu        sync.Mutex
	classical bool // leave the post-quantum key share out
	// The transport of the last request, and what it was made with.
	last          *http.Transport
	lastCAs       *cert.CAs
	lastClassical bool
}

// RoundTrip sends a request that has no body.
func (t *transport) RoundTrip(req *http.Request) (*http.Response, error) {
	t.mu.Lock()
	classical := t.classical
	t.mu.Unlock()
	ctx, unanswered := cert.Watch(req.Context())
	resp, err := t.with(req, classical).RoundTrip(req.WithContext(ctx))
	if err == nil {
		return resp, nil
	}
	if why := t.clock().Explain(err); why != "" {
		return nil, &clockError{err, why}
	}
	if !unanswered() || req.Context().Err() != nil {
		return nil, err
	}
	// With the other offer: the network may have changed, too.
	again, err2 := t.with(req, !classical).RoundTrip(req)
	if err2 != nil {
		return nil, err
	}
	t.mu.Lock()
	t.classical = !classical
	t.mu.Unlock()
	if !classical && t.note != nil {
		t.note("the release host " + req.URL.Hostname() + " answers only a TLS handshake without the post-quantum key share: something between swallows longer ones")
	}
	return again, nil
}

// clockError is an error of a certificate, with what this device's clock has to do with it.
type clockError struct {
	err error
	why string
}

func (e *clockError) Error() string { return e.err.Error() + ": " + e.why }
func (e *clockError) Unwrap() error { return e.err }

// with returns the transport for one request. Its connections are used again as long as
// nothing changes.
func (t *transport) with(req *http.Request, classical bool) *http.Transport {
	cas := cert.System()
	clock := t.clock()
	wrong := clock.Problem() != ""
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.last != nil && !wrong && t.lastCAs != nil && cas.Equal(t.lastCAs) && classical == t.lastClassical {
		return t.last
	}
	if t.last != nil {
		t.last.CloseIdleConnections()
	}
	t.last, t.lastCAs, t.lastClassical = t.base.Clone(), cas, classical
	conf := &tls.Config{MinVersion: tls.VersionTLS12}
	if classical {
		conf.CurvePreferences = cert.Classical()
	}
	if t.pem != nil {
		cas, _ = cas.With(t.pem)
	}
	cas.Client(conf, clock, func() string { return t.byAddress(req) })
	t.last.TLSClientConfig = conf
	if wrong { // the settings are for this request only
		t.last.DisableKeepAlives, t.lastCAs = true, nil
	}
	return t.last
}

// byAddress returns the name that the certificate of a peer must have whose name is an IP
// address: that of the request, unless the peer may as well be an https proxy.
func (t *transport) byAddress(req *http.Request) string {
	if t.base.Proxy != nil {
		var u *url.URL
		var err error
		if u, err = t.base.Proxy(req); err != nil || u != nil && u.Scheme == "https" {
			return ""
		}
	}
	return req.URL.Hostname()
}
