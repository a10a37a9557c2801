package stage

import (
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

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

// The same release host, by a clock from before it had its certificate, and by
// one from after it.
func TestClockOfCertificates(t *testing.T) {
	t.Parallel()
	s := setup(t, nil)
	for year, ok := range map[int]bool{1960: false, 2050: true, 2090: false} { // httptest's is of 1970 to 2084
		c := s.Config
		c.Tries = 1
		c.Now = func() time.Time { return time.Date(year, 1, 1, 0, 0, 0, 0, time.UTC) }
		s, err := New(c)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.Fetch(t.Context(), s.Host(release.MustVersion("1.0.0"))); (err == nil) != ok || (!ok && !strings.Contains(err.Error(), "expired")) {
			t.Errorf("in %d: %v", year, err)
		}
	}
}
