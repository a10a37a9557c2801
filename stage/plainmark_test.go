package stage

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"net/http"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/bilbycast/edge-agent/internal/pack"
	"github.com/bilbycast/edge-agent/release"
)

// signedZst makes the manifest name other bytes as the tar.zst, with right digests.
func signedZst(t *testing.T, a *release.Artefact, b []byte) {
	t.Helper()
	c, err := release.NewChunks(bytes.NewReader(b), release.MinChunk)
	if err != nil {
		t.Fatal(err)
	}
	formsOf(t, a, func(f *release.Form, _ *release.Chunks) {
		f.Size, f.SHA256, f.Chunks = int64(len(b)), fmt.Sprintf("%x", sha256.Sum256(b)), &c
	})
}

// What a node has found wrong of a release is not downloaded again after a restart: neither the
// tar.zst, nor what a wrong chunk list says of the tarball.
func TestAWrongFormIsNotTriedAgain(t *testing.T) {
	t.Parallel()
	setup(t, nil) // publishes
	bad := formBytes(t, streamed, release.FormatZstd)[:1_300_000]
	for name, wrong := range map[string]func(t *testing.T, a *release.Artefact){
		"a tar.zst": func(t *testing.T, a *release.Artefact) { signedZst(t, a, bad) },
		"a chunk list": func(t *testing.T, a *release.Artefact) {
			formsOf(t, a, func(_ *release.Form, c *release.Chunks) { c.SHA256[1] = c.SHA256[0] })
			a.Formats = nil
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var asked requests
			s := setup(t, serving(&asked, map[string][]byte{".zst": bad}))
			refused := 0
			s.Note = func(string) { refused++ }
			rel, a := fetch(t, s, streamed)
			wrong(t, &a)
			stage := func(most int64) error {
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				s.Progress = func(phase string, done, total int64) {
					if phase == PhaseDownload && refused > 0 && total == a.Size && done > most {
						cancel()
					}
				}
				s.SetPatience(Patience{})
				_, err := s.Stage(ctx, s.Host(release.MustVersion(streamed)), rel, a, func() {})
				return err
			}
			if err := stage(1<<20 + 1<<19); !errors.Is(err, context.Canceled) {
				t.Fatalf("not interrupted: %v", err)
			}
			before := asked.all()
			st, err := os.Stat(s.Layout.Download(a.SHA256))
			if err != nil || st.Size() <= 1<<20 {
				t.Fatalf("%v, %v", st, err)
			}
			if err := stage(a.Size); err != nil {
				t.Fatal(err)
			}
			if got := strings.TrimPrefix(strings.TrimPrefix(asked.all(), before), ", "); st.Size() < a.Size && got != fmt.Sprintf("tar.gz %d", st.Size()) || st.Size() == a.Size && got != "" {
				t.Errorf("with %d bytes of the tarball, the node asked for %s", st.Size(), got)
			}
			if n := left(t, s); strings.Contains(n, "unverified") {
				t.Errorf("left: %s", n)
			}
		})
	}
}

// A tar.zst without the program costs the upgrade nothing but time.
func TestATarZstOfOtherFiles(t *testing.T) {
	t.Parallel()
	setup(t, nil)
	for _, name := range []string{"other", "edge-agent"} { // which is not executable
		var b bytes.Buffer
		w, err := pack.Writer(release.FormatZstd, &b, 1)
		if err != nil {
			t.Fatal(err)
		}
		archive := tar.NewWriter(w)
		err = archive.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o644})
		if err := errors.Join(err, archive.Close(), w.Close()); err != nil {
			t.Fatal(err)
		}
		s := setup(t, serving(&requests{}, map[string][]byte{".zst": b.Bytes()}))
		rel, a := fetch(t, s, streamed)
		signedZst(t, &a, b.Bytes())
		if _, err := s.Stage(t.Context(), s.Host(release.MustVersion(streamed)), rel, a, func() {}); err != nil {
			t.Errorf("with only %s in it: %v", name, err)
		}
	}
}

// A tarball that is refused for good leaves nothing of the tar.zst, whose link broke.
func TestARefusedReleaseLeavesNoDownload(t *testing.T) {
	t.Parallel()
	setup(t, nil)
	zst := formBytes(t, streamed, release.FormatZstd)
	bad := bytes.Repeat([]byte{1}, len(formBytes(t, streamed, release.FormatGzip)))
	s := setup(t, func(h http.Handler) http.Handler {
		good := serving(&requests{}, map[string][]byte{".tar.gz": bad})(h)
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			switch {
			case !strings.HasSuffix(r.URL.Path, ".tar.zst"):
				good.ServeHTTP(w, r)
			case r.Header.Get("Range") == "":
				breakOff(w, len(zst), zst[:5<<19])
			default:
				w.WriteHeader(http.StatusNotFound)
			}
		})
	})
	rel, a := fetch(t, s, streamed)
	if _, err := s.Stage(t.Context(), s.Host(release.MustVersion(streamed)), rel, a, func() {}); code(err) != release.ChecksumMismatch {
		t.Errorf("got %v", err)
	}
	if n := left(t, s); strings.Contains(n, "unverified") {
		t.Errorf("left: %s", n)
	}
}

// A mirror of several machines may give each its own entity tag. A chunk is proved whichever of
// them sends it.
func TestChunksNeedNoEntityTag(t *testing.T) {
	t.Parallel()
	setup(t, nil)
	var tag atomic.Int32
	var asked requests
	s := setup(t, func(h http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if !strings.HasSuffix(r.URL.Path, ".tar.zst") {
				h.ServeHTTP(w, r)
				return
			}
			asked.add(r)
			w.Header().Set("ETag", fmt.Sprintf(`"%d"`, tag.Add(1)))
			http.ServeContent(&cutting{w, 3 << 19}, r, "", time.Time{}, bytes.NewReader(formBytes(t, streamed, release.FormatZstd)))
		})
	})
	rel, a := fetch(t, s, streamed)
	if _, err := s.Stage(t.Context(), s.Host(release.MustVersion(streamed)), rel, a, func() {}); err != nil {
		t.Fatal(err)
	}
	if got, want := asked.all(), "tar.zst, tar.zst 1048576, tar.zst 2097152"; got != want {
		t.Errorf("asked %s, want %s", got, want)
	}
}
