package stage

import (
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"strings"
	"testing"

	"github.com/bilbycast/edge-agent/fsutil"
	"github.com/bilbycast/edge-agent/internal/state"
	"github.com/bilbycast/edge-agent/release"
	"golang.org/x/sys/unix"
)

// shortening is a disk of which another process shortens a download at the write of byte at, after
// the agent looked at its length. How many writes there are depends on the moment.
type shortening struct {
	at, to  int
	written int
	done    bool
	err     error
}

func (s *shortening) Change(op fsutil.Op, make func() error) error {
	if op.Kind == fsutil.OpWrite && strings.HasSuffix(op.Path, state.UnverifiedSuffix) {
		if s.written += len(op.Data); !s.done && s.written > s.at {
			s.done, s.err = true, os.Truncate(op.Path, int64(s.to))
		}
	}
	return make()
}

// A download that another process shortens in the instant before a write begins again; if
// it was the last write, the error names the cause. It is never the release's fault.
func TestADownloadThatIsShortenedInTheInstantOfAWrite(t *testing.T) {
	t.Parallel()
	for _, version := range []string{"1.0.0", newVersion, streamed} {
		whole := shortening{at: math.MaxInt}
		s := setup(t, nil)
		s.Layout = s.Layout.On(fsutil.Disk{Seam: &whole})
		rel, a := fetch(t, s, version)
		if _, err := s.Stage(t.Context(), s.Host(rel.Manifest().Version), rel, a, func() {}); err != nil {
			t.Fatal(err)
		}
		for at := downloadAhead; at < whole.written; at += (whole.written-downloadAhead)/8 + 1 { // not the first write
			for _, to := range []int{0, 1000} {
				t.Run(fmt.Sprintf("%s to %d at byte %d of %d", version, to, at, whole.written), func(t *testing.T) {
					t.Parallel()
					seam := shortening{at: at, to: to}
					s := setup(t, nil)
					s.Layout = s.Layout.On(fsutil.Disk{Seam: &seam})
					s.Note = func(text string) { t.Errorf("the release is blamed: %s", text) }
					rel, a := fetch(t, s, version)
					_, err := s.Stage(t.Context(), s.Host(rel.Manifest().Version), rel, a, func() {})
					if seam.err != nil || !seam.done {
						t.Fatalf("nothing was shortened: %v", seam.err)
					}
					if err != nil && (code(err) != release.Internal || !strings.Contains(err.Error(), "shortened")) {
						t.Error(err)
					}
				})
			}
		}
	}
}

// A fault of its own, while a download that was shortened before is unpacked, keeps its name: a
// full disk, and the stop of the process.
func TestAnotherFaultAfterADownloadWasShortened(t *testing.T) {
	t.Parallel()
	for _, version := range []string{"1.0.0", newVersion, streamed} {
		for name, want := range map[string]error{"full": unix.ENOSPC, "stopped": context.Canceled} {
			t.Run(version+" "+name, func(t *testing.T) {
				t.Parallel()
				s := setup(t, nil)
				ctx, stop := context.WithCancel(t.Context())
				s.Layout = s.Layout.On(fsutil.Disk{Seam: &thenFails{shortening: shortening{at: downloadAhead}, version: version, fail: func() error {
					if want == context.Canceled {
						stop()
						return nil
					}
					return want
				}}})
				rel, a := fetch(t, s, version)
				if _, err := s.Stage(ctx, s.Host(rel.Manifest().Version), rel, a, func() {}); !errors.Is(err, want) || strings.Contains(err.Error(), "shortened") {
					t.Error(err)
				}
			})
		}
	}
}

// thenFails is a disk that shortens a download, and calls fail when its program is unpacked.
type thenFails struct {
	shortening
	version string
	fail    func() error
}

func (f *thenFails) Change(op fsutil.Op, make func() error) error {
	if op.Kind == fsutil.OpCreate && strings.Contains(op.Path, state.PartialPrefix+f.version+"/edge-agent") {
		if err := f.fail(); err != nil {
			return err
		}
	}
	return f.shortening.Change(op, make)
}
