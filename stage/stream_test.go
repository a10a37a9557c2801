package stage

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/bilbycast/edge-agent/release"
)

const (
	streamed      = "3.0.0" // four chunks in both formats
	smallStreamed = "3.1.0" // one
)

// requests are what was asked of a host, as "tar.zst 1048576".
type requests struct {
	mu   sync.Mutex
	list []string
}

func (r *requests) add(req *http.Request) {
	r.mu.Lock()
	defer r.mu.Unlock()
	_, name, _ := strings.Cut(filepath.Base(req.URL.Path), ".tar.")
	if name == "" {
		return
	}
	from := strings.TrimSuffix(strings.TrimPrefix(req.Header.Get("Range"), "bytes="), "-")
	r.list = append(r.list, strings.TrimSpace("tar."+name+" "+from))
}

func (r *requests) all() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return strings.Join(r.list, ", ")
}

// serving is a host whose files with the names of files have those bytes.
func serving(asked *requests, files map[string][]byte) func(http.Handler) http.Handler {
	return func(h http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			asked.add(r)
			for end, b := range files {
				if strings.HasSuffix(r.URL.Path, end) {
					if b == nil {
						http.NotFound(w, r)
						return
					}
					http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(b))
					return
				}
			}
			h.ServeHTTP(w, r)
		})
	}
}

// published bytes of the form of that format.
func formBytes(t testing.TB, version, format string) []byte {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(published.dir, "www/acme/edge/releases/download/v"+version, "*."+format))
	if err != nil || len(names) != 1 {
		t.Fatal(names, err)
	}
	b, err := os.ReadFile(names[0])
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// formsOf changes the forms of a.
func formsOf(t testing.TB, a *release.Artefact, change func(zst *release.Form, chunks *release.Chunks)) {
	t.Helper()
	forms, wrong := a.Forms()
	if wrong != nil || len(forms) != 2 {
		t.Fatal(forms, wrong)
	}
	change(&forms[0], forms[1].Chunks)
	var err1, err2 error
	a.Formats, err1 = json.Marshal(forms[:1])
	a.Chunks, err2 = json.Marshal(forms[1].Chunks)
	if err := errors.Join(err1, err2); err != nil {
		t.Fatal(err)
	}
}

func TestStreamingTakesTheZstdForm(t *testing.T) {
	t.Parallel()
	var asked requests
	s := setup(t, serving(&asked, nil))
	rel, a := fetch(t, s, streamed)
	told := 0
	staged, err := s.Stage(t.Context(), s.Host(release.MustVersion(streamed)), rel, a, func() { told++ })
	if err != nil || staged.Version().String() != streamed || told != 1 {
		t.Fatal(err, told)
	}
	if got := asked.all(); got != "tar.zst" {
		t.Errorf("asked for %s", got)
	}
	one, err := os.ReadFile(filepath.Join(s.Layout.Version(staged.Version()), "padding"))
	if err != nil {
		t.Fatal(err)
	}
	// The same version from its tarball has the same files.
	plain := setup(t, nil)
	a.Formats, a.Chunks = nil, nil
	if _, err := plain.Stage(t.Context(), plain.Host(release.MustVersion(streamed)), rel, a, func() {}); err != nil {
		t.Fatal(err)
	}
	two, err := os.ReadFile(filepath.Join(plain.Layout.Version(staged.Version()), "padding"))
	if err != nil || !bytes.Equal(one, two) {
		t.Errorf("%d and %d bytes, %v", len(one), len(two), err)
	}
	if a, b := left(t, s), left(t, plain); a != b {
		t.Errorf("it leaves\n%s, and from the tarball\n%s", a, b)
	}
}

// A file is unpacked while what follows it is still downloaded.
func TestStreamingUnpacksWhatHasArrived(t *testing.T) {
	t.Parallel()
	var s *Stager
	seen := make(chan error, 1)
	s = setup(t, func(h http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if !strings.HasSuffix(r.URL.Path, ".tar.zst") {
				h.ServeHTTP(w, r)
				return
			}
			b := formBytes(t, streamed, release.FormatZstd)
			w.Header().Set("Content-Length", fmt.Sprint(len(b)))
			w.Write(b[:release.MinChunk+10])
			w.(http.Flusher).Flush()
			partial := filepath.Join(s.Layout.Partial(release.MustVersion(streamed)), "edge-agent")
			tick := time.Tick(time.Millisecond)
			for r.Context().Err() == nil {
				if _, err := os.Stat(partial); err == nil {
					seen <- nil
					w.Write(b[release.MinChunk+10:])
					return
				}
				<-tick
			}
			seen <- fmt.Errorf("%s was not written", partial)
		})
	})
	rel, a := fetch(t, s, streamed)
	if _, err := s.Stage(t.Context(), s.Host(release.MustVersion(streamed)), rel, a, func() {}); err != nil {
		t.Fatal(err)
	}
	if err := <-seen; err != nil {
		t.Error(err)
	}
}

// What is unpacked is read from the stream alone: whatever a host sends, it is a prefix of
// what is signed.
func TestOnlyVerifiedBytesAreRead(t *testing.T) {
	t.Parallel()
	setup(t, nil)
	right := formBytes(t, streamed, release.FormatZstd)
	for seed := range uint64(map[bool]int{true: 40, false: 200}[testing.Short()]) {
		rng := rand.New(rand.NewPCG(seed, 1))
		var mu sync.Mutex
		s := setup(t, func(h http.Handler) http.Handler {
			return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if !strings.HasSuffix(r.URL.Path, ".tar.zst") {
					h.ServeHTTP(w, r)
					return
				}
				mu.Lock()
				b := bytes.Clone(right)
				if rng.IntN(2) == 0 {
					b[rng.IntN(len(b))] ^= 1
				}
				if rng.IntN(8) == 0 {
					r.Header.Del("Range")
				}
				cut := rng.IntN(2 * len(b))
				mu.Unlock()
				http.ServeContent(&cutting{w, cut}, r, "", time.Time{}, bytes.NewReader(b))
			})
		})
		rel, a := fetch(t, s, streamed)
		forms, err := s.forms(rel, a)
		if err := errors.Join(err, s.Layout.Make()); err != nil {
			t.Fatal(err)
		}
		d, err := s.openDownload(forms[0], s.Host(release.MustVersion(streamed)))
		if err != nil {
			t.Fatal(err)
		}
		if rng.IntN(3) == 0 { // an earlier process left something
			left := bytes.Clone(right[:rng.IntN(len(right))])
			if len(left) > 0 && rng.IntN(2) == 0 {
				left[rng.IntN(len(left))] ^= 1
			}
			d.f.WriteAt(left, 0)
		}
		d.stream = newStream(d.f.File, forms[0].Size)
		read := make(chan []byte, 1)
		go func() {
			b, _ := io.ReadAll(d.stream)
			read <- b
		}()
		err = s.download(t.Context(), s.Host(release.MustVersion(streamed)), d)
		d.stream.end(errDownloaded)
		got := <-read
		if !bytes.HasPrefix(right, got) || err == nil && len(got) != len(right) {
			t.Fatalf("seed %d: %d bytes were read, which are not those that are signed (%v)", seed, len(got), err)
		}
		d.close()
	}
}

// cutting ends a response after some bytes.
type cutting struct {
	http.ResponseWriter
	left int
}

func (c *cutting) Write(b []byte) (int, error) {
	if len(b) >= c.left {
		c.ResponseWriter.Write(b[:c.left])
		panic(http.ErrAbortHandler)
	}
	c.left -= len(b)
	return c.ResponseWriter.Write(b)
}

func TestAnInterruptedStreamResumesAtAChunk(t *testing.T) {
	t.Parallel()
	setup(t, nil)
	size := len(formBytes(t, streamed, release.FormatZstd))
	for name, tt := range map[string]struct {
		change func(t *testing.T, file string)
		from   int // the byte that is asked for
	}{
		"a restart": {func(*testing.T, string) {}, 2 << 20},
		"a power cut took the end": {func(t *testing.T, file string) {
			if err := os.Truncate(file, 1<<20+5); err != nil {
				t.Fatal(err)
			}
		}, 1 << 20},
		"a power cut left zeros": {func(t *testing.T, file string) {
			f, err := os.OpenFile(file, os.O_RDWR, 0)
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			if _, err := f.WriteAt(make([]byte, 4096), 1<<20+4096); err != nil {
				t.Fatal(err)
			}
		}, 1 << 20},
		"it is longer than signed": {func(t *testing.T, file string) {
			if err := os.Truncate(file, int64(size)*2); err != nil {
				t.Fatal(err)
			}
		}, 2 << 20},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ctx, cancel := context.WithCancel(t.Context())
			s := setup(t, func(h http.Handler) http.Handler {
				return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					if strings.HasSuffix(r.URL.Path, ".tar.zst") {
						w = &cutting{w, 5 << 19} // two chunks and a half
					}
					h.ServeHTTP(w, r)
				})
			})
			s.Progress = func(phase string, done, _ int64) {
				if phase == PhaseDownload && done == 5<<19 {
					cancel()
				}
			}
			rel, a := fetch(t, s, streamed)
			if _, err := s.Stage(ctx, s.Host(release.MustVersion(streamed)), rel, a, func() {}); !errors.Is(err, context.Canceled) {
				t.Fatal(err)
			}
			forms, err := s.forms(rel, a)
			if err != nil {
				t.Fatal(err)
			}
			tt.change(t, s.Layout.Download(forms[0].SHA256))
			var asked requests
			next := setup(t, serving(&asked, nil))
			next.Layout = s.Layout
			if _, err := next.Stage(t.Context(), next.Host(release.MustVersion(streamed)), rel, a, func() {}); err != nil {
				t.Fatal(err)
			}
			if want := fmt.Sprintf("tar.zst %d", tt.from); asked.all() != want {
				t.Errorf("asked for %s, want %s", asked.all(), want)
			}
		})
	}
}

// A link that breaks within each chunk gets through all the same.
func TestALinkThatBreaksWithinEachChunk(t *testing.T) {
	t.Parallel()
	var asked requests
	s := setup(t, func(h http.Handler) http.Handler {
		return serving(&asked, nil)(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if strings.HasSuffix(r.URL.Path, ".tar.zst") {
				w = &cutting{w, 400_000}
			}
			h.ServeHTTP(w, r)
		}))
	})
	rel, a := fetch(t, s, streamed)
	if _, err := s.Stage(t.Context(), s.Host(release.MustVersion(streamed)), rel, a, func() {}); err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(asked.all(), ","); n > 20 {
		t.Errorf("asked %d times: %s", n, asked.all())
	}
}
