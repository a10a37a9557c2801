package stage

import (
	"fmt"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/bilbycast/edge-agent/release"
)

// hostOf serves the packed files of streamed by answer, which gets the number of the request,
// the file, and the byte from which it is requested.
func hostOf(t *testing.T, answer func(w http.ResponseWriter, n int, b []byte, from int)) (*Stager, *atomic.Int64) {
	t.Helper()
	n := new(atomic.Int64)
	s := setup(t, func(h http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if !strings.Contains(r.URL.Path, ".tar.") {
				h.ServeHTTP(w, r)
				return
			}
			format := release.FormatGzip
			if strings.HasSuffix(r.URL.Path, ".zst") {
				format = release.FormatZstd
			}
			from := 0
			fmt.Sscanf(r.Header.Get("Range"), "bytes=%d-", &from)
			answer(w, int(n.Add(1)), formBytes(t, streamed, format), from)
		})
	})
	s.SetPatience(Patience{})
	return s, n
}

// breakOff sends b of a body that is to have size bytes, and breaks the connection.
func breakOff(w http.ResponseWriter, size int, b []byte) {
	w.Header().Set("Content-Length", fmt.Sprint(size))
	w.Write(b)
	w.(http.Flusher).Flush()
	panic(http.ErrAbortHandler)
}

// sendPart sends b, which begins at from of a file of size bytes, without saying how long it is.
func sendPart(w http.ResponseWriter, size int, b []byte, from int) {
	if from > 0 {
		w.Header().Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", from, size-1, size))
		w.WriteHeader(http.StatusPartialContent)
	}
	w.Write(b)
	w.(http.Flusher).Flush()
}

// A host that knows no ranges, behind a link that breaks within the first chunk each time, is
// given up: what arrives again is no progress.
func TestAChunkThatNeverArrivesEnds(t *testing.T) {
	t.Parallel()
	const most = 100
	s, requests := hostOf(t, func(w http.ResponseWriter, n int, b []byte, _ int) {
		if n > most {
			w.WriteHeader(http.StatusNotFound)
			return
		}
		breakOff(w, len(b), b[:100_000+n*370_000%800_000])
	})
	rel, a := fetch(t, s, streamed)
	_, err := s.Stage(t.Context(), s.Host(release.MustVersion(streamed)), rel, a, func() {})
	if !isCode(err, release.NetworkError) || !strings.Contains(fmt.Sprint(err), "gave up after 6 tries") {
		t.Errorf("got %v", err)
	}
	if n := requests.Load(); n > most {
		t.Errorf("%d requests", n)
	}
}

// What a host sends in an answer that contradicts itself, or that is cut short, costs nothing of
// what was here before: the next right answer goes on there, within a chunk.
func TestAContradictionCostsNothing(t *testing.T) {
	t.Parallel()
	for name, wrong := range map[string]func(w http.ResponseWriter, b []byte, from int){
		"ends too early": func(w http.ResponseWriter, b []byte, from int) {
			sendPart(w, len(b), b[from:min(len(b), from+300_000)], from)
		},
		"other bytes, without a length": func(w http.ResponseWriter, b []byte, _ int) {
			sendPart(w, len(b), append([]byte("\x28\xb5\x2f\xfd"), make([]byte, 300_000)...), 0)
		},
		"knows no ranges, and breaks before what is here": func(w http.ResponseWriter, b []byte, from int) {
			breakOff(w, len(b), b[:min(from, 100_000)])
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			const step, size = 400_000, 3_000_000
			s, requests := hostOf(t, func(w http.ResponseWriter, n int, b []byte, from int) {
				switch rest := len(b) - from; {
				case n%2 == 0:
					wrong(w, b, from)
				case rest <= step:
					sendPart(w, len(b), b[from:], from)
				default:
					if from > 0 {
						w.Header().Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", from, len(b)-1, len(b)))
						w.Header().Set("Content-Length", fmt.Sprint(rest))
						w.WriteHeader(http.StatusPartialContent)
					}
					breakOff(w, rest, b[from:from+step])
				}
			})
			rel, a := fetch(t, s, streamed)
			if _, err := s.Stage(t.Context(), s.Host(release.MustVersion(streamed)), rel, a, func() {}); err != nil {
				t.Error(err)
			}
			// Right and wrong answers in turn; a chunk that ends within an answer costs one more.
			if n := requests.Load(); n > 2*(size/step+4) {
				t.Errorf("%d requests", n)
			}
		})
	}
}
