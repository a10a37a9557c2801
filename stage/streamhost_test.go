package stage

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/bilbycast/edge-agent/internal/unreadable"
	"github.com/bilbycast/edge-agent/release"
)

// A host that does not have the files for a while costs time, whether or not the manifest has
// chunks: the same tarball without its chunks would not be there either.
func TestAnOutageOfATarballWithChunks(t *testing.T) {
	t.Parallel()
	for _, status := range []int{http.StatusNotFound, http.StatusServiceUnavailable} {
		t.Run(fmt.Sprint(status), func(t *testing.T) {
			t.Parallel()
			var refusals atomic.Int32
			s := setup(t, func(h http.Handler) http.Handler {
				return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					if strings.Contains(r.URL.Path, ".tar.") && refusals.Add(1) <= 30 {
						w.WriteHeader(status)
						return
					}
					h.ServeHTTP(w, r)
				})
			})
			rel, a := fetch(t, s, streamed)
			s.SetPatience(Patience{Limit: time.Hour})
			if _, err := s.Stage(t.Context(), s.Host(release.MustVersion(streamed)), rel, a, func() {}); err != nil {
				t.Error(err, refusals.Load())
			}
		})
	}
}

// A host that has only the beginning of a form, in whatever way, does not send it without
// end: the node takes the tarball.
func TestAHostWithTheBeginningOfAForm(t *testing.T) {
	t.Parallel()
	setup(t, nil)
	zst := formBytes(t, streamed, release.FormatZstd)
	part := func(w http.ResponseWriter, from int) {
		if from > 0 {
			w.Header().Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", from, len(zst)-1, len(zst)))
			w.WriteHeader(http.StatusPartialContent)
		}
	}
	other := bytes.Clone(zst)
	for i := range other {
		other[i] ^= 1
	}
	for name, send := range map[string]func(w http.ResponseWriter, r *http.Request, from int){
		"its answers end within a chunk, properly": func(w http.ResponseWriter, r *http.Request, from int) {
			part(w, from)
			w.Write(zst[from:min(len(zst), from+release.MinChunk/2)])
			w.(http.Flusher).Flush()
		},
		"its second chunk does, properly": func(w http.ResponseWriter, r *http.Request, from int) {
			part(w, from)
			w.Write(zst[from:min(len(zst), release.MinChunk*3/2)])
			w.(http.Flusher).Flush()
		},
		"nothing after one chunk": func(w http.ResponseWriter, r *http.Request, from int) {
			if from >= release.MinChunk {
				w.WriteHeader(http.StatusBadGateway)
				return
			}
			part(w, from)
			w.Write(zst[from : release.MinChunk+9])
			panic(http.ErrAbortHandler)
		},
		"after one chunk another file, whole": func(w http.ResponseWriter, r *http.Request, from int) {
			if from == 0 {
				w.Header().Set("Content-Length", fmt.Sprint(len(zst)))
				w.Write(zst[:release.MinChunk+9])
				panic(http.ErrAbortHandler)
			}
			w.Header().Set("Content-Length", fmt.Sprint(len(zst)))
			w.Write(other)
		},
		"after one chunk another file, in chunks": func(w http.ResponseWriter, r *http.Request, from int) {
			if from == 0 {
				part(w, from)
				w.Write(zst[:release.MinChunk+9])
				panic(http.ErrAbortHandler)
			}
			part(w, from)
			w.Write(other[from:])
		},
		"a stall after one chunk": func(w http.ResponseWriter, r *http.Request, from int) {
			part(w, from)
			if from == 0 {
				w.Write(zst[:release.MinChunk+9])
			}
			w.(http.Flusher).Flush()
			<-r.Context().Done()
		},
		"a stall": func(w http.ResponseWriter, r *http.Request, from int) {
			w.(http.Flusher).Flush()
			<-r.Context().Done()
		},
	} {
		test := func(t *testing.T, p Patience) {
			t.Parallel()
			var asked requests
			count := 0
			s := setup(t, func(h http.Handler) http.Handler {
				return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					if !strings.HasSuffix(r.URL.Path, ".tar.zst") {
						h.ServeHTTP(w, r)
						return
					}
					asked.add(r)
					if count++; count > 200 {
						w.WriteHeader(http.StatusTeapot)
						return
					}
					from := 0
					fmt.Sscanf(r.Header.Get("Range"), "bytes=%d-", &from)
					send(w, r, from)
				})
			})
			s.StallTimeout, s.MissingFor = 100*time.Millisecond, 100*time.Millisecond
			s.SetPatience(p)
			rel, a := fetch(t, s, streamed)
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			_, err := s.Stage(ctx, s.Host(release.MustVersion(streamed)), rel, a, func() {})
			if err != nil || count > 100 {
				t.Errorf("%v after %d requests: %.300s", err, count, asked.all())
			}
		}
		t.Run(name, func(t *testing.T) { test(t, Patience{}) })
		t.Run(name+", a patient node", func(t *testing.T) { test(t, Patience{Limit: time.Hour}) })
	}
}

// leave is what an earlier attempt left of the form of that format.
func leave(t testing.TB, s *Stager, a release.Artefact, format string, n int) {
	t.Helper()
	forms, wrong := a.Forms()
	for _, f := range forms {
		if f.Format != format || n == 0 {
			continue
		}
		err := errors.Join(s.Layout.Make(), os.WriteFile(s.Layout.Download(f.SHA256), formBytes(t, streamed, format)[:n], 0o600))
		if err := errors.Join(err, errors.Join(wrong...)); err != nil {
			t.Fatal(err)
		}
	}
}

// The form of which least is missing is resumed, and what was left of the other is removed.
func TestTheNearestFormIsResumed(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		zst, gz int
		asked   string
	}{
		"nothing":                 {0, 0, "tar.zst"},
		"as much of each":         {2 << 20, 2 << 20, "tar.zst 2097152"},
		"more of the zst":         {2 << 20, 1 << 20, "tar.zst 2097152"},
		"the tarball":             {0, 2 << 20, "tar.gz 2097152"},
		"more of the tarball":     {1 << 20, 3<<20 + 5, "tar.gz 3145728"},
		"the beginning of it all": {0, 1, "tar.zst"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var asked requests
			s := setup(t, serving(&asked, nil))
			rel, a := fetch(t, s, streamed)
			leave(t, s, a, release.FormatZstd, tt.zst)
			leave(t, s, a, release.FormatGzip, tt.gz)
			if _, err := s.Stage(t.Context(), s.Host(release.MustVersion(streamed)), rel, a, func() {}); err != nil {
				t.Fatal(err)
			}
			if asked.all() != tt.asked || strings.Contains(left(t, s), "unverified") {
				t.Errorf("asked for %s, want %s; it leaves %s", asked.all(), tt.asked, left(t, s))
			}
		})
	}
}

// What was left of the other form takes no room from a release that fits without it.
func TestTheOtherFormMakesRoom(t *testing.T) {
	t.Parallel()
	disk := newSmallDisk(t)
	host := setup(t, nil)
	rel, a := fetch(t, host, streamed)
	s, err := at(host.Config, disk.root, nil)
	if err := errors.Join(err, os.Mkdir(disk.root, 0o755)); err != nil {
		t.Fatal(err)
	}
	leave(t, s, a, release.FormatZstd, 2<<20)
	leave(t, s, a, release.FormatGzip, 2<<20)
	if err := disk.leave("bytes", need(a.Size, a.UnpackedSize)-3<<20); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Stage(t.Context(), s.Host(release.MustVersion(streamed)), rel, a, func() {}); err != nil {
		t.Error(err)
	}
}

// A form that is too large for the disk is no reason to refuse a tarball that fits.
func TestAFormThatDoesNotFit(t *testing.T) {
	t.Parallel()
	disk := newSmallDisk(t)
	host := setup(t, nil)
	rel, a := fetch(t, host, streamed)
	formsOf(t, &a, func(zst *release.Form, _ *release.Chunks) { zst.Size, zst.Chunks = 8<<20, nil })
	s, err := at(host.Config, disk.root, nil)
	if err := errors.Join(err, os.Mkdir(disk.root, 0o755)); err != nil {
		t.Fatal(err)
	}
	st, err := s.Stage(t.Context(), s.Host(release.MustVersion(streamed)), rel, a, func() {})
	if err != nil {
		t.Fatal(err)
	}
	st.wait()
	if err := disk.leave("bytes", 1<<20); err != nil { // for none
		t.Fatal(err)
	}
	rel, a = fetch(t, host, bigVersion)
	if _, err := s.Stage(t.Context(), s.Host(release.MustVersion(bigVersion)), rel, a, func() {}); code(err) != release.DiskFull {
		t.Error(err)
	}
}

// stickWith is a directory with the files of a release, and the name of its tar.zst.
func stickWith(t testing.TB, version string) (dir, zst string) {
	t.Helper()
	dir = t.TempDir()
	err := os.CopyFS(dir, os.DirFS(filepath.Join(published.dir, "www/acme/edge/releases/download/v"+version)))
	names, _ := filepath.Glob(filepath.Join(dir, "*.zst"))
	if err != nil || len(names) != 1 {
		t.Fatal(names, err)
	}
	return dir, filepath.Base(names[0])
}

// A stick whose tar.zst cannot be read has the tarball.
func TestAStickWithoutAReadableZst(t *testing.T) {
	t.Parallel()
	var notes []string
	s := setup(t, nil)
	s.Note = func(text string) { notes = append(notes, text) }
	rel, a := fetch(t, s, streamed)
	dir, zst := stickWith(t, streamed)
	err := errors.Join(os.Remove(filepath.Join(dir, zst)), os.Mkdir(filepath.Join(dir, zst), 0o755))
	if err != nil {
		t.Fatal(err)
	}
	src, err := OpenSource(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer src.Close()
	_, err = s.Stage(t.Context(), src, rel, a, func() {})
	if says := strings.Join(notes, " "); err != nil || !strings.Contains(says, "not a regular file (upgrade_internal): taking") {
		t.Errorf("%v; it says %q", err, says)
	}
}

// A process that gave up root reads the tar.zst that it opened before.
func TestTheZstOfAStickIsHeld(t *testing.T) {
	t.Parallel()
	setup(t, nil)
	dir, zst := stickWith(t, streamed)
	src, err := OpenSource(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer src.Close()
	unreadable.While(t, dir, filepath.Join(dir, zst), func() {
		p, err := src.Open(t.Context(), zst, 0, "")
		if err != nil {
			t.Error(err)
			return
		}
		p.Body.Close()
	})
}
