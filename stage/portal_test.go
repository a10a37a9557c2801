package stage

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/bilbycast/edge-agent/manager-sim/fakerelease"
	"github.com/bilbycast/edge-agent/release"
)

// oddAnswer is a response that contradicts the request or the signed data.
type oddAnswer func(w http.ResponseWriter, r *http.Request, size int64)

// html returns a page of size bytes.
func html(size int64) []byte {
	b := bytes.Repeat([]byte(" "), int(size))
	copy(b, "<!DOCTYPE html><html><body>Sign in to the guest network</body></html>")
	return b
}

func withHeaders(code int, body func(size int64) []byte, headers ...string) oddAnswer {
	return func(w http.ResponseWriter, _ *http.Request, size int64) {
		for i := 0; i < len(headers); i += 2 {
			w.Header().Set(headers[i], strings.ReplaceAll(headers[i+1], "SIZE", strconv.FormatInt(size, 10)))
		}
		w.WriteHeader(code)
		w.Write(body(size))
	}
}

func bytesOf(n int64) func(int64) []byte { return func(int64) []byte { return make([]byte, n) } }

func none0(int64) []byte { return nil }

// chunked sends n bytes more than the file has, without a length.
func chunked(more int64) oddAnswer {
	return func(w http.ResponseWriter, _ *http.Request, size int64) {
		w.Header().Set("Content-Type", "application/octet-stream")
		w.(http.Flusher).Flush()
		w.Write(make([]byte, size+more))
	}
}

// oddAnswers are those that are refused before anything on disk is touched.
var oddAnswers = map[string]struct {
	answer oddAnswer
	text   string // of the error, if there is no other answer
	code   release.Code
}{
	"a page":                            {withHeaders(200, func(int64) []byte { return html(300) }, "Content-Type", "text/html; charset=utf-8"), "a page (text/html", ""},
	"a page of the right length":        {withHeaders(200, html, "Content-Type", "Text/HTML"), "a page (Text/HTML", ""},
	"a page of that length, other type": {withHeaders(200, html, "Content-Type", "application/octet-stream"), "answers with text", ""},
	"a page in chunks":                  {func(w http.ResponseWriter, r *http.Request, size int64) { w.(http.Flusher).Flush(); w.Write(html(300)) }, "a captive portal?", ""},
	"a page as the part":                {withHeaders(206, html, "Content-Type", "text/html", "Content-Range", "bytes 0-9/SIZE"), "a page", ""},
	"a page as the right part": {func(w http.ResponseWriter, r *http.Request, n int64) {
		from, _ := strconv.ParseInt(strings.TrimSuffix(strings.TrimPrefix(r.Header.Get("Range"), "bytes="), "-"), 10, 64)
		w.Header().Set("Content-Type", "application/octet-stream")
		w.Header().Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", from, n-1, n))
		w.WriteHeader(http.StatusPartialContent)
		w.Write(html(n - from))
	}, "answers with text", ""},
	"no content":      {withHeaders(204, none0), "answers 204 No Content: a captive portal?", ""},
	"another success": {withHeaders(202, bytesOf(9)), "answers 202 Accepted", ""},
	"an empty file":   {withHeaders(200, none0, "Content-Type", "application/gzip"), "an empty file", ""},
	"a shorter file":  {withHeaders(200, bytesOf(5000), "Content-Length", "5000"), "a file of 5000 bytes, but the signed manifest says", ""},
	"a longer file": {func(w http.ResponseWriter, r *http.Request, n int64) {
		w.Header().Set("Content-Length", strconv.FormatInt(n+1, 10))
		w.Write(make([]byte, n+1))
	}, "but the signed manifest says", ""},
	"a shorter file in chunks":           {chunked(-700 << 10), "a captive portal?", ""},
	"a longer file in chunks":            {chunked(100), "a captive portal?", ""},
	"a part that names no range":         {withHeaders(206, bytesOf(1000)), "does not say which", ""},
	"a part of another unit":             {withHeaders(206, bytesOf(1000), "Content-Range", "items 0-9/10"), "does not say which", ""},
	"a part that ends before it begins":  {withHeaders(206, bytesOf(1000), "Content-Range", "bytes 9-0/10"), "does not say which", ""},
	"another part":                       {withHeaders(206, bytesOf(10), "Content-Range", "bytes 1-10/SIZE"), "a range that was not asked for", ""},
	"a part of another file":             {func(w http.ResponseWriter, r *http.Request, _ int64) { part(w, r, 2000, 20) }, "but the signed manifest says", ""},
	"a part of another length":           {func(w http.ResponseWriter, r *http.Request, n int64) { part(w, r, n, 10) }, "answers with 10 bytes, but says that they are", ""},
	"several parts":                      {withHeaders(206, bytesOf(1000), "Content-Type", "multipart/byteranges; boundary=x", "Content-Range", "bytes 0-9/SIZE"), "several parts", ""},
	"an encoding":                        {withHeaders(200, html, "Content-Encoding", "gzip", "Content-Type", "application/octet-stream"), `Content-Encoding "gzip"`, ""},
	"two encodings":                      {withHeaders(200, html, "Content-Encoding", "identity, br", "Content-Type", "application/octet-stream"), `Content-Encoding "identity, br"`, ""},
	"the end of the file":                {withHeaders(416, none0, "Content-Range", "bytes */1000"), "its file ends before byte", ""},
	"the end of the file, without where": {withHeaders(416, none0), "its file ends before byte", ""},
	"forbidden":                          {withHeaders(403, func(int64) []byte { return html(99) }), "403 Forbidden", ""},
	"not found":                          {withHeaders(404, func(int64) []byte { return html(99) }), "is not there (404)", ""},
	"unauthorized":                       {withHeaders(401, none0), "401 Unauthorized", ""},
	"sign in first":                      {withHeaders(511, none0), "a captive portal?", ""},
	"a choice":                           {withHeaders(300, none0), "a captive portal?", ""},
	"a redirect without a target":        {withHeaders(302, none0), "a captive portal?", ""},
	"a redirect to the portal":           {withHeaders(302, none0, "Location", "https://portal.example/login"), "not an allowed host (a captive portal?)", release.URLInvalid},
	"a redirect without TLS":             {withHeaders(307, none0, "Location", "http://10.0.0.1/login"), "not https (a captive portal?)", release.URLInvalid},
}

// part sends n bytes as the rest of a file of size bytes.
func part(w http.ResponseWriter, r *http.Request, size, n int64) {
	from, _, _ := strings.Cut(strings.TrimPrefix(r.Header.Get("Range"), "bytes="), "-")
	if at, err := strconv.ParseInt(from, 10, 64); err != nil || at >= size {
		size = at + 20
	}
	w.Header().Set("Content-Range", fmt.Sprintf("bytes %s-%d/%d", from, size-1, size))
	w.Header().Set("Content-Length", strconv.FormatInt(n, 10))
	w.WriteHeader(http.StatusPartialContent)
	w.Write(make([]byte, n))
}

// Half of the tarball is here when the host, or another server in its place, gives
// another answer, two times or always. The half stays, and is used once the
// host answers again.
func TestAnAnswerThatContradictsKeepsWhatIsHere(t *testing.T) {
	t.Parallel()
	const half = 500 << 10
	for name, tt := range oddAnswers {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var odd atomic.Int32 // answers still to come
			var size atomic.Int64
			var requests, cut atomic.Int32
			var last atomic.Value
			s := setup(t, tarballs(func(w http.ResponseWriter, r *http.Request, next http.Handler) {
				requests.Add(1)
				switch {
				case cut.CompareAndSwap(0, 1):
					next.ServeHTTP(&cutter{w, half}, r)
				case odd.Add(-1) >= 0:
					tt.answer(w, r, size.Load())
				default:
					last.Store(r.Header.Get("Range"))
					next.ServeHTTP(w, r)
				}
			}))
			rel, a := fetch(t, s, "1.0.0")
			size.Store(a.Size)
			odd.Store(1 << 20)
			_, err := s.Stage(t.Context(), s.Host(rel.Manifest().Version), rel, a, func() { t.Error("reported as downloaded") })
			want := tt.code
			if want == "" {
				want = release.NetworkError
			}
			if code(err) != want || !strings.Contains(err.Error(), tt.text) || !strings.Contains(err.Error(), "gave up after 6 tries") {
				t.Errorf("always: got %s: %v", code(err), err)
			}
			if n := requests.Load(); n != 1+6 { // the one that was cut brought something
				t.Errorf("always: %d requests", n)
			}
			b, err := os.ReadFile(s.Layout.Download(a.SHA256))
			if err != nil || len(b) != half {
				t.Fatalf("of the %d bytes %d are here: %v", half, len(b), err)
			}
			odd.Store(2)
			if _, err := s.Stage(t.Context(), s.Host(rel.Manifest().Version), rel, a, func() {}); err != nil {
				t.Errorf("two times: %v", err)
			}
			if r := last.Load(); r != fmt.Sprintf("bytes=%d-", half) {
				t.Errorf("in the end the range %v was asked for", r)
			}
		})
	}
}

// The same answers to the first request.
func TestAnAnswerThatContradictsAtFirst(t *testing.T) {
	t.Parallel()
	for name, tt := range oddAnswers {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var size atomic.Int64
			var odd atomic.Int32
			s := setup(t, tarballs(func(w http.ResponseWriter, r *http.Request, next http.Handler) {
				if odd.Add(-1) >= 0 {
					tt.answer(w, r, size.Load())
					return
				}
				next.ServeHTTP(w, r)
			}))
			rel, a := fetch(t, s, "1.0.0")
			size.Store(a.Size)
			for _, times := range []int32{2, 1 << 20} {
				odd.Store(times)
				_, err := s.Stage(t.Context(), s.Host(rel.Manifest().Version), rel, a, func() {})
				if ok := times == 2; ok != (err == nil) || !ok && code(err) != release.NetworkError && code(err) != tt.code {
					t.Errorf("%d times: %v", times, err)
				}
				if got := left(t, s); times > 2 && strings.Contains(got, "downloads/") {
					t.Errorf("left behind: %s", got)
				}
				os.RemoveAll(s.Layout.Version(rel.Manifest().Version))
			}
		})
	}
}

// A server that ignores ranges sends the beginning again: it is compared, and
// different bytes are accepted only if the server keeps sending them.
func TestAnotherBeginning(t *testing.T) {
	t.Parallel()
	for _, wrong := range []string{"the host's, for a while", "the host's", "ours"} {
		t.Run(wrong, func(t *testing.T) {
			t.Parallel()
			var n atomic.Int32
			s := setup(t, tarballs(func(w http.ResponseWriter, r *http.Request, next http.Handler) {
				i := n.Add(1)
				if wrong == "ours" || wrong == "the host's, for a while" && i > 3 {
					r.Header.Del("Range")
					next.ServeHTTP(w, r)
					return
				}
				size := w.Header()
				b := &bytes.Buffer{}
				r.Header.Del("Range")
				next.ServeHTTP(&into{w, b}, r)
				size.Set("Content-Length", strconv.Itoa(b.Len()))
				w.Write(make([]byte, b.Len()))
			}))
			rel, a := fetch(t, s, "1.0.0")
			if err := s.Layout.Make(); err != nil {
				t.Fatal(err)
			}
			ours := tarball(t, s, a)[:a.Size/2]
			if wrong == "ours" {
				ours = make([]byte, len(ours))
			}
			if err := os.WriteFile(s.Layout.Download(a.SHA256), ours, 0o644); err != nil {
				t.Fatal(err)
			}
			n.Store(0)
			_, err := s.Stage(t.Context(), s.Host(rel.Manifest().Version), rel, a, func() {})
			switch wrong {
			case "the host's":
				if code(err) != release.ChecksumMismatch || n.Load() != 7 {
					t.Errorf("after %d requests: %v", n.Load(), err)
				}
			default:
				if err != nil {
					t.Errorf("after %d requests: %v", n.Load(), err)
				}
			}
		})
	}
}

// tarball is what the release host has.
func tarball(t *testing.T, s *Stager, a release.Artefact) []byte {
	t.Helper()
	other := setup(t, nil)
	name, err := a.File(release.BaseURL("https://github.com/"+fakerelease.DefaultRepository, release.MustVersion("1.0.0")))
	if err != nil {
		t.Fatal(err)
	}
	resp, err := other.client.Get(other.Trust.FetchURLs(release.MustVersion("1.0.0"))[0] + "/" + name)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil || int64(len(b)) != a.Size {
		t.Fatalf("%d bytes: %v", len(b), err)
	}
	return b
}

// Without a signed size the first response says it, and later ones must agree.
// A wrong digest begins once more: nothing says which of them was wrong.
func TestContradictionsWithoutASignedSize(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		second oddAnswer
		want   release.Code
	}{
		"a longer file":       {withHeaders(200, func(n int64) []byte { return make([]byte, n+1) }), release.ChecksumMismatch},
		"a shorter file":      {withHeaders(200, bytesOf(5000)), release.NetworkError},
		"its end":             {withHeaders(416, none0, "Content-Range", "bytes */100"), release.NetworkError},
		"a file without size": {chunked(5), release.ChecksumMismatch},
	} {
		for _, times := range []int32{1, 1 << 20} {
			t.Run(fmt.Sprint(name, times), func(t *testing.T) {
				t.Parallel()
				var n atomic.Int32
				var size int64
				s := setup(t, tarballs(func(w http.ResponseWriter, r *http.Request, next http.Handler) {
					switch i := n.Add(1); {
					case i == 1:
						next.ServeHTTP(&cutter{w, 500 << 10}, r)
					case i <= 1+times:
						tt.second(w, r, size)
					default:
						next.ServeHTTP(w, r)
					}
				}))
				rel, a := fetch(t, s, "1.0.0")
				size, a.Size, a.UnpackedSize = a.Size, 0, 0
				_, err := s.Stage(t.Context(), s.Host(rel.Manifest().Version), rel, a, func() {})
				if times == 1 && err != nil || times > 1 && code(err) != tt.want {
					t.Errorf("after %d requests: %v", n.Load(), err)
				}
			})
		}
	}
}
