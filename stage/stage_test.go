package stage

import (
	"encoding/pem"
	"errors"
	"flag"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/bilbycast/edge-agent/internal/box"
	"github.com/bilbycast/edge-agent/internal/state"
	"github.com/bilbycast/edge-agent/manager-sim/fakerelease"
	"github.com/bilbycast/edge-agent/release"
	"github.com/bilbycast/edge-agent/verify"
)

// published is where the releases of this package's tests are, made once.
var published struct {
	once sync.Once
	dir  string
	err  error
}

func TestMain(m *testing.M) {
	// A stager looks at every file of the CA store. The first one, with all authorities, is enough here.
	os.Setenv("SSL_CERT_DIR", os.DevNull)
	flag.Parse()
	if testing.Short() { // without those that compute most
		box.AtOnce(2 * runtime.GOMAXPROCS(0))
	}
	play()
	code := m.Run()
	if published.dir != "" {
		os.RemoveAll(published.dir)
	}
	os.Exit(code)
}

// padding makes tarballs long enough to be cut in the middle.
const padding = 1 << 20

func publishAll() error {
	dir, err := os.MkdirTemp("", "stage-releases")
	if err != nil {
		return err
	}
	published.dir = dir
	script := func(name, text string) string {
		path := filepath.Join(dir, name)
		err = errors.Join(err, os.WriteFile(path, []byte("#!/bin/sh\n"+text+"\n"), 0o755))
		return path
	}
	good := script("good", `test "$1" = version`)
	for _, o := range []fakerelease.Options{
		{Version: "1.0.0", Binary: good, PadBytes: padding, Commands: []string{release.CommandProbe, release.CommandConfigCheck}, FirstStartSecs: 600},
		{Version: "1.1.0", Binary: good, Fault: fakerelease.BadChecksum},
		{Version: "1.2.0", Binary: good, Fault: fakerelease.Truncated},
		{Version: "1.3.0", Binary: good, Fault: fakerelease.NotExecutable},
		{Version: "1.4.0", Binary: "/bin/sh", Fault: fakerelease.WrongArch},
		{Version: "1.5.0", Binary: script("fails", "echo no such library >&2; exit 3")},
		{Version: "1.6.0", Binary: script("hangs", "sleep 60")},
		{Version: "1.7.0", Binary: script("interp", "")},
		{Version: "1.8.0", Binary: good, BinaryName: "other"},
		{Version: twoMegabytes, Binary: good, PadBytes: 2_000_000},
		{Version: streamed, Binary: good, PadBytes: 3_300_000, Formats: []string{release.FormatZstd}, Chunks: true},
		{Version: smallStreamed, Binary: good, Formats: []string{release.FormatZstd}, Chunks: true},
		{Version: newVersion, Binary: good},
		{Version: neverHealthy, Binary: good},
		{Version: badChecksum, Binary: good, Fault: fakerelease.BadChecksum},
		{Version: notExecutable, Binary: good, Fault: fakerelease.NotExecutable},
	} {
		if o.Version == "1.7.0" {
			err = errors.Join(err, os.WriteFile(o.Binary, []byte("#!/no/such/interpreter\n"), 0o755))
		}
		_, e := fakerelease.Publish(dir, o)
		err = errors.Join(err, e)
	}
	return err
}

// trust is the trust in the releases of published.dir.
type trust = fakerelease.Trust

// setup returns a Stager of an empty root, with a release host that wrap, if
// given, may spoil.
func setup(t testing.TB, wrap func(http.Handler) http.Handler) *Stager {
	t.Helper()
	published.once.Do(func() { published.err = publishAll() })
	if published.err != nil {
		t.Fatal(published.err)
	}
	h := fakerelease.Handler(published.dir)
	if wrap != nil {
		h = wrap(h)
	}
	host := httptest.NewTLSServer(h)
	t.Cleanup(host.Close)
	l, err := state.At(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	x, err := fakerelease.NewTrust(published.dir, host.URL, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: host.Certificate().Raw}))
	if err != nil {
		t.Fatal(err)
	}
	s, err := New(Config{
		Layout: l, Binary: "edge-agent", FirstPause: time.Millisecond, MaxPause: 5 * time.Millisecond,
		Trust: x,
	})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// fetch verifies a release and returns what to stage of it.
func fetch(t testing.TB, s *Stager, version string) (verify.Release, release.Artefact) {
	t.Helper()
	rel, err := s.Fetch(t.Context(), s.Host(release.MustVersion(version)))
	if err != nil {
		t.Fatal(err)
	}
	return rel, rel.Manifest().Artefacts[0]
}

func code(err error) release.Code {
	var e *release.Error
	if errors.As(err, &e) {
		return e.Code
	}
	return release.Code(fmt.Sprintf("no code: %v", err))
}

// left lists every file and directory under the root, without the lock.
func left(t testing.TB, s *Stager) string {
	t.Helper()
	var names []string
	err := filepath.WalkDir(s.Layout.Root(), func(path string, d os.DirEntry, err error) error {
		if rel, _ := filepath.Rel(s.Layout.Root(), path); rel != "." && filepath.Base(rel) != ".lock" {
			names = append(names, rel)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return strings.Join(names, " ")
}

const empty = "downloads outbox versions"

func TestStage(t *testing.T) {
	t.Parallel()
	s := setup(t, nil)
	rel, a := fetch(t, s, "1.0.0")
	downloads := 0
	st, err := s.Stage(t.Context(), s.Host(rel.Manifest().Version), rel, a, func() { downloads++ })
	if err != nil {
		t.Fatal(err)
	}
	if st.Version().String() != "1.0.0" || downloads != 1 {
		t.Errorf("staged %s, reported the download %d times", st.Version(), downloads)
	}
	const complete = "downloads outbox versions versions/1.0.0 versions/1.0.0/.release.json versions/1.0.0/.release.sha256 versions/1.0.0/edge-agent versions/1.0.0/padding"
	if got := left(t, s); got != complete {
		t.Errorf("on disk: %s", got)
	}
	before, _ := os.Stat(s.Layout.Version(st.Version()))
	if _, err := s.Stage(t.Context(), s.Host(rel.Manifest().Version), rel, a, func() { downloads++ }); err != nil || downloads != 2 {
		t.Errorf("staging again: %v, reported the download %d times", err, downloads)
	}
	if after, _ := os.Stat(s.Layout.Version(st.Version())); !os.SameFile(before, after) {
		t.Error("a version that is there already is made again")
	}
}

func TestStageReplacesAVersionMadeByHand(t *testing.T) {
	t.Parallel()
	s := setup(t, nil)
	rel, a := fetch(t, s, "1.0.0")
	if err := s.Layout.Make(); err != nil {
		t.Fatal(err)
	}
	dir := s.Layout.Version(rel.Manifest().Version)
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "edge-agent"), []byte("by hand"), 0o755); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Stage(t.Context(), s.Host(rel.Manifest().Version), rel, a, func() {}); err != nil {
		t.Fatal(err)
	}
	if b, _ := os.ReadFile(filepath.Join(dir, "edge-agent")); string(b) == "by hand" {
		t.Error("the directory made by hand is still there")
	}
	if got := left(t, s); strings.Contains(got, state.PartialPrefix) {
		t.Errorf("on disk: %s", got)
	}
}

// A release that cannot run here is refused, and leaves nothing behind.
func TestStageRefusesWhatCannotRun(t *testing.T) {
	t.Parallel()
	for version, want := range map[string]struct {
		code release.Code
		text string
	}{
		"1.1.0": {release.ChecksumMismatch, "the signed manifest says 00000000"},
		"1.2.0": {release.ExtractFailed, "unexpected EOF"},
		"1.3.0": {release.ExtractFailed, "edge-agent of the release is not executable"},
		"1.4.0": {release.ArchMismatch, "cannot run on this machine"},
		"1.5.0": {release.ExtractFailed, "exit status 3: no such library"},
		"1.6.0": {release.ExtractFailed, "did not end within 300ms"},
		"1.7.0": {release.ArchMismatch, "needs a loader that this machine does not have"},
		"1.8.0": {release.ExtractFailed, "the release has no edge-agent"},
	} {
		t.Run(version, func(t *testing.T) {
			t.Parallel()
			s := setup(t, nil)
			if version == "1.6.0" {
				s.Check.Wall = 300 * time.Millisecond
			}
			rel, a := fetch(t, s, version)
			_, err := s.Stage(t.Context(), s.Host(rel.Manifest().Version), rel, a, func() {})
			if code(err) != want.code || !strings.Contains(err.Error(), want.text) {
				t.Errorf("got %s: %v\nwant %s: %s", code(err), err, want.code, want.text)
			}
			want := empty
			if version == "1.6.0" { // the device may be slow
				want = keptDownload(a)
			}
			if got := left(t, s); got != want {
				t.Errorf("left behind: %s", got)
			}
		})
	}
}

func TestStageRefusesUnverifiedBytes(t *testing.T) {
	t.Parallel()
	s := setup(t, nil)
	if _, err := s.Stage(t.Context(), s.Host(verify.Release{}.Manifest().Version), verify.Release{}, release.Artefact{}, func() {}); code(err) != release.Internal {
		t.Errorf("the zero release: %v", err)
	}
	if _, err := Swap(t.Context(), s.Layout, Staged{}, state.Trial{}); code(err) != release.Internal {
		t.Errorf("the zero staged release: %v", err)
	}
	if got := left(t, s); got != "" {
		t.Errorf("left behind: %s", got)
	}
}

func TestOnlyOneStagesAtATime(t *testing.T) {
	t.Parallel()
	s := setup(t, nil)
	rel, a := fetch(t, s, "1.0.0")
	inside := make(chan struct{})
	release2 := make(chan struct{})
	done := make(chan error)
	go func() {
		_, err := s.Stage(t.Context(), s.Host(rel.Manifest().Version), rel, a, func() { close(inside); <-release2 })
		done <- err
	}()
	<-inside
	if _, err := s.Stage(t.Context(), s.Host(rel.Manifest().Version), rel, a, func() {}); code(err) != release.InProgress {
		t.Errorf("got %v", err)
	}
	close(release2)
	if err := <-done; err != nil {
		t.Error(err)
	}
}
