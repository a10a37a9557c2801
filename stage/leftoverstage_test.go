package stage

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/bilbycast/edge-agent/fsutil"
	"github.com/bilbycast/edge-agent/internal/state"
	"github.com/bilbycast/edge-agent/release"
)

// An upgrade that is stopped at half of the download writes each byte about once, in both
// processes together.
func TestAnInterruptedStreamIsNotWrittenTwice(t *testing.T) {
	t.Parallel()
	v := release.MustVersion(streamed)
	size := func(t *testing.T, dir string) (n int) {
		filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
			if err != nil { // it is not made yet
				return nil
			}
			if info, err := d.Info(); err == nil && d.Type().IsRegular() && !strings.HasPrefix(d.Name(), ".release.") {
				n += int(info.Size())
			}
			return nil
		})
		return n
	}
	interrupted := func(t *testing.T) (s, next *Stager, then *writes) {
		ctx, cancel := context.WithCancel(t.Context())
		s = setup(t, func(h http.Handler) http.Handler {
			return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if strings.HasSuffix(r.URL.Path, ".tar.zst") {
					w = &cutting{w, 5 << 19}
				}
				h.ServeHTTP(w, r)
			})
		})
		s.Progress = func(phase string, done, _ int64) {
			if phase != PhaseDownload || done != 5<<19 || ctx.Err() != nil {
				return
			}
			for tick := time.Tick(time.Millisecond); size(t, s.Layout.Partial(v)) < 1<<20 && t.Context().Err() == nil; <-tick {
			}
			cancel()
		}
		rel, a := fetch(t, s, streamed)
		if _, err := s.Stage(ctx, s.Host(release.MustVersion(streamed)), rel, a, func() {}); !errors.Is(err, context.Canceled) {
			t.Fatal(err)
		}
		then = &writes{}
		next = setup(t, nil)
		next.Layout, next.fromDisk = s.Layout.On(fsutil.Disk{Seam: then}), inMemory
		return s, next, then
	}
	stage := func(t *testing.T, s *Stager) {
		rel, a := fetch(t, s, streamed)
		if _, err := s.Stage(t.Context(), s.Host(release.MustVersion(streamed)), rel, a, func() {}); err != nil {
			t.Fatal(err)
		}
		if changes, err := Compare(t.Context(), s.Layout, release.MustVersion(streamed)); err != nil || len(changes) > 0 {
			t.Error(changes, err)
		}
		if got := left(t, s); strings.Contains(got, state.PartialPrefix) || strings.Contains(got, state.UnverifiedSuffix) {
			t.Error(got)
		}
	}

	t.Run("the next one", func(t *testing.T) {
		t.Parallel()
		s, next, then := interrupted(t)
		before := size(t, s.Layout.Partial(v))
		if err := next.Tidy(t.Context()); err != nil { // as at the start of an agent
			t.Fatal(err)
		}
		stage(t, next)
		if whole := size(t, s.Layout.Version(v)); then.bytes > whole-before {
			t.Errorf("%d bytes were written, of %d of which %d were there", then.bytes, whole, before)
		}
	})
	t.Run("of a disk that does not say", func(t *testing.T) {
		t.Parallel()
		s, next, then := interrupted(t)
		next.fromDisk = func(*os.File) (fromDisk, error) { return nil, errors.ErrUnsupported }
		stage(t, next)
		if whole := size(t, s.Layout.Version(v)); then.bytes != whole {
			t.Errorf("%d bytes were written of %d", then.bytes, whole)
		}
	})
	t.Run("without its download", func(t *testing.T) {
		t.Parallel()
		s, next, then := interrupted(t)
		if err := os.RemoveAll(s.Layout.Downloads()); err != nil {
			t.Fatal(err)
		}
		if err := next.Tidy(t.Context()); err != nil {
			t.Fatal(err)
		}
		stage(t, next)
		if whole := size(t, s.Layout.Version(v)); then.bytes != whole {
			t.Errorf("%d bytes were written of %d: the leftovers may be of another tarball", then.bytes, whole)
		}
	})
	t.Run("after a withdrawal", func(t *testing.T) {
		t.Parallel()
		s := setup(t, nil)
		ctx, withdraw := context.WithCancelCause(t.Context())
		s.Progress = func(phase string, _, _ int64) {
			if phase == PhaseCheck {
				withdraw(release.Errorf(release.Withdrawn, "withdrawn"))
			}
		}
		rel, a := fetch(t, s, streamed)
		if _, err := s.Stage(ctx, s.Host(v), rel, a, func() {}); err == nil {
			t.Fatal("it is staged")
		}
		if got := left(t, s); strings.Contains(got, state.PartialPrefix) {
			t.Errorf("nobody resumes it: %s", got)
		}
	})
	t.Run("of files that a process may use", func(t *testing.T) {
		t.Parallel()
		s, next, then := interrupted(t)
		if err := os.WriteFile(filepath.Join(s.Layout.Partial(v), Marker), []byte("{}"), 0o644); err != nil {
			t.Fatal(err)
		}
		stage(t, next)
		if whole := size(t, s.Layout.Version(v)); then.bytes != whole {
			t.Errorf("%d bytes were written of %d: old files of a version were changed in place", then.bytes, whole)
		}
	})
	t.Run("of another version", func(t *testing.T) {
		t.Parallel()
		_, next, _ := interrupted(t)
		rel, a := fetch(t, next, "1.0.0")
		if _, err := next.Stage(t.Context(), next.Host(release.MustVersion("1.0.0")), rel, a, func() {}); err != nil {
			t.Fatal(err)
		}
		if got := left(t, next); strings.Contains(got, state.PartialPrefix) {
			t.Error(got)
		}
	})
}

// Tidy keeps what is unpacked as long as its download, and nothing else that is partial.
func TestTidyKeepsWhatIsUnpackedOfADownload(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		download bool
		kept     []string
	}{
		"with a download":    {true, []string{".partial-1.2.0"}},
		"without a download": {false, nil},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := setup(t, nil)
			if err := s.Layout.Make(); err != nil {
				t.Fatal(err)
			}
			for _, dir := range []string{".partial-1.2.0", ".partial-1.1.0", ".partial-0.0.0-ability-1", ".partial-removed-1.0.0", ".partial-x"} {
				if err := os.Mkdir(filepath.Join(s.Layout.Versions(), dir), 0o755); err != nil {
					t.Fatal(err)
				}
			}
			err := os.WriteFile(filepath.Join(s.Layout.Versions(), ".partial-1.1.0", Marker), []byte("{}"), 0o644) // was replaced
			if tt.download {
				err = errors.Join(err, os.WriteFile(s.Layout.Download(strings.Repeat("0", 64)), []byte("x"), 0o600))
			}
			if err := errors.Join(err, s.Tidy(t.Context())); err != nil {
				t.Fatal(err)
			}
			var kept []string
			entries, err := os.ReadDir(s.Layout.Versions())
			for _, e := range entries {
				kept = append(kept, e.Name())
			}
			if err != nil || fmt.Sprint(kept) != fmt.Sprint(tt.kept) {
				t.Errorf("kept %v, want %v; %v", kept, tt.kept, err)
			}
		})
	}
}

// What was unpacked takes no room from the rest of a release that fits without it.
func TestWhatIsUnpackedMakesRoom(t *testing.T) {
	t.Parallel()
	disk := newSmallDisk(t)
	host := setup(t, nil)
	rel, a := fetch(t, host, streamed)
	s, err := at(host.Config, disk.root, nil)
	if err := errors.Join(err, os.Mkdir(disk.root, 0o755)); err != nil {
		t.Fatal(err)
	}
	leave(t, s, a, release.FormatZstd, 2<<20)
	partial := s.Layout.Partial(release.MustVersion(streamed))
	err = errors.Join(os.MkdirAll(partial, 0o755), os.WriteFile(filepath.Join(partial, "file"), make([]byte, 3<<20), 0o644))
	if err := errors.Join(err, disk.leave("bytes", need(a.Size, a.UnpackedSize)-4<<20)); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Stage(t.Context(), s.Host(release.MustVersion(streamed)), rel, a, func() {}); err != nil {
		t.Error(err)
	}
}
