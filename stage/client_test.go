package stage

import (
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/bilbycast/edge-agent/internal/state"
	"github.com/bilbycast/edge-agent/release"
)

func TestManifestAndBundleAreBounded(t *testing.T) {
	t.Parallel()
	for name, want := range map[string]release.Code{
		release.ManifestName: release.ManifestInvalid,
		release.BundleName:   release.SignatureInvalid,
	} {
		s := setup(t, func(next http.Handler) http.Handler {
			return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if strings.HasSuffix(r.URL.Path, name) {
					w.Write(make([]byte, 2<<20))
					return
				}
				next.ServeHTTP(w, r)
			})
		})
		if _, err := s.Fetch(t.Context(), s.Host(release.MustVersion("1.0.0"))); code(err) != want || !strings.Contains(err.Error(), "has more than") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestAnotherCertificateIsRefused(t *testing.T) {
	t.Parallel()
	s := setup(t, nil)
	c := s.Config
	x := c.Trust.(trust)
	x.CA = nil // the system's: the test host is not among them
	c.Trust, c.Tries = x, 1
	s, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Fetch(t.Context(), s.Host(release.MustVersion("1.0.0"))); code(err) != release.NetworkError || !strings.Contains(err.Error(), "certificate") {
		t.Errorf("got %v", err)
	}
}

// Retry-After is obeyed: the second request comes no sooner.
func TestRetryAfterIsObeyed(t *testing.T) {
	t.Parallel()
	var first, second time.Time
	s := setup(t, tarballs(func(w http.ResponseWriter, r *http.Request, next http.Handler) {
		if first.IsZero() {
			first = time.Now()
			w.Header().Set("Retry-After", "1")
			w.WriteHeader(http.StatusTooManyRequests)
			return
		}
		second = time.Now()
		next.ServeHTTP(w, r)
	}))
	rel, a := fetch(t, s, "1.0.0")
	if _, err := s.Stage(t.Context(), s.Host(rel.Manifest().Version), rel, a, func() {}); err != nil {
		t.Fatal(err)
	}
	if d := second.Sub(first); d < time.Second {
		t.Errorf("asked again after %v", d)
	}
}

func TestThrottleHolds(t *testing.T) {
	t.Parallel()
	for _, perSecond := range []int64{1 << 10, 100 << 10, 10 << 20} {
		synctest.Test(t, func(t *testing.T) {
			total := 30 * perSecond
			begin := time.Now()
			n, err := io.Copy(io.Discard, throttle(t.Context(), io.LimitReader(zeros{}, total), perSecond))
			if err != nil || n != total {
				t.Fatal(n, err)
			}
			if got := float64(n) / time.Since(begin).Seconds() / float64(perSecond); got < 0.9 || got > 1.1 {
				t.Errorf("%d bytes a second: %.2f of it", perSecond, got)
			}
		})
	}
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { return len(p), nil }

// Every fetch goes through the proxy. A proxy with a private address does not count as a
// redirect to one.
func TestProxy(t *testing.T) {
	t.Parallel()
	s := setup(t, nil)
	var through atomic.Int32
	proxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodConnect {
			w.WriteHeader(http.StatusBadRequest)
			return
		}
		through.Add(1)
		host, err := net.Dial("tcp", r.Host)
		if err != nil {
			w.WriteHeader(http.StatusBadGateway)
			return
		}
		defer host.Close()
		client, buf, err := w.(http.Hijacker).Hijack()
		if err != nil {
			return
		}
		defer client.Close()
		client.Write([]byte("HTTP/1.1 200 OK\r\n\r\n"))
		go io.Copy(host, buf)
		io.Copy(client, host)
	}))
	t.Cleanup(proxy.Close)
	c := s.Config
	u, _ := url.Parse(proxy.URL)
	c.Proxy = http.ProxyURL(u)
	s, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	rel, a := fetch(t, s, "1.0.0")
	if _, err := s.Stage(t.Context(), s.Host(rel.Manifest().Version), rel, a, func() {}); err != nil {
		t.Fatal(err)
	}
	if through.Load() == 0 {
		t.Error("nothing went through the proxy")
	}
}

func TestRedirectsToPrivateAddressesAreRefused(t *testing.T) {
	t.Parallel()
	for _, addr := range []string{"127.0.0.1:443", "10.1.2.3:443", "192.168.0.1:443", "169.254.169.254:443", "100.64.0.1:443",
		"0.0.0.0:443", "[::1]:443", "[fe80::1]:443", "[fd00::1]:443", "[::ffff:10.0.0.1]:443", "[ff02::1]:443"} {
		if err := refusePrivate("tcp", addr, nil); code(err) != release.URLInvalid {
			t.Errorf("%s: %v", addr, err)
		}
	}
	for _, addr := range []string{"140.82.121.3:443", "[2606:50c0:8000::154]:443"} {
		if err := refusePrivate("tcp", addr, nil); err != nil {
			t.Errorf("%s: %v", addr, err)
		}
	}
	// Where the dialer meets it: localhost is another host than 127.0.0.1.
	s := setup(t, nil)
	u := strings.Replace(s.Trust.(trust).Host, "127.0.0.1", "localhost", 1)
	if _, err := s.client.Get(u); code(err) != release.URLInvalid || !strings.Contains(err.Error(), "private address") {
		t.Errorf("%s: %v", u, err)
	}
}

// The same release host, by clocks that are right and by clocks that are certainly wrong.
// Those judge only whether the certificate was over when the newest release was signed.
func TestClockOfCertificates(t *testing.T) {
	t.Parallel()
	s := setup(t, nil)
	at := func(year int) time.Time { return time.Date(year, 1, 1, 0, 0, 0, 0, time.UTC) }
	for _, tt := range []struct {
		clock, signed int
		want          string
	}{ // httptest's certificate is of 1970 to 2084
		{1960, 0, ""}, {2040, 0, ""}, {2090, 0, ""}, {1960, 2080, ""},
		{1960, 2085, "this device's clock is not set: it shows 1960-01-01T00:00:00Z, and release 0.1.0 was signed at 2085-01-01T00:00:00Z; set it"},
		{2110, 2085, "this device's clock is ahead: it shows 2110"},
		{2086, 2080, "this device's clock shows 2086-01-01T00:00:00Z: if it is ahead, set it; otherwise renew"},
	} {
		c := s.Config
		c.Tries = 1
		c.Now = func() time.Time { return at(tt.clock) }
		l, err := state.At(t.TempDir())
		if err != nil {
			t.Fatal(err)
		}
		c.Layout = l
		if tt.signed > 0 {
			v := release.MustVersion("0.1.0")
			if err := os.MkdirAll(l.Version(v), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := (marker{Version: v, SignedAt: at(tt.signed)}).write(l.Disk(), l.Version(v)); err != nil {
				t.Fatal(err)
			}
		}
		s, err := New(c)
		if err != nil {
			t.Fatal(err)
		}
		_, err = s.Fetch(t.Context(), s.Host(release.MustVersion("1.0.0")))
		if (err == nil) != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.want) {
			t.Errorf("in %d, signed in %d: %v, want %q", tt.clock, tt.signed, err, tt.want)
		}
	}
}

// A staged release records when it was signed, which no clock of this device tells.
func TestTheSignedTimeIsRecorded(t *testing.T) {
	t.Parallel()
	s := setup(t, nil)
	rel, a := fetch(t, s, "1.0.0")
	if _, err := s.Stage(t.Context(), s.Host(rel.Manifest().Version), rel, a, func() {}); err != nil {
		t.Fatal(err)
	}
	clock := Clock(s.Layout, func() time.Time { return time.Unix(0, 0) })
	if signed := rel.Signature().Time; signed.IsZero() || !clock.Certain.Equal(signed) || clock.Proof != "release 1.0.0 was signed" {
		t.Errorf("certain is %v (%s), signed %v", clock.Certain, clock.Proof, signed)
	}
	if empty := Clock(state.Layout{}, nil); empty.Certain.IsZero() || empty.Problem() != "" {
		t.Errorf("without a root: %v", empty.Problem())
	}
}

// Something between swallows the first message of a TLS handshake if it is longer than a
// packet, or ends the connection. The release is fetched without the post-quantum key share.
func TestAMiddleboxThatSwallowsAClientHello(t *testing.T) {
	t.Parallel()
	for _, ends := range []bool{false, true} {
		s := setup(t, nil)
		x := s.Trust.(trust)
		box, swallowed := middlebox(t, strings.TrimPrefix(x.Host, "https://"), ends)
		x.Host = "https://" + box
		var notes []string
		c := s.Config
		c.Trust, c.Tries, c.Note = x, 3, func(text string) { notes = append(notes, text) }
		s, err := New(c)
		if err != nil {
			t.Fatal(err)
		}
		s.client.Transport.(*transport).base.TLSHandshakeTimeout = 200 * time.Millisecond
		rel, a := fetch(t, s, "1.0.0")
		if _, err := s.Stage(t.Context(), s.Host(rel.Manifest().Version), rel, a, func() {}); err != nil {
			t.Fatal(err)
		}
		if swallowed.Load() != maxUnanswered || len(notes) != 1 || !strings.Contains(notes[0], "without the post-quantum key share") {
			t.Errorf("ends the connection: %v; swallowed %d, notes %q", ends, swallowed.Load(), notes)
		}
	}
}

// The request has ended when the handshake has: the next try leaves the key share out.
func TestAMiddleboxThatOutlastsARequest(t *testing.T) {
	t.Parallel()
	s := setup(t, nil)
	x := s.Trust.(trust)
	box, swallowed := middlebox(t, strings.TrimPrefix(x.Host, "https://"), false)
	x.Host = "https://" + box
	c := s.Config
	c.Trust, c.StallTimeout = x, 200*time.Millisecond // before that of the handshake
	s, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	fetch(t, s, "1.0.0")
	if swallowed.Load() != maxUnanswered {
		t.Errorf("%d were swallowed", swallowed.Load())
	}
}

// middlebox forwards connections to target, unless their first bytes are more than a packet.
func middlebox(t *testing.T, target string, ends bool) (addr string, swallowed *atomic.Int32) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	swallowed = new(atomic.Int32)
	go func() {
		for {
			in, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer in.Close()
				hello := make([]byte, 16<<10)
				n, err := in.Read(hello)
				if err != nil {
					return
				}
				if n > 1400 {
					swallowed.Add(1)
					if !ends {
						io.Copy(io.Discard, in) // until the client gives up
					}
					return
				}
				out, err := net.Dial("tcp", target)
				if err != nil {
					return
				}
				defer out.Close()
				out.Write(hello[:n])
				go func() { io.Copy(out, in); out.Close() }()
				io.Copy(in, out)
			}()
		}
	}()
	return l.Addr().String(), swallowed
}
