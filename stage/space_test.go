package stage

import (
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/bilbycast/edge-agent/fsutil"
	"github.com/bilbycast/edge-agent/internal/state"
	"github.com/bilbycast/edge-agent/release"
)

// onDisk moves the Stager's root to a tmpfs of that size.
func onDisk(t *testing.T, s *Stager, size string) {
	t.Helper()
	mount(t, s.Layout.Root(), "tmpfs", "tmpfs", 0, "size="+size)
}

// fill makes a file of n bytes.
func fill(t *testing.T, path string, n int64) {
	t.Helper()
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := io.CopyN(f, zeros{}, n); err != nil {
		t.Fatal(err)
	}
}

// A host that sends no length, and no end, stops at the reserve; the file is
// removed. Elsewhere on the node nobody runs out of space.
func TestADownloadWithoutALengthKeepsAReserve(t *testing.T) {
	t.Parallel()
	for _, size := range []string{"12M", "24M", "64M", "200M"} {
		t.Run(size, func(t *testing.T) {
			t.Parallel()
			var s *Stager
			least := ^uint64(0)
			s = setup(t, tarballs(func(w http.ResponseWriter, r *http.Request, _ http.Handler) {
				w.(http.Flusher).Flush() // no length
				junk := make([]byte, 64<<10)
				for {
					if _, err := w.Write(junk); err != nil {
						return
					}
				}
			}))
			onDisk(t, s, size)
			s.Progress = func(string, int64, int64) {
				if f, err := fsutil.Free(s.Layout.Root()); err == nil {
					least = min(least, f.Bytes)
				}
			}
			if err := s.Layout.Make(); err != nil {
				t.Fatal(err)
			}
			rel, a := fetch(t, s, "1.0.0")
			a.Size, a.UnpackedSize = 0, 0
			_, err := s.Stage(t.Context(), s.Host(rel.Manifest().Version), rel, a, func() { t.Error("reported as downloaded") })
			if code(err) != release.DiskFull || !strings.Contains(err.Error(), "a tarball without a stated length") {
				t.Errorf("got %v", err)
			}
			if size != "12M" && least < reserve {
				t.Errorf("%d bytes were left, less than %d", least, reserve)
			}
			if got := left(t, s); got != empty {
				t.Errorf("left behind: %s", got)
			}
		})
	}
}

// One that is small arrives without a length, too.
func TestADownloadWithoutALength(t *testing.T) {
	t.Parallel()
	s := setup(t, tarballs(func(w http.ResponseWriter, r *http.Request, next http.Handler) {
		w.(http.Flusher).Flush()
		next.ServeHTTP(w, r)
	}))
	rel, a := fetch(t, s, "1.0.0")
	a.Size, a.UnpackedSize = 0, 0
	if _, err := s.Stage(t.Context(), s.Host(rel.Manifest().Version), rel, a, func() {}); err != nil {
		t.Fatal(err)
	}
}

// Releases that failed fill the disk. The good one that follows fits, because
// they go first, one at a time; those that are needed stay.
func TestFailedVersionsMakeRoom(t *testing.T) {
	t.Parallel()
	for _, keep := range []int{0, 2, 9} {
		s := setup(t, nil)
		onDisk(t, s, "32M")
		s.KeepVersions = keep
		l := s.Layout
		install(t, l, "0.9.0", "0.8.0", "0.9.1", "0.9.2", "0.9.3", "0.9.4")
		for _, v := range []string{"0.9.1", "0.9.2", "0.9.3", "0.9.4"} {
			fill(t, filepath.Join(l.Versions(), v, "edge-agent"), 7<<20)
		}
		set(t, l, func(st *state.State, tr *state.Tree) {
			st.Status, st.Target, tr.Previous = state.RolledBack, release.MustVersion("0.9.4"), release.MustVersion("0.8.0")
		})
		fill(t, filepath.Join(l.Root(), "ballast"), 3<<20)
		rel, a := fetch(t, s, "1.0.0")
		_, err := s.Stage(t.Context(), s.Host(rel.Manifest().Version), rel, a, func() {})
		got := installed(t, l)
		switch keep {
		case 0:
			if code(err) != release.DiskFull {
				t.Errorf("keep 0: %v", err)
			}
		case 2:
			if err != nil || got != "[1.0.0 0.9.0 0.8.0]" {
				t.Errorf("keep 2: %s: %v", got, err)
			}
		case 9: // only as many as needed
			if err != nil || got != "[1.0.0 0.9.3 0.9.2 0.9.1 0.9.0 0.8.0]" && got != "[1.0.0 0.9.4 0.9.3 0.9.2 0.9.0 0.8.0]" {
				t.Errorf("keep 9: %s: %v", got, err)
			}
		}
	}
}

// If nothing is left to remove, the reason names what could not be.
func TestNoRoom(t *testing.T) {
	t.Parallel()
	s := setup(t, tarballs(func(http.ResponseWriter, *http.Request, http.Handler) { t.Error("the tarball is asked for") }))
	s.KeepVersions = 3
	install(t, s.Layout, "0.9.0", "0.8.0", "0.7.0")
	mount(t, filepath.Join(s.Layout.Versions(), "0.7.0"), "tmpfs", "tmpfs", 0, "size=1M")
	rel, a := fetch(t, s, "1.0.0")
	a.UnpackedSize = release.MaxUnpacked << 20
	_, err := s.Stage(t.Context(), s.Host(rel.Manifest().Version), rel, a, func() {})
	if code(err) != release.DiskFull || !strings.Contains(err.Error(), "are needed") || !strings.Contains(err.Error(), "0.7.0 is a mount point") {
		t.Errorf("got %v", err)
	}
}

// downloads/ and versions/ may be links, or mount points; the space is looked
// at where the bytes go.
func TestDirectoriesOnOtherFileSystems(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		small string // the directory that is on a small file system
		want  release.Code
	}{
		"both fit":            {"", ""},
		"downloads are small": {"downloads", release.DiskFull},
		"versions are small":  {"versions", release.DiskFull},
	} {
		for _, linked := range []bool{false, true} {
			s := setup(t, nil)
			for _, dir := range []string{"downloads", "versions"} {
				at := filepath.Join(s.Layout.Root(), dir)
				if linked {
					target := t.TempDir()
					if err := os.Symlink(target, at); err != nil {
						t.Fatal(err)
					}
					at = target
				} else if err := os.Mkdir(at, 0o755); err != nil {
					t.Fatal(err)
				}
				size := "size=16M"
				if dir == tt.small {
					size = "size=1000K"
				}
				mount(t, at, "tmpfs", "tmpfs", 0, size)
			}
			l := s.Layout
			rel, a := fetch(t, s, "1.0.0")
			if _, err := s.Stage(t.Context(), s.Host(rel.Manifest().Version), rel, a, func() {}); tt.want == "" && err != nil || tt.want != "" && (code(err) != tt.want || !strings.Contains(err.Error(), filepath.Join(l.Root(), tt.small)+" has")) {
				t.Errorf("%s, links %v: %v", name, linked, err)
			}
		}
	}
}
