package stage

import (
	"crypto/tls"
	"net/http"
	"net/url"
	"sync"
	"sync/atomic"
	"time"

	"github.com/bilbycast/edge-agent/cert"
)

// transport makes each request with the authorities that the system has, or had a second ago,
// by the clock of now. Where a host does not answer TLS handshakes, the next ones are without
// the post-quantum key share, as long as that helps.
type transport struct {
	base  *http.Transport // without TLS settings
	pem   []byte          // CAs beside those of the system
	clock func() cert.Clock
	note  func(string)
	noted atomic.Bool // that the key share is left out

	looking sync.Mutex
	looked  time.Time // at the CA store of the system
	system  *cert.CAs // as it was then

	mu         sync.Mutex
	classical  bool      // leave the post-quantum key share out
	since      time.Time // of classical
	unanswered int       // handshakes since the last answer, with this offer
	// The transports that were made, and the authorities and sessions of all.
	made     map[settings]*http.Transport
	cas      *cert.CAs
	sessions tls.ClientSessionCache
}

// settings are what a transport was made for.
type settings struct {
	classical bool
	wrong     string // the host that a certificate must be of, if the clock is wrong
}

// lookEvery is the least time between two looks at the CA store of the system. One takes 2 ms
// where it has some 150 files, as on Debian, and an upgrade makes its first requests at once.
const lookEvery = time.Second

// authorities returns those of the system, as they were when somebody last looked. The first call
// takes some ms.
func (t *transport) authorities() *cert.CAs {
	t.looking.Lock()
	defer t.looking.Unlock()
	if now := time.Now(); t.system == nil || now.Sub(t.looked) >= lookEvery {
		t.system, t.looked = cert.System(), now
	}
	return t.system
}

// maxMade bounds the transports: a host chooses its redirects.
const maxMade = 8

// maxUnanswered is after how many handshakes without an answer, with no answer between them,
// the other offer is made. A link that is down for a while answers none as well, and a
// connection that it completes late must be of use still.
const maxUnanswered = 2

// offer reports whether the next handshake leaves the post-quantum key share out. The full offer
// is made again after cert.ClassicalFor: an outage, too, answers none.
func (t *transport) offer() (classical bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.classical && time.Since(t.since) >= cert.ClassicalFor {
		t.classical, t.unanswered = false, 0
	}
	return t.classical
}

// RoundTrip sends a request. After maxUnanswered handshakes the next try of the caller has the
// other offer.
func (t *transport) RoundTrip(req *http.Request) (*http.Response, error) {
	classical := t.offer()
	ctx, unanswered := cert.Watch(req.Context())
	resp, err := t.with(req, classical).RoundTrip(req.WithContext(ctx))
	if err == nil {
		t.mu.Lock()
		t.unanswered = 0
		t.mu.Unlock()
		if classical && t.note != nil && !t.noted.Swap(true) {
			t.note("the release host " + req.URL.Hostname() + " answered a TLS handshake only without the post-quantum key share; something between may swallow longer ones")
		}
		return resp, nil
	}
	if unanswered() {
		t.mu.Lock()
		if t.unanswered++; t.unanswered >= maxUnanswered {
			t.classical, t.since, t.unanswered = !classical, time.Now(), 0
		}
		t.mu.Unlock()
	}
	if why := t.clock().Explain(err); why != "" {
		return nil, &clockError{err, why}
	}
	return nil, err
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
	cas := t.authorities()
	clock := t.clock()
	t.mu.Lock()
	defer t.mu.Unlock()
	if !cas.Equal(t.cas) || len(t.made) >= maxMade {
		t.closeIdle()
		t.cas, t.made, t.sessions = cas, map[settings]*http.Transport{}, tls.NewLRUClientSessionCache(maxMade)
	}
	of := settings{classical: classical}
	if clock.Problem() != "" {
		of.wrong = req.URL.Host
	}
	if tr := t.made[of]; tr != nil {
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
	t.made[of] = tr
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
