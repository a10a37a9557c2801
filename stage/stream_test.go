package stage

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"slices"
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
			for r.Context().Err() == nil {
				if _, err := os.Stat(partial); err == nil {
					seen <- nil
					w.Write(b[release.MinChunk+10:])
					return
				}
				time.Sleep(time.Millisecond) // until the file is there
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

// noForm is what a node says that a form is not used for, and what it asks the host for.
func TestFormsThatAreWrong(t *testing.T) {
	t.Parallel()
	setup(t, nil) // publishes
	zst := formBytes(t, streamed, release.FormatZstd)
	gz := formBytes(t, streamed, release.FormatGzip)
	flip := func(b []byte, at int) []byte {
		b = bytes.Clone(b)
		b[at] ^= 1
		return b
	}
	signed := func(f *release.Form, b []byte) {
		c, err := release.NewChunks(bytes.NewReader(b), release.MinChunk)
		if err != nil {
			t.Fatal(err)
		}
		f.Size, f.SHA256, f.Chunks = int64(len(b)), fmt.Sprintf("%x", sha256.Sum256(b)), &c
	}
	for name, tt := range map[string]struct {
		files  map[string][]byte
		change func(a *release.Artefact, zst *release.Form, chunks *release.Chunks)
		raw    func(a *release.Artefact)
		asked  string
		says   string
	}{
		"the host has no zst":           {files: map[string][]byte{".zst": nil}, asked: "tar.zst, tar.gz", says: "upgrade_network_error"},
		"a chunk of the zst is another": {files: map[string][]byte{".zst": flip(zst, release.MinChunk+5)}, asked: "tar.zst, tar.zst 1048576, tar.gz", says: "chunk 2 of 4"},
		"the zst is shorter":            {files: map[string][]byte{".zst": zst[:len(zst)-9]}, asked: "tar.zst, tar.zst, tar.zst, tar.zst, tar.zst, tar.zst, tar.gz", says: "captive portal"},
		"the zst has another digest":    {change: func(_ *release.Artefact, f *release.Form, _ *release.Chunks) { f.SHA256 = strings.Repeat("0", 64) }, asked: "tar.zst, tar.gz", says: "upgrade_checksum_mismatch"},
		"a zst without chunks":          {change: func(_ *release.Artefact, f *release.Form, _ *release.Chunks) { f.Chunks = nil }, asked: "tar.zst"},
		"trailing frames": {change: func(_ *release.Artefact, f *release.Form, _ *release.Chunks) {
			signed(f, append(bytes.Clone(zst), zst...))
		},
			files: map[string][]byte{".zst": append(bytes.Clone(zst), zst...)}, asked: "tar.zst, tar.gz", says: "after the end of the zstd stream"},
		"a trailing byte": {change: func(_ *release.Artefact, f *release.Form, _ *release.Chunks) { signed(f, append(bytes.Clone(zst), 0)) },
			files: map[string][]byte{".zst": append(bytes.Clone(zst), 0)}, asked: "tar.zst, tar.gz", says: "after the end of the zstd stream"},
		"the zst is a gzip file": {change: func(_ *release.Artefact, f *release.Form, _ *release.Chunks) { signed(f, gz) },
			files: map[string][]byte{".zst": gz}, asked: "tar.zst, tar.gz", says: "not a zstd file"},
		"a zst that is cut": {change: func(_ *release.Artefact, f *release.Form, _ *release.Chunks) { signed(f, zst[:len(zst)-100]) },
			files: map[string][]byte{".zst": zst[:len(zst)-100]}, asked: "tar.zst, tar.gz", says: "upgrade_extract_failed"},
		"the zst is at another URL":  {change: func(_ *release.Artefact, f *release.Form, _ *release.Chunks) { f.URL = "https://example.com/x.tar.zst" }, asked: "tar.gz", says: "upgrade_url_invalid"},
		"a format that nobody knows": {change: func(_ *release.Artefact, f *release.Form, _ *release.Chunks) { f.Format = "tar.xz" }, asked: "tar.gz", says: `"tar.xz" is not known`},
		"formats is no list":         {raw: func(a *release.Artefact) { a.Formats = json.RawMessage(`{"format":"tar.zst"}`) }, asked: "tar.gz", says: "upgrade_manifest_invalid"},
		"too many formats":           {raw: func(a *release.Artefact) { a.Formats = json.RawMessage("[" + strings.Repeat("{},", 8) + "{}]") }, asked: "tar.gz", says: "9, more than 8"},
		"a second zst": {raw: func(a *release.Artefact) {
			a.Formats = slices.Concat(a.Formats[:len(a.Formats)-1], []byte(","), a.Formats[1:])
		}, asked: "tar.zst", says: "a second one"},
		"the chunks are another's": {change: func(a *release.Artefact, f *release.Form, c *release.Chunks) {
			c.SHA256[1] = c.SHA256[0]
			f.Format = ""
		}, asked: "tar.gz, tar.gz 1048576, tar.gz 1048576", says: "by its chunks"},
		"one chunk too few": {change: func(_ *release.Artefact, f *release.Form, c *release.Chunks) { c.SHA256 = c.SHA256[1:]; f.Format = "" }, asked: "tar.gz", says: "do not add up"},
		"one chunk too many": {change: func(_ *release.Artefact, f *release.Form, c *release.Chunks) {
			c.SHA256 = append(c.SHA256, c.SHA256[0])
			f.Format = ""
		}, asked: "tar.gz", says: "do not add up"},
		"small chunks":                  {change: func(_ *release.Artefact, f *release.Form, c *release.Chunks) { c.Size = 1 << 19; f.Format = "" }, asked: "tar.gz", says: "outside 1048576"},
		"large chunks":                  {change: func(_ *release.Artefact, f *release.Form, c *release.Chunks) { c.Size = 1 << 40; f.Format = "" }, asked: "tar.gz", says: "outside 1048576"},
		"negative chunks":               {change: func(_ *release.Artefact, f *release.Form, c *release.Chunks) { c.Size = -1; f.Format = "" }, asked: "tar.gz", says: "outside 1048576"},
		"a digest that is none":         {change: func(_ *release.Artefact, f *release.Form, c *release.Chunks) { c.SHA256[0] = "x"; f.Format = "" }, asked: "tar.gz", says: "not 64 lower-case hex digits"},
		"chunks is a number":            {raw: func(a *release.Artefact) { a.Chunks, a.Formats = json.RawMessage("7"), nil }, asked: "tar.gz", says: "upgrade_manifest_invalid"},
		"chunks without a size of file": {raw: func(a *release.Artefact) { a.Size, a.Formats = 0, nil }, asked: "tar.gz", says: "has no size"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var asked requests
			var notes []string
			s := setup(t, serving(&asked, tt.files))
			s.Note = func(text string) { notes = append(notes, text) }
			rel, a := fetch(t, s, streamed)
			if tt.change != nil {
				formsOf(t, &a, func(f *release.Form, c *release.Chunks) { tt.change(&a, f, c) })
			}
			if tt.raw != nil {
				tt.raw(&a)
			}
			told := 0
			if _, err := s.Stage(t.Context(), s.Host(release.MustVersion(streamed)), rel, a, func() { told++ }); err != nil {
				t.Fatal(err, notes)
			}
			if got := asked.all(); got != tt.asked && !strings.Contains(tt.asked, "*") {
				t.Errorf("asked for %s, want %s", got, tt.asked)
			}
			if all := strings.Join(notes, "\n"); !strings.Contains(all, tt.says) || tt.says == "" && all != "" {
				t.Errorf("says %q, want %q", all, tt.says)
			}
			if told != 1 || strings.Contains(left(t, s), "partial") || strings.Contains(left(t, s), "unverified") {
				t.Errorf("told %d times; it leaves %s", told, left(t, s))
			}
		})
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
