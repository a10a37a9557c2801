package stage

import (
	"bytes"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/bilbycast/edge-agent/internal/state"
	"github.com/bilbycast/edge-agent/release"
)

// tarballs applies f to requests for tarballs only.
func tarballs(f func(w http.ResponseWriter, r *http.Request, next http.Handler)) func(http.Handler) http.Handler {
	return func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if strings.HasSuffix(r.URL.Path, ".tar.gz") {
				f(w, r, next)
				return
			}
			next.ServeHTTP(w, r)
		})
	}
}

// cutter lets n bytes of a response through, then cuts the connection.
type cutter struct {
	http.ResponseWriter
	n int
}

func (c *cutter) Write(p []byte) (int, error) {
	if len(p) > c.n {
		c.ResponseWriter.Write(p[:c.n])
		c.ResponseWriter.(http.Flusher).Flush()
		panic(http.ErrAbortHandler)
	}
	c.n -= len(p)
	return c.ResponseWriter.Write(p)
}

func TestDownloadResumes(t *testing.T) {
	t.Parallel()
	var ranges []string
	s := setup(t, tarballs(func(w http.ResponseWriter, r *http.Request, next http.Handler) {
		ranges = append(ranges, r.Header.Get("Range"))
		next.ServeHTTP(&cutter{w, 400 << 10}, r)
	}))
	rel, a := fetch(t, s, "1.0.0")
	if _, err := s.Stage(t.Context(), s.Host(rel.Manifest().Version), rel, a, func() {}); err != nil {
		t.Fatal(err)
	}
	if len(ranges) != 3 || ranges[0] != "" || !strings.HasPrefix(ranges[1], "bytes=") {
		t.Errorf("ranges asked for: %q", ranges)
	}
}

func TestDownloadResumesWhatAnEarlierProcessLeft(t *testing.T) {
	t.Parallel()
	var cut atomic.Bool
	var last atomic.Pointer[string]
	s := setup(t, tarballs(func(w http.ResponseWriter, r *http.Request, next http.Handler) {
		h := r.Header.Get("Range")
		last.Store(&h)
		if cut.Load() {
			if h != "" {
				panic(http.ErrAbortHandler)
			}
			next.ServeHTTP(&cutter{w, 100 << 10}, r)
			return
		}
		next.ServeHTTP(w, r)
	}))
	s.Tries = 2
	cut.Store(true)
	rel, a := fetch(t, s, "1.0.0")
	if _, err := s.Stage(t.Context(), s.Host(rel.Manifest().Version), rel, a, func() {}); code(err) != release.NetworkError {
		t.Fatalf("got %v", err)
	}
	if got := left(t, s); !strings.Contains(got, a.SHA256+state.UnverifiedSuffix) {
		t.Fatalf("what can be resumed is not kept: %s", got)
	}
	cut.Store(false)
	if _, err := s.Stage(t.Context(), s.Host(rel.Manifest().Version), rel, a, func() {}); err != nil {
		t.Fatal(err)
	}
	if *last.Load() == "" {
		t.Error("the second process started from the beginning")
	}
}

func TestDownloadRestartsIfTheLeftoverIsWrong(t *testing.T) {
	t.Parallel()
	s := setup(t, nil)
	rel, a := fetch(t, s, "1.0.0")
	if err := s.Layout.Make(); err != nil {
		t.Fatal(err)
	}
	for name, left := range map[string]int64{"garbage": 4096, "longer than the tarball": a.Size + 1, "of the right size": a.Size} {
		if err := os.WriteFile(s.Layout.Download(a.SHA256), make([]byte, left), 0o644); err != nil {
			t.Fatal(err)
		}
		if _, err := s.Stage(t.Context(), s.Host(rel.Manifest().Version), rel, a, func() {}); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		os.RemoveAll(s.Layout.Version(rel.Manifest().Version))
	}
}

func TestReleaseHostFaults(t *testing.T) {
	t.Parallel()
	status := func(code int) func(http.ResponseWriter, *http.Request, http.Handler) {
		return func(w http.ResponseWriter, r *http.Request, _ http.Handler) { w.WriteHeader(code) }
	}
	to := func(url string) func(http.ResponseWriter, *http.Request, http.Handler) {
		return func(w http.ResponseWriter, r *http.Request, _ http.Handler) {
			http.Redirect(w, r, url, http.StatusFound)
		}
	}
	for name, tt := range map[string]struct {
		spoil func(http.ResponseWriter, *http.Request, http.Handler)
		want  release.Code
		text  string
	}{
		"gone":             {status(404), release.NetworkError, "is not there (404)"},
		"forbidden":        {status(403), release.NetworkError, "403"},
		"always down":      {status(500), release.NetworkError, "gave up after 6 tries"},
		"redirect away":    {to("https://evil.example/x"), release.URLInvalid, "not an allowed host"},
		"redirect to http": {to("http://github.com/x"), release.URLInvalid, "not https"},
		"redirects for ever": {func(w http.ResponseWriter, r *http.Request, _ http.Handler) {
			http.Redirect(w, r, r.URL.Path, http.StatusFound)
		}, release.URLInvalid, "more than 5 redirects"},
		"resets": {func(http.ResponseWriter, *http.Request, http.Handler) { panic(http.ErrAbortHandler) }, release.NetworkError, "gave up after 6 tries"},
		"ends early": {func(w http.ResponseWriter, r *http.Request, _ http.Handler) {
			w.Write(make([]byte, 1000))
		}, release.NetworkError, "answers with a file of 1000 bytes, but the signed manifest says"},
		"lies about the length": {func(w http.ResponseWriter, r *http.Request, next http.Handler) {
			w.Header().Set("Content-Length", "1000000000000")
			w.Write(make([]byte, 1000))
		}, release.NetworkError, "answers with a file of 1000000000000 bytes"},
		"other bytes of the right length": {func(w http.ResponseWriter, r *http.Request, next http.Handler) {
			b := &bytes.Buffer{}
			next.ServeHTTP(&into{w, b}, r)
			w.Header().Del("Content-Length")
			w.Write(make([]byte, b.Len()))
		}, release.ChecksumMismatch, "the signed manifest says"},
		"endless": {func(w http.ResponseWriter, r *http.Request, _ http.Handler) {
			for b := make([]byte, 64<<10); ; {
				if _, err := w.Write(b); err != nil {
					return
				}
			}
		}, release.NetworkError, "sends more than"},
		"stalls": {func(w http.ResponseWriter, r *http.Request, _ http.Handler) {
			w.Write([]byte("x"))
			w.(http.Flusher).Flush()
			<-r.Context().Done()
		}, release.NetworkError, "no byte for"},
		"the wrong range": {func(w http.ResponseWriter, r *http.Request, next http.Handler) {
			if r.Header.Get("Range") == "" {
				next.ServeHTTP(&cutter{w, 1000}, r)
				return
			}
			w.Header().Set("Content-Range", "bytes 0-9/10")
			w.WriteHeader(http.StatusPartialContent)
		}, release.NetworkError, "a range that was not asked for"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := setup(t, tarballs(tt.spoil))
			s.StallTimeout = 200 * time.Millisecond
			rel, a := fetch(t, s, "1.0.0")
			_, err := s.Stage(t.Context(), s.Host(rel.Manifest().Version), rel, a, func() { t.Error("reported as downloaded") })
			if code(err) != tt.want || !strings.Contains(err.Error(), tt.text) {
				t.Errorf("got %s: %v\nwant %s: %s", code(err), err, tt.want, tt.text)
			}
			if got := left(t, s); strings.Contains(got, "versions/") {
				t.Errorf("left behind: %s", got)
			}
		})
	}
}

func TestReleaseHostRecovers(t *testing.T) {
	t.Parallel()
	var n atomic.Int32
	s := setup(t, func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if n.Add(1)%2 == 1 {
				http.Error(w, "busy", http.StatusBadGateway)
				return
			}
			next.ServeHTTP(w, r)
		})
	})
	rel, a := fetch(t, s, "1.0.0")
	if _, err := s.Stage(t.Context(), s.Host(rel.Manifest().Version), rel, a, func() {}); err != nil {
		t.Fatal(err)
	}
}

// into keeps a response from its client.
type into struct {
	http.ResponseWriter
	b *bytes.Buffer
}

func (i *into) Write(p []byte) (int, error) { return i.b.Write(p) }

func (i *into) WriteHeader(int) {}

// After a connection ends at any byte, the download resumes there, by If-Range with the
// entity tag of the first part.
func TestDownloadResumesAtAnyByte(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex
	var at int64
	var ifRange []string
	s := setup(t, tarballs(func(w http.ResponseWriter, r *http.Request, next http.Handler) {
		mu.Lock()
		defer mu.Unlock()
		if r.Header.Get("Range") == "" {
			next.ServeHTTP(&cutter{w, int(at)}, r)
			return
		}
		ifRange = append(ifRange, r.Header.Get("If-Range"))
		next.ServeHTTP(w, r)
	}))
	rel, a := fetch(t, s, newVersion)
	for n := int64(1); n < a.Size; n++ {
		mu.Lock()
		at, ifRange = n, nil
		mu.Unlock()
		if _, err := s.Stage(t.Context(), s.Host(rel.Manifest().Version), rel, a, func() {}); err != nil {
			t.Fatalf("cut at byte %d of %d: %v", n, a.Size, err)
		}
		if len(ifRange) != 1 || !strings.HasPrefix(ifRange[0], `"`) {
			t.Errorf("cut at byte %d: If-Range %s", n, ifRange)
		}
		os.RemoveAll(s.Layout.Version(release.MustVersion(newVersion)))
	}
}

// A server that ignores Range sends all of it again.
func TestDownloadWithoutRanges(t *testing.T) {
	t.Parallel()
	var n atomic.Int32
	s := setup(t, tarballs(func(w http.ResponseWriter, r *http.Request, next http.Handler) {
		r.Header.Del("Range")
		r.Header.Del("If-Range")
		if n.Add(1) < 4 {
			w = &cutter{w, 1 << 19}
		}
		next.ServeHTTP(w, r)
	}))
	rel, a := fetch(t, s, "1.0.0")
	if _, err := s.Stage(t.Context(), s.Host(rel.Manifest().Version), rel, a, func() {}); err != nil || n.Load() != 4 {
		t.Errorf("after %d requests: %v", n.Load(), err)
	}
}

// A link that ends again and again gets there, as long as it brings something.
func TestDownloadOverABadLink(t *testing.T) {
	t.Parallel()
	var n atomic.Int32
	s := setup(t, tarballs(func(w http.ResponseWriter, r *http.Request, next http.Handler) {
		n.Add(1)
		next.ServeHTTP(&cutter{w, 96 << 10}, r)
	}))
	rel, a := fetch(t, s, "1.0.0")
	if _, err := s.Stage(t.Context(), s.Host(rel.Manifest().Version), rel, a, func() {}); err != nil {
		t.Errorf("after %d requests: %v", n.Load(), err)
	}
}

// need is 3 x the tarball, or what is in it and itself, if that is more.
func TestNeed(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ size, unpacked, want int64 }{{100, 0, 300}, {100, 150, 300}, {100, 900, 1000}} {
		if got := need(tt.size, tt.unpacked); got != uint64(tt.want) {
			t.Errorf("need(%d, %d) = %d", tt.size, tt.unpacked, got)
		}
	}
}

func TestATarballThatCannotFitIsNotBegun(t *testing.T) {
	t.Parallel()
	s := setup(t, tarballs(func(http.ResponseWriter, *http.Request, http.Handler) { t.Error("the tarball is asked for") }))
	rel, a := fetch(t, s, "1.0.0")
	a.UnpackedSize = release.MaxUnpacked << 20
	_, err := s.Stage(t.Context(), s.Host(rel.Manifest().Version), rel, a, func() {})
	if code(err) != release.DiskFull || !strings.Contains(err.Error(), strconv.FormatUint(need(a.Size, a.UnpackedSize), 10)+" are needed") {
		t.Errorf("got %v", err)
	}
	if got := left(t, s); got != empty {
		t.Errorf("left behind: %s", got)
	}
}
