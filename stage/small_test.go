package stage

import (
	"errors"
	"fmt"
	"github.com/bilbycast/edge-agent/internal/box"
	"io"
	"io/fs"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/bilbycast/edge-agent/release"
	"github.com/bilbycast/edge-agent/verify"
)

// A manifest or a signature that is not JSON is the network's fault, and may
// pass; it is no forged signature and no invalid manifest.
func TestSmallFilesThatAreNotJSON(t *testing.T) {
	t.Parallel()
	plain := func(body string) oddAnswer {
		return withHeaders(200, func(int64) []byte { return []byte(body) }, "Content-Type", "application/json")
	}
	for name, tt := range map[string]struct {
		answer oddAnswer
		text   string
		code   release.Code
	}{
		"a page":                   {withHeaders(200, func(int64) []byte { return html(300) }), "not JSON: a captive portal?", ""},
		"a page said to be JSON":   {plain("<html>"), "not JSON: a captive portal?", ""},
		"a page over the limit":    {withHeaders(200, func(int64) []byte { return html(17 << 20) }), "not JSON: a captive portal?", ""},
		"nothing":                  {plain(""), "not JSON: a captive portal?", ""},
		"text":                     {plain("Please sign in."), "not JSON", ""},
		"a string":                 {plain(`"no"`), "not JSON", ""},
		"a list":                   {plain(`[1, 2]`), "not JSON", ""},
		"null":                     {plain(`null`), "not JSON", ""},
		"the beginning of it":      {plain(`{"version": "1.0.0", "artefacts": [{"arc`), "not JSON", ""},
		"another object":           {plain(`{"error": "sign in first", "location": "https://portal.example"}`), "JSON that has no", ""},
		"an empty object":          {plain(`{}`), "JSON that has no", ""},
		"two of it":                {plain(`{} {}`), "not JSON", ""},
		"an encoding":              {withHeaders(200, func(int64) []byte { return []byte("{}") }, "Content-Encoding", "gzip"), "Content-Encoding", ""},
		"no content":               {withHeaders(204, none0), "204 No Content", ""},
		"a part":                   {withHeaders(206, func(int64) []byte { return []byte("{}") }), "206 Partial Content", ""},
		"forbidden":                {withHeaders(403, none0), "403 Forbidden", ""},
		"not found":                {withHeaders(404, none0), "is not there (404)", ""},
		"a redirect to the portal": {withHeaders(302, none0, "Location", "https://portal.example/?from="+strings.Repeat("x", 3000)), "not an allowed host (a captive portal?)", release.URLInvalid},
	} {
		for _, file := range []string{release.ManifestName, release.BundleName} {
			t.Run(name+" as "+file, func(t *testing.T) {
				t.Parallel()
				var odd atomic.Int32
				s := setup(t, func(next http.Handler) http.Handler {
					return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
						if strings.HasSuffix(r.URL.Path, file) && odd.Add(-1) >= 0 {
							tt.answer(w, r, 0)
							return
						}
						next.ServeHTTP(w, r)
					})
				})
				odd.Store(2)
				if _, err := s.Fetch(t.Context(), s.Host(release.MustVersion("1.0.0"))); err != nil {
					t.Errorf("two times: %v", err)
				}
				odd.Store(1 << 20)
				_, err := s.Fetch(t.Context(), s.Host(release.MustVersion("1.0.0")))
				want := tt.code
				if want == "" {
					want = release.NetworkError
				}
				if code(err) != want || !strings.Contains(err.Error(), tt.text) || !strings.Contains(err.Error(), "gave up after 6 tries") || len(err.Error()) > 700 {
					t.Errorf("always: got %s: %v", code(err), err)
				}
				if errors.Is(err, fs.ErrNotExist) != (name == "not found" || name == "forbidden") {
					t.Errorf("fs.ErrNotExist: %v", err)
				}
			})
		}
	}
}

// A file of a trust root that is not beside the release is asked for once.
func TestAbsentOptionalFilesAreAskedForOnce(t *testing.T) {
	t.Parallel()
	for _, status := range []int{403, 404, 410} {
		var asked atomic.Int32
		s := setup(t, func(next http.Handler) http.Handler {
			return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				asked.Add(1)
				w.WriteHeader(status)
			})
		})
		_, err := s.read(t.Context(), s.Host(release.MustVersion("1.0.0")), smallFile{name: "15.root.json", limit: verify.MaxRoot, optional: true})
		if !errors.Is(err, fs.ErrNotExist) || asked.Load() != 1 {
			t.Errorf("%d: asked %d times: %v", status, asked.Load(), err)
		}
	}
}

// No text of a host reaches an error as it is.
func TestTextsOfAHostAreBounded(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("y", 60<<10)
	for name, answer := range map[string]string{
		"reason":         "HTTP/1.1 500 a\x1b[31m\xff" + long + "\r\n\r\n",
		"status":         "HTTP/1.1 " + long + "\r\n\r\n",
		"redirect":       "HTTP/1.1 302 Found\r\nLocation: https://" + long + "/\r\nContent-Length: 0\r\n\r\n",
		"no TLS":         "HTTP/1.1 302 Found\r\nLocation: http://x/" + long + "\r\nContent-Length: 0\r\n\r\n",
		"bad URL":        "HTTP/1.1 302 Found\r\nLocation: https://x:y" + long + "/\r\nContent-Length: 0\r\n\r\n",
		"encoding":       "HTTP/1.1 200 OK\r\nContent-Encoding: " + long + "\r\nContent-Length: 2\r\n\r\n{}",
		"type":           "HTTP/1.1 200 OK\r\nContent-Type: text/html; " + long + "\r\nContent-Length: 2\r\n\r\n<>",
		"transfer":       "HTTP/1.1 200 OK\r\nTransfer-Encoding: " + long + "\r\n\r\n",
		"length":         "HTTP/1.1 200 OK\r\nContent-Length: 1" + long + "\r\n\r\n",
		"range":          "HTTP/1.1 206 OK\r\nContent-Range: " + long + "\r\nContent-Length: 2\r\n\r\n{}",
		"headers":        "HTTP/1.1 200 OK\r\nX: " + long + long + "\r\n\r\n",
		"protocol":       long + "\r\n\r\n",
		"chunks":         "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + long,
		"end of a range": "HTTP/1.1 416 No\r\nContent-Range: bytes */" + long + "\r\nContent-Length: 0\r\n\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			raw := func(w http.ResponseWriter, r *http.Request, _ http.Handler) {
				c, _, err := w.(http.Hijacker).Hijack()
				if err != nil {
					t.Error(err)
					return
				}
				io.WriteString(c, answer)
				c.Close()
			}
			s := setup(t, tarballs(raw))
			s.Tries = 2
			rel, a := fetch(t, s, "1.0.0")
			_, err := s.Stage(t.Context(), s.Host(rel.Manifest().Version), rel, a, func() {})
			_, small := s.read(t.Context(), s.Host(release.MustVersion("1.0.0")), smallFile{name: "x.tar.gz", limit: 100, tooLarge: release.ManifestInvalid})
			for _, err := range []error{err, small} {
				if err == nil || len(err.Error()) > 700 || !utf8.ValidString(err.Error()) || strings.ContainsAny(err.Error(), "\x1b\n\r") {
					t.Errorf("%d bytes: %.900q", len(fmt.Sprint(err)), fmt.Sprint(err))
				}
			}
		})
	}
}

// A host that sends a byte now and then does not hold the node for ever.
func TestASmallFileThatDrips(t *testing.T) {
	t.Parallel()
	box.Slow(t)
	s := setup(t, func(http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			tick := time.NewTicker(5 * time.Millisecond)
			defer tick.Stop()
			for {
				w.Write([]byte(" "))
				w.(http.Flusher).Flush()
				select {
				case <-r.Context().Done():
					return
				case <-tick.C:
				}
			}
		})
	})
	s.Tries, s.StallTimeout = 2, 300*time.Millisecond
	if _, err := s.Fetch(t.Context(), s.Host(release.MustVersion("1.0.0"))); code(err) != release.NetworkError || !strings.Contains(err.Error(), "not complete after 3s") {
		t.Errorf("got %v", err)
	}
}
