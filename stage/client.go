package stage

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/bilbycast/edge-agent/cert"
	"github.com/bilbycast/edge-agent/release"
	"golang.org/x/time/rate"
)

const (
	maxRedirects  = 5
	maxRetryAfter = 5 * time.Minute // of what a server may ask for
)

// client sends every request: manifest, signature and tarball use the same proxy, the
// same certificates and the same rules.
type client struct {
	http.Client
	// trusted are the hosts that may have private addresses: proxies, and the release host
	// as it is compiled in or as an operator names it.
	trusted sync.Map
}

func (c *client) trust(host string) { c.trusted.Store(host, true) }

func newClient(c Config) (*client, error) {
	hc := &client{Client: http.Client{CheckRedirect: checkRedirect}}
	tr := http.DefaultTransport.(*http.Transport).Clone()
	// HTTP/1.1 suffices for a few files in sequence. A release build omits HTTP/2.
	tr.Protocols = new(http.Protocols)
	tr.Protocols.SetHTTP1(true)
	tr.DisableCompression = true // a tarball's bytes are what its digest is of
	tr.ResponseHeaderTimeout = c.StallTimeout
	tr.TLSHandshakeTimeout = 2 * c.StallTimeout // of two round trips; by default 10 s for all
	tr.OnProxyConnectResponse = checkProxy
	tr.MaxResponseHeaderBytes = 64 << 10
	if c.Proxy != nil {
		tr.Proxy = c.Proxy
	}
	for _, u := range c.Trust.FetchURLs(release.Version{}) {
		if home, err := url.Parse(u); err == nil {
			hc.trust(home.Hostname())
		}
	}
	if !c.AllowPrivate {
		proxy := tr.Proxy
		tr.Proxy = func(r *http.Request) (*url.URL, error) {
			u, err := proxy(r)
			if u != nil {
				hc.trust(u.Hostname())
			}
			return u, err
		}
		tr.DialContext = func(ctx context.Context, network, addr string) (net.Conn, error) {
			d := &net.Dialer{Timeout: 30 * time.Second, KeepAlive: 30 * time.Second}
			host, _, err := net.SplitHostPort(addr)
			if err != nil {
				return nil, err
			}
			if _, ok := hc.trusted.Load(host); !ok {
				d.Control = refusePrivate
			}
			return d.DialContext(ctx, network, addr)
		}
	}
	pem := c.Trust.ReleaseCA()
	if pem != nil {
		if _, ok := cert.FromPEM(pem); !ok {
			return nil, errors.New("stage: the release host's CA holds no certificate")
		}
	}
	hc.Transport = &transport{base: tr, pem: pem, clock: func() cert.Clock { return Clock(c.Layout, c.Now) }, note: c.Note}
	return hc, nil
}

// refusePrivate is a net.Dialer's Control. It gets the resolved address; a check of the
// name would not see it.
func refusePrivate(_, address string, _ syscall.RawConn) error {
	ap, err := netip.ParseAddrPort(address)
	if err != nil {
		return err
	}
	ip := ap.Addr().Unmap()
	if !ip.IsGlobalUnicast() || ip.IsPrivate() || carrierNAT.Contains(ip) {
		return retryable{release.Errorf(release.URLInvalid, "redirected to the private address %s (a captive portal?); set upgrade.allow_private_redirects if that is meant", ip)}
	}
	return nil
}

var carrierNAT = netip.MustParsePrefix("100.64.0.0/10") // RFC 6598

// githubAssets is the domain to which github.com redirects downloads of release assets.
const githubAssets = ".githubusercontent.com"

// checkRedirect allows https only, and only the original host or its asset hosts. The
// bytes are verified anyway; this keeps a node from requests to its own network. A
// refusal may pass: portals of guest networks redirect every request until somebody
// signs in.
func checkRedirect(req *http.Request, via []*http.Request) error {
	refuse := func(format string, args ...any) error {
		return retryable{release.Errorf(release.URLInvalid, format+" (a captive portal?)", args...)}
	}
	if len(via) > maxRedirects {
		return refuse("more than %d redirects", maxRedirects)
	}
	from, to := via[0].URL, req.URL
	if to.Scheme != "https" {
		return refuse("redirect to %s: not https", release.Foreign(to.Redacted(), release.ForeignLimit))
	}
	if to.Host == from.Host || (from.Host == "github.com" && strings.HasSuffix(to.Host, githubAssets)) {
		return nil
	}
	return refuse("redirect from %s to %s: not an allowed host", from.Host, release.Foreign(to.Host, release.ForeignLimit))
}

// throttle reads at most perSecond bytes a second from r, on average, in pieces that take
// at most a quarter of a second. 0 is no limit.
func throttle(ctx context.Context, r io.Reader, perSecond int64) io.Reader {
	if perSecond == 0 {
		return r
	}
	piece := int(min(32<<10, max(1, perSecond/4)))
	return &throttled{ctx, r, rate.NewLimiter(rate.Limit(perSecond), piece), piece}
}

type throttled struct {
	ctx   context.Context
	r     io.Reader
	limit *rate.Limiter
	piece int
}

func (t *throttled) Read(p []byte) (int, error) {
	n, err := t.r.Read(p[:min(len(p), t.piece)])
	if n > 0 {
		if e := t.limit.WaitN(t.ctx, n); e != nil {
			return n, e
		}
	}
	return n, err
}
