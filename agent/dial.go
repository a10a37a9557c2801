package agent

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"slices"
	"sync/atomic"
	"time"

	"github.com/bilbycast/edge-agent/cert"
	"github.com/bilbycast/edge-agent/fsutil"
	"github.com/bilbycast/edge-agent/release"
	"github.com/bilbycast/edge-agent/wire"
	"github.com/gorilla/websocket"
	"golang.org/x/time/rate"
)

const (
	// maxHandshake bounds the certificates and headers that a server, and a proxy
	// before it, may send until the WebSocket is open, in bytes.
	maxHandshake = 256 << 10
	// maxCAFile bounds manager.ca_file, in bytes. The CA bundles of distributions have
	// some 200 KiB.
	maxCAFile = 4 << 20
)

// checkPins accepts a certificate if any pin is of it.
func (c settings) checkPins(cs tls.ConnectionState) error {
	cert := cs.PeerCertificates[0]
	sum, key := sha256.Sum256(cert.Raw), keyOf(cert)
	if slices.Contains(c.Certs, sum) || slices.Contains(c.Keys, key) {
		return nil
	}
	return fmt.Errorf("the manager's certificate has the SHA-256 %x and its key %x, and neither is pinned: if the certificate was replaced, "+
		"add one of the two to manager.cert_fingerprint or manager.key_fingerprint; otherwise another server answers", sum, key)
}

// dialer returns a Dialer for one session. It reads ca_file again each time, as the
// file may have been replaced.
func (c settings) dialer() (*websocket.Dialer, error) {
	m := c.Manager
	conf := &tls.Config{MinVersion: tls.VersionTLS12}
	cas, clock := cert.System(), c.clock()
	trusted := cas
	if m.CAFile != "" {
		pem, err := fsutil.ReadLinked(m.CAFile, maxCAFile)
		if err != nil {
			return nil, fmt.Errorf("manager.ca_file: %w", fsutil.NameDenial(err))
		}
		var ok bool
		if trusted, ok = cert.FromPEM(pem); !ok {
			return nil, fmt.Errorf("manager.ca_file %s has no certificate in PEM", m.CAFile)
		}
	}
	switch {
	case c.Pinned():
		conf.InsecureSkipVerify = true // the pins are checked instead
		conf.VerifyConnection = c.checkPins
	case m.AcceptSelfSignedCert:
		conf.InsecureSkipVerify = true
	default: // openWebSocket sets the name
		trusted.Client(conf, clock, func() string { return conf.ServerName })
	}
	d := &websocket.Dialer{
		TLSClientConfig: conf, HandshakeTimeout: limit(dialTimeout),
		ReadBufferSize: 4 << 10, WriteBufferSize: 4 << 10,
	}
	connect := c.connect
	if connect == nil {
		connect = connectTCP
	}
	// gorilla/websocket supports only http proxies. For an https proxy it gets the
	// address as that of an http one, and the connection below it does the TLS.
	var secure atomic.Pointer[url.URL]
	d.Proxy = func(req *http.Request) (*url.URL, error) {
		u, err := c.Proxy(req)
		if u == nil || u.Scheme != "https" {
			return u, err
		}
		secure.Store(u)
		plain := *u
		plain.Scheme = "http"
		if u.Port() == "" {
			plain.Host = net.JoinHostPort(u.Hostname(), "443")
		}
		return &plain, err
	}
	d.NetDialContext = func(ctx context.Context, network, addr string) (net.Conn, error) {
		conn, err := connect(ctx, network, addr)
		if err != nil {
			return nil, err
		}
		b := &boundedConn{Conn: conn, rate: rate.NewLimiter(sessionRate, sessionBurst)}
		b.left.Store(maxHandshake)
		b.end, _ = ctx.Deadline()
		if u := secure.Load(); u != nil {
			to := &tls.Config{MinVersion: tls.VersionTLS12, ServerName: u.Hostname(), CurvePreferences: conf.CurvePreferences}
			cas.Client(to, clock, u.Hostname)
			if c.proxyRoots != nil {
				to.RootCAs = c.proxyRoots
			}
			t := tls.Client(b, to)
			if err := t.HandshakeContext(ctx); err != nil {
				conn.Close()
				return nil, &proxyError{u.Redacted(), err}
			}
			return &openable{t, b}, nil
		}
		return &openable{b, b}, nil
	}
	return d, nil
}

// connectTCP opens a connection. Resolving the name may take connectTimeout, and so may each
// address that it has: net.Dialer alone would divide the time among them, and a link with long
// round trips would reach none.
func connectTCP(ctx context.Context, network, addr string) (net.Conn, error) {
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, err
	}
	resolving, cancel := context.WithTimeout(untraced{ctx}, limit(connectTimeout))
	defer cancel()
	ips, err := net.DefaultResolver.LookupNetIP(resolving, "ip", host)
	if err != nil {
		return nil, &net.OpError{Op: "dial", Net: network, Err: err}
	}
	d := &net.Dialer{Timeout: limit(connectTimeout) * time.Duration(min(max(len(ips), 1), 4)), KeepAlive: 30 * time.Second}
	return d.DialContext(ctx, network, addr)
}

// untraced is a context without values: a probe must not take the connection to a name server
// for the one to the manager.
type untraced struct{ context.Context }

func (untraced) Value(any) any { return nil }

// boundedConn ends a handshake that is too long, or in which nothing arrives: http.ReadResponse
// would keep an endless header in memory, and wait for ever. After the handshake it limits the
// rate, because reading costs processor time and an honest manager sends little.
type boundedConn struct {
	net.Conn
	end  time.Time     // of the handshake, at the latest
	left atomic.Int64  // bytes of the handshake; below 0: it is over
	rate *rate.Limiter // of bytes, after the handshake
}

const (
	sessionRate  = 256 << 10 // bytes a second that a session reads
	sessionBurst = 4 << 20   // and at once
)

// openable is a connection whose bound liftBound ends after the handshake.
type openable struct {
	net.Conn
	bound *boundedConn
}

var errHandshake = fmt.Errorf("the server sent more than %d KiB before the WebSocket was open", maxHandshake>>10)

func (b *boundedConn) Read(p []byte) (int, error) {
	left := b.left.Load()
	if left < 0 {
		n, err := b.Conn.Read(p[:min(len(p), sessionBurst)])
		if wait := b.rate.ReserveN(time.Now(), n).Delay(); wait > 0 {
			time.Sleep(wait) // as long as n bytes take, which is a buffer's worth
		}
		return n, err
	}
	if left == 0 {
		return 0, errHandshake
	}
	if quiet := time.Now().Add(limit(silentTimeout)); b.end.IsZero() || quiet.Before(b.end) {
		b.Conn.SetReadDeadline(quiet)
	} else {
		b.Conn.SetReadDeadline(b.end)
	}
	n, err := b.Conn.Read(p[:min(int64(len(p)), left)])
	b.left.CompareAndSwap(left, left-int64(n))
	return n, err
}

// liftBound ends the bound of a connection that gorilla/websocket returned.
func liftBound(conn net.Conn) {
	if t, ok := conn.(*tls.Conn); ok {
		conn = t.NetConn()
	}
	if o, ok := conn.(*openable); ok {
		o.bound.left.Store(-1)
	}
}

// dial opens the WebSocket. The error is a busyError if the manager is at fault.
func dial(ctx context.Context, d *websocket.Dialer, url string) (link, error) {
	// The end of the process does not wait for a server that says nothing.
	var open atomic.Pointer[net.Conn]
	own := *d
	connect := own.NetDialContext
	if connect == nil {
		connect = connectTCP
	}
	own.NetDialContext = func(ctx context.Context, network, addr string) (net.Conn, error) {
		conn, err := connect(ctx, network, addr)
		if err == nil {
			open.Store(&conn)
		}
		return conn, err
	}
	stop := context.AfterFunc(ctx, func() {
		if conn := open.Load(); conn != nil {
			(*conn).Close()
		}
	})
	defer stop()
	conn, resp, err := openWebSocket(ctx, &own, url)
	if err == nil {
		liftBound(conn.NetConn())
		conn.SetReadLimit(wire.MaxMessage)
		return link{conn, wire.HasFeature(resp.Header, wire.FeatureProbe)}, nil
	}
	if resp == nil {
		return link{}, fmt.Errorf("connect: %w", explainDial(err))
	}
	resp.Body.Close()
	why := "the manager answers " + release.Foreign(resp.Status, 100)
	switch code := resp.StatusCode; {
	case code == http.StatusTooManyRequests || code >= 500:
		return link{}, &busyError{why: why, retryAfter: retryAfter(resp.Header.Get("Retry-After"))}
	case code == http.StatusSwitchingProtocols:
		why += ", but not as a WebSocket server"
	case code == http.StatusNotFound:
		why += fmt.Sprintf(": there is no manager at this URL (the path is %s unless manager.urls has another)", wire.Path)
	case code < 400:
		why += ": not a manager; a captive portal or a wrong address in manager.urls?"
	}
	return link{}, errors.New(why)
}

// proxyError reports that the TLS handshake with an https proxy failed.
type proxyError struct {
	proxy string
	err   error
}

func (e *proxyError) Error() string {
	return fmt.Sprintf("proxy %s: %v: its certificate is checked by this device's CA store; add its CA there (update-ca-certificates), or correct manager.proxy", e.proxy, e.err)
}

// explainDial returns err with what a person can do about it.
func explainDial(err error) error {
	var authority x509.UnknownAuthorityError
	var host x509.HostnameError
	var dns *net.DNSError
	var proxy *proxyError
	named := fsutil.NameDenial(err)
	switch {
	case errors.As(err, &proxy): // the manager's own settings do not apply to it
		return bounded(err)
	case named.Error() != err.Error(): // of a file, such as the device's CA store
		return bounded(named)
	case errors.As(err, &authority):
		return fmt.Errorf("%w: set manager.ca_file to the CA that signed the manager's certificate, or manager.cert_fingerprint for a self-signed certificate", bounded(err))
	case errors.As(err, &host):
		return fmt.Errorf("%w: use a name of the certificate in manager.urls, or set manager.cert_fingerprint", bounded(err))
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("%w: this device itself refuses the connection: look for a firewall, a prohibit route, and SELinux or AppArmor (journalctl -k)", bounded(err))
	case errors.As(err, &dns):
		return fmt.Errorf("%w: check the name in manager.urls and this device's DNS", bounded(err))
	case errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF):
		return fmt.Errorf("%w: the server closed the connection; is it the manager's TLS port?", bounded(err))
	}
	return bounded(err)
}

// bounded returns err with a text of bounded length: it may quote the server.
func bounded(err error) error { return &boundedError{err} }

type boundedError struct{ err error }

func (e *boundedError) Error() string { return release.Foreign(e.err.Error(), 500) }
func (e *boundedError) Unwrap() error { return e.err }

// endedByManager reports whether the manager closed a session on purpose, and not
// because it restarts or is busy.
func endedByManager(err error) bool {
	var closed *websocket.CloseError
	return errors.As(err, &closed) && closed.Code != websocket.CloseAbnormalClosure && closed.Code != websocket.CloseServiceRestart
}

// replaced reports whether another connection of this node took the place of the
// session.
func replaced(err error) bool {
	var closed *websocket.CloseError
	return errors.As(err, &closed) && closed.Code == wire.CloseReplaced
}
