package stage

import (
	"encoding/pem"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/bilbycast/edge-agent/internal/state"
	"github.com/bilbycast/edge-agent/manager-sim/fakerelease"
	"github.com/bilbycast/edge-agent/release"
)

// twoMegabytes is a release whose tarball has 2 MB.
const twoMegabytes = "1.10.0"

// over returns a Stager that reaches its release host over l.
func over(t testing.TB, l *link, root string, wrap func(http.Handler) http.Handler) *Stager {
	t.Helper()
	published.once.Do(func() { published.err = publishAll() })
	if published.err != nil {
		t.Fatal(published.err)
	}
	h := fakerelease.Handler(published.dir)
	if wrap != nil {
		h = wrap(h)
	}
	host := httptest.NewUnstartedServer(h)
	host.Listener.Close()
	host.Listener = l.listener()
	host.StartTLS()
	t.Cleanup(host.Close)
	x, err := fakerelease.NewTrust(published.dir, host.URL, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: host.Certificate().Raw}))
	if err != nil {
		t.Fatal(err)
	}
	layout, err := state.At(root)
	if err != nil {
		t.Fatal(err)
	}
	s, err := New(Config{Layout: layout, Binary: "edge-agent", Trust: x, NoRun: true})
	if err != nil {
		t.Fatal(err)
	}
	tr := s.client.Transport.(*transport).base
	tr.Proxy, tr.DialContext = nil, l.dial
	t.Cleanup(tr.CloseIdleConnections)
	return s
}

// bring fetches and stages a release, and returns the size of its files.
func bring(t testing.TB, s *Stager, version string) (size int64, err error) {
	src := s.Host(release.MustVersion(version))
	rel, err := s.Fetch(t.Context(), src)
	if err != nil {
		return 0, err
	}
	a := rel.Manifest().Artefacts[0]
	dir := published.dir + "/www/" + fakerelease.DefaultRepository + "/releases/download/v" + version
	for _, name := range []string{release.ManifestName, release.BundleName} {
		st, err := os.Stat(dir + "/" + name)
		if err != nil {
			t.Fatal(err)
		}
		size += st.Size()
	}
	_, err = s.Stage(t.Context(), src, rel, a, func() {})
	return size + a.Size, err
}

// slowLink is what a link of 32 kbit/s that is up for 20 s in every 2 minutes did to bring a
// release of 2 MB home.
type slowLink struct {
	size  int64 // of the files of the release
	sent  int64 // bytes that arrived, with TLS and headers
	twice int64 // of them for nothing: of the last TLS record before a connection was cut
	took  time.Duration
	dials int
	err   error
}

// bringOverSlowLink brings the release home in simulated time.
func bringOverSlowLink(t *testing.T, cut bool) (r slowLink) {
	published.once.Do(func() { published.err = publishAll() })
	root := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		l := newLink(line{rate: 4000, delay: 300 * time.Millisecond, up: 20 * time.Second, period: 2 * time.Minute, cut: cut})
		s := over(t, l, root, nil)
		s.SetPatience(Patience{Limit: 24 * time.Hour})
		r.size, r.err = bring(t, s, twoMegabytes)
		r.sent, r.twice, r.took, r.dials = l.sent[toNode], l.lost, time.Since(l.start), l.dials
	})
	return r
}

// At most a tenth of the bytes is sent twice, also if the link cuts its connections.
func TestALinkThatIsUpForSomeSecondsOnly(t *testing.T) {
	t.Parallel()
	for _, cut := range []bool{true, false} {
		t.Run(fmt.Sprintf("cut %t", cut), func(t *testing.T) {
			t.Parallel()
			r := bringOverSlowLink(t, cut)
			if r.err != nil || r.twice > r.size/10 || r.took > 2*time.Hour {
				t.Errorf("%+v", r)
			}
		})
	}
}

// BenchmarkLinkUp20sIn2min prints how many of the bytes of the release were sent twice, and all
// that arrived beyond them with TLS and headers, in percent of its size; and how long it took.
// The time is simulated.
func BenchmarkLinkUp20sIn2min(b *testing.B) {
	for _, cut := range []bool{true, false} {
		name := map[bool]string{true: "cut", false: "silent"}[cut]
		b.Run(name, func(b *testing.B) {
			var sum slowLink
			for b.Loop() {
				// Simulated time needs a test.
				testing.RunTests(func(string, string) (bool, error) { return true, nil }, []testing.InternalTest{{Name: name, F: func(t *testing.T) {
					r := bringOverSlowLink(t, cut)
					if r.err != nil {
						b.Error(r.err)
					}
					sum.size, sum.sent, sum.twice, sum.took, sum.dials = sum.size+r.size, sum.sent+r.sent, sum.twice+r.twice, sum.took+r.took, sum.dials+r.dials
				}}})
			}
			percent := func(n int64) float64 { return 100 * float64(n) / float64(sum.size) }
			b.ReportMetric(percent(sum.twice), "%twice")
			b.ReportMetric(percent(sum.sent-sum.size), "%more")
			b.ReportMetric(sum.took.Minutes()/float64(b.N), "min")
			b.ReportMetric(float64(sum.dials)/float64(b.N), "dials")
			b.ReportMetric(0, "ns/op")
		})
	}
}

// A host that cannot be reached is waited for, however long; one that answers, but not with
// the release, for the time of the patience, which progress renews.
func TestPatience(t *testing.T) {
	t.Parallel()
	published.once.Do(func() { published.err = publishAll() })
	const day = 24 * time.Hour
	fails := func(status int, until time.Duration, part string, header ...string) func(time.Time, http.Handler) http.Handler {
		return func(start time.Time, next http.Handler) http.Handler {
			return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if time.Since(start) < until && strings.HasSuffix(r.URL.Path, part) {
					for i := 0; i < len(header); i += 2 {
						w.Header().Set(header[i], header[i+1])
					}
					w.WriteHeader(status)
					io.WriteString(w, "<html>sign in</html>")
					return
				}
				next.ServeHTTP(w, r)
			})
		}
	}
	// Each day takes some seconds of processor time.
	brief := []string{"half a minute", "404 once, after 503", "no tarball", "404 for ten minutes", "410 and a portal's page"}
	for name, tt := range map[string]struct {
		link     line
		host     func(start time.Time, next http.Handler) http.Handler
		before   Wait
		patience time.Duration
		ends     time.Duration // it fails after about that time; 0: it does not
		text     string
	}{
		"days without a network":       {link: line{up: time.Minute, period: 7 * day, cut: true}, patience: day},
		"half a minute":                {host: fails(503, 30*time.Second, ""), patience: day},
		"503 for 23 hours":             {host: fails(503, 23*time.Hour, ""), patience: day},
		"503 for good":                 {host: fails(503, 99*day, ""), patience: day, ends: day, text: "without progress: the host answers 503"},
		"a portal for good":            {host: fails(302, 99*day, ""), patience: day, ends: day, text: "a captive portal?"},
		"503 for good, a shorter time": {host: fails(503, 99*day, ""), patience: time.Hour, ends: time.Hour},
		"503 after a restart":          {host: fails(503, 99*day, ""), patience: day, before: Wait{Counted: 20 * time.Hour}, ends: 4 * time.Hour},
		"503, the tarball, later":      {host: fails(503, 99*day, ".gz"), patience: day, ends: day},
		"503 each for 20 hours":        {host: eachFor(20 * time.Hour), patience: day},
		"no tarball":                   {host: fails(404, 99*day, ".gz"), patience: day, ends: DefaultMissingFor, text: "is not there (404)"},
		"no signature":                 {host: fails(404, 99*day, ".bundle"), patience: day, ends: DefaultMissingFor, text: "is not there (404)"},
		"another tarball":              {host: anotherTarball, patience: day, ends: DefaultMissingFor, text: "the host has another file: it has 23 bytes"},
		"404 once, after an outage":    {link: line{up: time.Minute, period: time.Hour, cut: true}, host: missing(1), patience: day},
		"404 once, after 503":          {host: missing(9), patience: day},
		"not published":                {host: fails(404, 99*day, ""), patience: day, ends: DefaultMissingFor, text: "is not there (404)"},
		"gone":                         {host: fails(410, 99*day, ""), patience: day, ends: DefaultMissingFor, text: "is not there (410)"},
		"404 for half a minute":        {host: fails(404, 30*time.Second, ""), patience: day},
		"404 for ten minutes":          {host: fails(404, 10*time.Minute, ""), patience: day},
		"no tarball for ten minutes":   {host: fails(404, 10*time.Minute, ".gz"), patience: day},
		"410 and a portal's page":      {host: fails(410, 10*time.Minute, "", "Content-Type", "text/html"), patience: day},
		"404 and when to come again":   {host: fails(404, 10*time.Minute, "", "Retry-After", "20"), patience: day},
		"404 and outages by turns":     {link: line{up: time.Minute, period: 30 * time.Minute, cut: true}, host: fails(404, 2*time.Hour, ""), patience: day},
		"forbidden for a while":        {host: fails(403, 20*time.Hour, ""), patience: day},
		"a byte now and then":          {host: aByteEach, patience: 10 * time.Minute},
	} {
		if testing.Short() && !slices.Contains(brief, name) {
			continue
		}
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			root := t.TempDir()
			synctest.Test(t, func(t *testing.T) {
				tt.link.rate, tt.link.delay = 1e6, 10*time.Millisecond
				tt.link.start = time.Now().Add(-tt.link.up) // it has just gone down
				l := newLink(tt.link)
				began := time.Now()
				s := over(t, l, root, func(next http.Handler) http.Handler {
					if tt.host != nil {
						return tt.host(began, next)
					}
					return next
				})
				s.SetPatience(Patience{Limit: tt.patience, Before: tt.before})
				_, err := bring(t, s, newVersion)
				took := time.Since(began)
				switch {
				case tt.ends == 0 && err != nil:
					t.Errorf("after %v: %v", took, err)
				case tt.ends > 0 && (code(err) != release.NetworkError && code(err) != release.URLInvalid || !strings.Contains(err.Error(), tt.text)):
					t.Errorf("after %v: %v", took, err)
				case tt.ends > 0 && (took < tt.ends || took > tt.ends+tt.ends/8+10*time.Minute || tt.ends == DefaultMissingFor && took > tt.ends+time.Minute):
					t.Errorf("it ends after %v", took)
				}
			})
		})
	}
}

// eachFor makes each file fail for a while after it was first asked for.
func eachFor(d time.Duration) func(time.Time, http.Handler) http.Handler {
	return func(_ time.Time, next http.Handler) http.Handler {
		first := map[string]time.Time{}
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if first[r.URL.Path].IsZero() {
				first[r.URL.Path] = time.Now()
			}
			if time.Since(first[r.URL.Path]) < d {
				w.WriteHeader(http.StatusServiceUnavailable)
				return
			}
			next.ServeHTTP(w, r)
		})
	}
}

// anotherTarball answers with another tarball.
func anotherTarball(_ time.Time, next http.Handler) http.Handler {
	return tarballs(func(w http.ResponseWriter, r *http.Request, next http.Handler) {
		w.Write([]byte("\x1f\x8b\x08\x00\x00 another release's"))
	})(next)
}

// missing answers the nth request for a file that it has with 404, and those before with 503.
func missing(nth int) func(time.Time, http.Handler) http.Handler {
	return func(_ time.Time, next http.Handler) http.Handler {
		asked := map[string]int{}
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			asked[r.URL.Path]++
			switch n := asked[r.URL.Path]; {
			case n < nth:
				w.WriteHeader(http.StatusServiceUnavailable)
			case n == nth:
				http.NotFound(w, r)
			default:
				next.ServeHTTP(w, r)
			}
		})
	}
}

// aByteEach sends the tarball with 16 bytes in each response.
func aByteEach(_ time.Time, next http.Handler) http.Handler {
	return tarballs(func(w http.ResponseWriter, r *http.Request, next http.Handler) {
		next.ServeHTTP(&cutter{w, 16}, r)
	})(next)
}

// What an earlier process recorded is taken back once there is progress, and not by a manifest
// that was there before; or when the tarball is complete.
func TestARecordedWaitIsTakenBack(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		before, fails int64 // bytes that are recorded, beyond manifest and signature; tries of the tarball that fail
		left          bool  // the whole tarball is here
		told          string
	}{
		"the manifest was not there":   {before: -1 << 40, told: "goes on"},
		"at once":                      {told: "goes on"},
		"the tarball fails":            {fails: 2, told: "waits, waits, goes on"},
		"nothing is left to be loaded": {before: 1 << 40, left: true, told: "goes on"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var fails atomic.Int64
			s := setup(t, tarballs(func(w http.ResponseWriter, r *http.Request, next http.Handler) {
				if fails.Add(-1) >= 0 {
					w.WriteHeader(http.StatusServiceUnavailable)
					return
				}
				next.ServeHTTP(w, r)
			}))
			rel, a := fetch(t, s, "1.0.0")
			small := s.effort.done
			if err := s.Layout.Make(); err != nil {
				t.Fatal(err)
			}
			if tt.left {
				if err := os.WriteFile(s.Layout.Download(a.SHA256), tarball(t, s, a), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			fails.Store(tt.fails)
			var told []string
			s.SetPatience(Patience{Limit: time.Hour, Before: Wait{Reason: "x", Counted: time.Minute, Have: max(0, small+tt.before)}, Waiting: func(w Wait) {
				switch {
				case w == Wait{}:
					told = append(told, "goes on")
				case w.Counted < time.Minute:
					t.Errorf("it began anew: %+v", w)
				default:
					told = append(told, "waits")
				}
			}})
			if _, err := s.Fetch(t.Context(), s.Host(rel.Manifest().Version)); err != nil {
				t.Fatal(err)
			}
			if _, err := s.Stage(t.Context(), s.Host(rel.Manifest().Version), rel, a, func() {}); err != nil {
				t.Fatal(err)
			}
			if got := strings.Join(told, ", "); got != tt.told {
				t.Errorf("told: %s", got)
			}
		})
	}
}

// What a fetch waits for is told, and that it goes on.
func TestWhatItWaitsForIsTold(t *testing.T) {
	t.Parallel()
	published.once.Do(func() { published.err = publishAll() })
	root := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		l := newLink(line{rate: 1e6, up: time.Minute, period: time.Hour, cut: true, start: time.Now().Add(-time.Minute)})
		s := over(t, l, root, nil)
		var told []Wait
		s.SetPatience(Patience{Limit: time.Hour, Before: Wait{Counted: time.Minute, Have: 0}, Waiting: func(w Wait) { told = append(told, w) }})
		began := time.Now()
		if _, err := bring(t, s, newVersion); err != nil {
			t.Fatal(err)
		}
		first, last := told[0], told[len(told)-1]
		if !first.Away || !first.Since.Equal(began) || first.Counted != time.Minute || first.Left != 59*time.Minute || !strings.Contains(first.Reason, "the release host: fetch https://") || !strings.Contains(first.Reason, "no route to host") {
			t.Errorf("first: %+v", first)
		}
		if last != (Wait{}) {
			t.Errorf("last: %+v", last)
		}
		for _, w := range told[:len(told)-1] {
			if w.Counted != time.Minute || !w.Away {
				t.Errorf("%+v", w)
			}
		}
		if n := len(told); n < 100 {
			t.Errorf("it tried %d times in an hour", n)
		}
	})
}
