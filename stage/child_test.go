package stage

import (
	"context"
	"errors"
	"github.com/bilbycast/edge-agent/internal/box"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/bilbycast/edge-agent/fsutil"
	"github.com/bilbycast/edge-agent/internal/state"
	"github.com/bilbycast/edge-agent/release"
)

// Processor time is what a program of a release is limited by. Time by the clock that it does
// not use is no reason to refuse it, until the limit by the clock.
func TestLimitsOfAChild(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		script string
		limits Limits
		want   string // "": it is sound
	}{
		"waits longer than its processor time": {"sleep 1.3", Limits{time.Second, time.Minute}, ""},
		"computes":                             {"while :; do :; done", Limits{time.Second, 5 * time.Minute}, "did not end within 1s of processor time: the device is slow"},
		"computes in a child":                  {"(while :; do :; done); exit 1", Limits{time.Second, 5 * time.Minute}, "did not end within 1s of processor time: the device is slow"},
		"waits":                                {"sleep 600", Limits{10 * time.Second, time.Second}, "did not end within 1s: the device is slow"},
		"is killed":                            {"kill -KILL $$", DefaultLimits, "because memory is short"},
		"fails":                                {"exit 3", DefaultLimits, "exit status 3"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			bin := filepath.Join(dir, "edge")
			if err := os.WriteFile(bin, []byte("#!/bin/sh\n"+tt.script+"\n"), 0o755); err != nil {
				t.Fatal(err)
			}
			_, err := execute(t.Context(), tt.limits, bin, dir, "version")
			err = unsound(err, "self-check", "edge", bin, "version")
			if tt.want == "" && err == nil {
				return
			}
			wanted := release.ExtractFailed
			if name == "is killed" { // for a fault of this machine
				wanted = release.Internal
			}
			if code(err) != wanted || tt.want == "" || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v\nwant %q", err, tt.want)
			}
			if device := tt.want != "exit status 3"; ofDevice(err) != device {
				t.Errorf("of this device: %t, want %t", !device, device)
			}
		})
	}
}

// The probe of an installed version has the same limit of processor time.
func TestAProbeThatComputes(t *testing.T) {
	t.Parallel()
	box.Slow(t)
	l, v := installedProgram(t, "while :; do :; done", release.CommandProbe)
	if r := Probe(t.Context(), l, v, ProbeArgs{Limit: 10 * time.Minute}); !errors.As(r.Err, new(*slowError)) || r.Answered || r.Held() {
		t.Errorf("%+v", r)
	}
}

// spoiling fails the changes of one kind below a path.
type spoiling struct {
	kind  fsutil.OpKind
	below string
	err   error
	stop  func() // instead of an error
	off   *atomic.Bool
}

func (s spoiling) Change(op fsutil.Op, make func() error) error {
	if op.Kind == s.kind && strings.Contains(op.Path, s.below) && !s.off.Load() {
		if s.stop == nil {
			return &os.PathError{Op: string(op.Kind), Path: op.Path, Err: s.err}
		}
		s.stop()
	}
	return make()
}

func keptDownload(a release.Artefact) string {
	return "downloads downloads/" + a.SHA256 + ".unverified outbox versions"
}

// What was downloaded and verified is kept if this device, and not the release, is the cause
// of a failure. The next attempt downloads nothing.
func TestADownloadOutlivesAFaultOfTheDevice(t *testing.T) {
	t.Parallel()
	for name, fault := range map[string]spoiling{
		"fsync fails":           {kind: fsutil.OpSync, err: syscall.EIO},
		"a directory's fsync":   {kind: fsutil.OpSyncDir, err: syscall.EIO},
		"read-only":             {kind: fsutil.OpCreate, err: syscall.EROFS},
		"no permission":         {kind: fsutil.OpMkdir, err: syscall.EACCES},
		"the process is to end": {kind: fsutil.OpCreate},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var fetched atomic.Int64
			s := setup(t, func(h http.Handler) http.Handler {
				return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					if strings.HasSuffix(r.URL.Path, ".tar.gz") {
						fetched.Add(1)
					}
					h.ServeHTTP(w, r)
				})
			})
			rel, a := fetch(t, s, "1.0.0")
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			fault.below, fault.off = ".partial-", &atomic.Bool{}
			if fault.err == nil {
				fault.stop = cancel
			}
			s.Layout = s.Layout.On(fsutil.Disk{Seam: fault})
			if _, err := s.Stage(ctx, s.Host(rel.Manifest().Version), rel, a, func() {}); err == nil || fault.err != nil && !errors.Is(err, fault.err) {
				t.Fatalf("got %v", err)
			}
			want := keptDownload(a)
			if fault.err == nil { // what is unpacked stays, too
				want += " versions/.partial-1.0.0 versions/.partial-1.0.0/" + state.DigestsFile
			}
			if got := left(t, s); got != want {
				t.Errorf("left: %s", got)
			}
			fault.off.Store(true)
			if _, err := s.Stage(t.Context(), s.Host(rel.Manifest().Version), rel, a, func() {}); err != nil || fetched.Load() != 1 {
				t.Errorf("%v, the tarball was requested %d times", err, fetched.Load())
			}
		})
	}
}

// A limit of zero is reached at once.
func TestALimitOfZero(t *testing.T) {
	t.Parallel()
	for _, l := range []Limits{{}, {CPU: time.Hour}, {Wall: 1}} {
		if _, err := execute(t.Context(), l, "/bin/sh", t.TempDir(), "-c", "exec sleep 300"); !errors.As(err, new(*slowError)) {
			t.Errorf("%+v: %v", l, err)
		}
	}
}
