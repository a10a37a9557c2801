package stage

import (
	"crypto/tls"
	"net/http"
	"net/url"
	"sync"
	"sync/atomic"

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
	noted atomic.Bool // that the key share is left out

	mu        sync.Mutex
	classical bool // leave the post-quantum key share out
	// The transports for the two offers, and the authorities and sessions of both.
	made     map[bool]*http.Transport
	cas      *cert.CAs
	sessions tls.ClientSessionCache
}

// RoundTrip sends a request that has no body. After a handshake that is not answered the next
// one has the other offer: at once, if the request has not ended meanwhile, and otherwise in
// the next try of the caller.
func (t *transport) RoundTrip(req *http.Request) (*http.Response, error) {
	offer := t.offer(func(classical bool) bool { return classical })
	resp, unanswered, err := t.try(req, offer)
	if err != nil && unanswered {
		offer = t.offer(func(bool) bool { return !offer })
		if req.Context().Err() == nil {
			var again error
			if resp, unanswered, again = t.try(req, offer); again != nil && unanswered { // so the offer is not the reason
				t.offer(func(bool) bool { return !offer })
			} else {
				err = again
			}
		}
	}
	if err != nil {
		if why := t.clock().Explain(err); why != "" {
			return nil, &clockError{err, why}
		}
		return nil, err
	}
	if offer && t.note != nil && !t.noted.Swap(true) {
		t.note("the release host " + req.URL.Hostname() + " answered a TLS handshake only without the post-quantum key share; something between may swallow longer ones")
	}
	return resp, nil
}

// try sends the request once, and reports whether its TLS handshake was not answered.
func (t *transport) try(req *http.Request, classical bool) (_ *http.Response, unanswered bool, err error) {
	ctx, watched := cert.Watch(req.Context())
	resp, err := t.with(req, classical).RoundTrip(req.WithContext(ctx))
	return resp, watched(), err
}

// offer changes whether the post-quantum key share is left out, and returns the result.
func (t *transport) offer(change func(bool) bool) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.classical = change(t.classical)
	return t.classical
}

// clockError is an error of a certificate, after what this device's clock has to do with it:
// the end of a long text may be cut.
type clockError struct {
	err error
	why string
}

func (e *clockError) Error() string { return e.why + ": " + e.err.Error() }
func (e *clockError) Unwrap() error { return e.err }

// with returns the transport for one request. Its connections are used again as long as the
// authorities are the same.
func (t *transport) with(req *http.Request, classical bool) *http.Transport {
	cas := cert.System()
	clock := t.clock()
	t.mu.Lock()
	defer t.mu.Unlock()
	if !cas.Equal(t.cas) {
		t.closeIdle()
		t.cas, t.made, t.sessions = cas, map[bool]*http.Transport{}, tls.NewLRUClientSessionCache(8)
	}
	wrong := clock.Problem() != ""
	if tr := t.made[classical]; tr != nil && !wrong {
		return tr
	}
	// A link that breaks often carries the host's certificates once.
	conf := &tls.Config{MinVersion: tls.VersionTLS12, ClientSessionCache: t.sessions}
	if classical {
		conf.CurvePreferences = cert.Classical()
	}
	if t.pem != nil {
		cas, _ = cas.With(t.pem)
	}
	cas.Client(conf, clock, func() string { return t.byAddress(req) })
	tr := t.base.Clone()
	tr.TLSClientConfig = conf
	if wrong { // the settings are for this request only
		conf.ClientSessionCache, tr.DisableKeepAlives = nil, true
		return tr
	}
	t.made[classical] = tr
	return tr
}

// CloseIdleConnections closes the connections that no request uses.
func (t *transport) CloseIdleConnections() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.closeIdle()
}

// closeIdle is CloseIdleConnections; mu is held.
func (t *transport) closeIdle() {
	for _, tr := range t.made {
		tr.CloseIdleConnections()
	}
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
