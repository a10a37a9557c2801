package stage

import (
	"context"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/bilbycast/edge-agent/fsutil"
	"github.com/bilbycast/edge-agent/internal/oddfs"
	"github.com/bilbycast/edge-agent/internal/state"
	"github.com/bilbycast/edge-agent/release"
	"golang.org/x/sys/unix"
)

// A file system that cannot reserve space is no reason to refuse a release.
func TestReservingIsNoCondition(t *testing.T) {
	t.Parallel()
	fs := oddfs.Mount(t, nil)
	for _, errno := range []unix.Errno{unix.EINVAL, unix.EPERM, unix.EOPNOTSUPP, unix.ENOSYS} {
		s := setup(t, nil)
		s.Layout = layoutAt(t, filepath.Join(fs.Dir, errno.Error()))
		fs.Refuse(t, oddfs.Refusals{oddfs.Reserve: errno})
		rel, a := fetch(t, s, newVersion)
		if _, err := s.Stage(t.Context(), s.Host(rel.Manifest().Version), rel, a, func() {}); err != nil {
			t.Errorf("%v: %v", errno, err)
		}
	}
}

func layoutAt(t *testing.T, root string) state.Layout {
	t.Helper()
	l, err := state.At(root)
	if err == nil {
		err = os.Mkdir(root, 0o755)
	}
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// failing is a disk whose changes of one kind fail, from the first after so many on.
type failing struct {
	kind  fsutil.OpKind
	part  string // of the path
	err   error
	after int
}

func (f *failing) Change(op fsutil.Op, make func() error) error {
	if op.Kind == f.kind && strings.Contains(op.Path, f.part) {
		if f.after--; f.after < 0 {
			return f.err
		}
	}
	return make()
}

// A fault of the download's file has its own code, and is not tried again as one of the network.
func TestAFaultOfTheDiskIsNotTheNetworks(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		seam failing
		text string
		code release.Code
	}{
		"write":                     {failing{kind: fsutil.OpWrite, err: unix.EIO}, "write the download: input/output error: the disk is failing", ""},
		"write, later":              {failing{kind: fsutil.OpWrite, err: unix.EIO, after: 1}, "write the download", ""},
		"became read-only":          {failing{kind: fsutil.OpWrite, err: unix.EROFS, after: 1}, "remount", ""},
		"the largest file":          {failing{kind: fsutil.OpWrite, err: unix.EFBIG, after: 1}, "LimitFSIZE=", ""},
		"full":                      {failing{kind: fsutil.OpWrite, err: unix.ENOSPC, after: 1}, "the disk is full", release.DiskFull},
		"quota":                     {failing{kind: fsutil.OpWrite, err: unix.EDQUOT, after: 1}, "the disk is full", release.DiskFull},
		"shorten":                   {failing{kind: fsutil.OpTruncate, err: unix.EIO}, "shorten the download", ""},
		"create":                    {failing{kind: fsutil.OpCreate, err: unix.EIO}, "open the download: input/output error", ""},
		"too many files":            {failing{kind: fsutil.OpCreate, err: unix.EMFILE}, "open the download: too many open files", ""},
		"create on a full disk":     {failing{kind: fsutil.OpCreate, err: unix.ENOSPC}, "the disk is full", release.DiskFull},
		"create where nothing can":  {failing{kind: fsutil.OpCreate, err: unix.EROFS}, "remount", ""},
		"create in a file too many": {failing{kind: fsutil.OpCreate, err: unix.EDQUOT}, "the disk is full", release.DiskFull},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var requests atomic.Int32
			s := setup(t, tarballs(func(w http.ResponseWriter, r *http.Request, next http.Handler) {
				requests.Add(1)
				next.ServeHTTP(w, r)
			}))
			rel, a := fetch(t, s, "1.0.0")
			if tt.seam.kind == fsutil.OpTruncate { // a leftover that is too long
				if err := s.Layout.Make(); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(s.Layout.Download(a.SHA256), make([]byte, a.Size+1), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			tt.seam.part = state.UnverifiedSuffix
			s.Layout = s.Layout.On(fsutil.Disk{Seam: &tt.seam})
			if tt.code == "" {
				tt.code = release.Internal
			}
			_, err := s.Stage(t.Context(), s.Host(rel.Manifest().Version), rel, a, func() { t.Error("reported as downloaded") })
			if code(err) != tt.code || !strings.Contains(err.Error(), tt.text) || strings.Contains(err.Error(), "tries") {
				t.Errorf("got %s: %v", code(err), err)
			}
			if n := requests.Load(); n > 1 {
				t.Errorf("%d requests", n)
			}
		})
	}
}

// The same for what no seam sees: to reserve, to read again, and to ask for free space.
func TestAFaultOfTheFileSystemIsNotTheNetworks(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		refuse oddfs.Refusals
		text   string
		code   release.Code
	}{
		"reserve":            {oddfs.Refusals{oddfs.Reserve: unix.EIO}, "reserve space for the download: reserve", release.Internal},
		"reserve, too large": {oddfs.Refusals{oddfs.Reserve: unix.EFBIG}, "LimitFSIZE=", release.Internal},
		"reserve, full":      {oddfs.Refusals{oddfs.Reserve: unix.ENOSPC}, "the disk is full", release.DiskFull},
		"write":              {oddfs.Refusals{oddfs.Write: unix.EIO}, "write the download", release.Internal},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			fs := oddfs.Mount(t, nil)
			var requests atomic.Int32
			s := setup(t, tarballs(func(w http.ResponseWriter, r *http.Request, next http.Handler) {
				requests.Add(1)
				next.ServeHTTP(w, r)
			}))
			s.Layout = layoutAt(t, filepath.Join(fs.Dir, "root"))
			rel, a := fetch(t, s, "1.0.0")
			if err := s.Layout.Make(); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(s.Layout.Download(a.SHA256), make([]byte, 10), 0o600); err != nil {
				t.Fatal(err)
			}
			fs.Refuse(t, tt.refuse)
			_, err := s.Stage(t.Context(), s.Host(rel.Manifest().Version), rel, a, func() { t.Error("reported as downloaded") })
			if code(err) != tt.code || !strings.Contains(err.Error(), tt.text) || strings.Contains(err.Error(), "tries") {
				t.Errorf("got %s: %v", code(err), err)
			}
			if n := requests.Load(); n > 3 {
				t.Errorf("%d requests", n)
			}
		})
	}
}

// A clean-up job that removes the download, or its directory, while it grows does not harm.
func TestADownloadThatIsRemovedWhileItGrows(t *testing.T) {
	t.Parallel()
	for name, remove := range map[string]func(s *Stager, sha string) error{
		"the file":      func(s *Stager, sha string) error { return os.Remove(s.Layout.Download(sha)) },
		"the directory": func(s *Stager, sha string) error { return os.RemoveAll(s.Layout.Downloads()) },
		"its content":   func(s *Stager, sha string) error { return os.Truncate(s.Layout.Download(sha), 0) },
		"a part":        func(s *Stager, sha string) error { return os.Truncate(s.Layout.Download(sha), 1000) },
	} {
		for _, stated := range []bool{true, false} {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				var s *Stager
				var sha string
				removed := false
				s = setup(t, tarballs(func(w http.ResponseWriter, r *http.Request, next http.Handler) {
					if !removed {
						next.ServeHTTP(&pausing{w, 300 << 10, func() {
							removed = true
							for {
								if st, err := os.Stat(s.Layout.Download(sha)); err != nil || st.Size() > 100<<10 {
									break
								}
							}
							if err := remove(s, sha); err != nil {
								t.Error(err)
							}
						}}, r)
						return
					}
					next.ServeHTTP(w, r)
				}))
				rel, a := fetch(t, s, "1.0.0")
				if sha = a.SHA256; !stated {
					a.Size = 0
				}
				if _, err := s.Stage(t.Context(), s.Host(rel.Manifest().Version), rel, a, func() {}); err != nil {
					t.Error(err)
				}
				if !removed {
					t.Error("nothing was removed")
				}
			})
		}
	}
}

// pausing calls then, once, when n bytes have been written.
type pausing struct {
	http.ResponseWriter
	n    int
	then func()
}

func (p *pausing) Write(b []byte) (int, error) {
	if p.n -= len(b); p.n < 0 && p.then != nil {
		p.ResponseWriter.(http.Flusher).Flush()
		p.then()
		p.then = nil
	}
	return p.ResponseWriter.Write(b)
}

// What ends the extraction, and is not in the archive, is no fault of the release. The
// tarball stays for the next attempt.
func TestAFaultOfTheMachineWhileExtracting(t *testing.T) {
	t.Parallel()
	faults := []failing{
		{kind: fsutil.OpWrite, err: unix.EIO}, {kind: fsutil.OpCreate, err: unix.EMFILE}, {kind: fsutil.OpCreate, err: unix.ENFILE}, {kind: fsutil.OpWrite, err: unix.EROFS},
		{kind: fsutil.OpWrite, err: unix.EFBIG}, {kind: fsutil.OpSync, err: unix.EIO}, {kind: fsutil.OpSyncDir, err: unix.EIO}, {kind: fsutil.OpCreate, err: unix.ENOENT}, {kind: fsutil.OpMkdir, err: unix.EIO},
	}
	for _, errno := range []unix.Errno{ // of FUSE and network file systems, encryption, modules
		unix.EPERM, unix.ENOSYS, unix.EOPNOTSUPP, unix.EBUSY, unix.EINTR, unix.ETIMEDOUT, unix.EREMOTEIO, unix.ENOTCONN, unix.EHOSTDOWN,
		unix.ECONNREFUSED, unix.EBADF, unix.ENOTRECOVERABLE, unix.ENOKEY, unix.EKEYEXPIRED, unix.ECANCELED,
	} {
		faults = append(faults, failing{kind: fsutil.OpWrite, err: errno}, failing{kind: fsutil.OpCreate, err: errno})
	}
	faults = append(faults, failing{kind: fsutil.OpCreate, err: unix.EINVAL}) // of a file that the agent adds
	for _, tt := range faults {
		s := setup(t, nil)
		rel, a := fetch(t, s, newVersion)
		tt.part = state.PartialPrefix
		s.Layout = s.Layout.On(fsutil.Disk{Seam: &tt})
		_, err := s.Stage(t.Context(), s.Host(rel.Manifest().Version), rel, a, func() {})
		if release.CodeOf(err) != release.Internal {
			t.Errorf("%s %v: %s: %v", tt.kind, tt.err, release.CodeOf(err), err)
		}
		if _, err := os.Stat(s.Layout.Download(a.SHA256)); err != nil {
			t.Errorf("%s %v: %v", tt.kind, tt.err, err)
		}
	}
}

// An archive that the file system cannot store, by its names, has the code of the release.
func TestAnArchiveThatTheFileSystemCannotStore(t *testing.T) {
	t.Parallel()
	for _, errno := range ofArchive {
		s := setup(t, nil)
		rel, a := fetch(t, s, newVersion)
		s.Layout = s.Layout.On(fsutil.Disk{Seam: &failing{kind: fsutil.OpCreate, err: errno, part: state.PartialPrefix + newVersion + "/edge-agent"}})
		_, err := s.Stage(t.Context(), s.Host(rel.Manifest().Version), rel, a, func() {})
		if release.CodeOf(err) != release.ExtractFailed {
			t.Errorf("%v: %s: %v", errno, release.CodeOf(err), err)
		}
		if _, err := os.Stat(s.Layout.Download(a.SHA256)); err == nil {
			t.Errorf("%v: the tarball is kept", errno)
		}
	}
}

// What is left of a download may lie on a bad sector. It is downloaded again, and the attempt
// fails only if the new file cannot be read either. Then the next one begins as well as this.
func TestALeftoverThatCannotBeRead(t *testing.T) {
	t.Parallel()
	for name, mended := range map[string]bool{"the old file": true, "the new one as well": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			o := oddfs.Mount(t, nil)
			requests := 0
			s := setup(t, tarballs(func(w http.ResponseWriter, r *http.Request, next http.Handler) {
				if requests++; mended {
					o.Refuse(t, nil)
				}
				if r.Header.Get("Range") != "" {
					t.Error("what cannot be read is continued")
				}
				next.ServeHTTP(w, r)
			}))
			s.Layout = layoutAt(t, filepath.Join(o.Dir, "root"))
			rel, a := fetch(t, s, "1.0.0")
			if err := s.Layout.Make(); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(s.Layout.Download(a.SHA256), make([]byte, 10), 0o600); err != nil {
				t.Fatal(err)
			}
			o.Refuse(t, oddfs.Refusals{oddfs.Read: unix.EIO})
			stage := func() error {
				_, err := s.Stage(t.Context(), s.Host(rel.Manifest().Version), rel, a, func() {})
				return err
			}
			err := stage()
			if mended && err != nil || !mended && (code(err) != release.Internal || !strings.Contains(err.Error(), "input/output error")) || requests != 1 {
				t.Errorf("%d requests: %s: %v", requests, code(err), err)
			}
			mended = true
			if err := stage(); err != nil {
				t.Errorf("the next attempt: %v", err)
			}
		})
	}
}

// A clean-up job that shortens the download each time is a fault of this machine, and soon
// reported as that.
func TestADownloadThatIsShortenedEachTime(t *testing.T) {
	t.Parallel()
	var s *Stager
	var sha string
	requests := 0
	s = setup(t, tarballs(func(w http.ResponseWriter, r *http.Request, next http.Handler) {
		requests++
		next.ServeHTTP(&pausing{w, 300 << 10, func() {
			for {
				if st, err := os.Stat(s.Layout.Download(sha)); err != nil || st.Size() > 100<<10 {
					break
				}
			}
			if err := os.Truncate(s.Layout.Download(sha), 0); err != nil {
				t.Error(err)
			}
		}}, r)
	}))
	rel, a := fetch(t, s, "1.0.0")
	sha = a.SHA256
	s.SetPatience(Patience{Limit: 24 * time.Hour})
	_, err := s.Stage(t.Context(), s.Host(rel.Manifest().Version), rel, a, func() {})
	if code(err) != release.Internal || !strings.Contains(err.Error(), "exclude the install root from clean-up jobs") || requests != s.Tries {
		t.Errorf("%d requests: %s: %v", requests, code(err), err)
	}
}

// A tarball that is shortened while it is unpacked is no bad release.
func TestATarballThatIsShortenedWhileItIsUnpacked(t *testing.T) {
	t.Parallel()
	s := setup(t, nil)
	rel, a := fetch(t, s, "1.0.0")
	s.Progress = func(phase string, done, _ int64) {
		if phase == PhaseExtract && done > 0 {
			os.Truncate(s.Layout.Download(a.SHA256), done)
		}
	}
	_, err := s.Stage(t.Context(), s.Host(rel.Manifest().Version), rel, a, func() {})
	if code(err) != release.Internal || !strings.Contains(err.Error(), "shortened the download while it was unpacked") {
		t.Errorf("%s: %v", code(err), err)
	}
}

// A staging that is stopped, as for a restart, keeps the tarball at each of its steps.
func TestAStagingThatIsStoppedKeepsTheTarball(t *testing.T) {
	t.Parallel()
	for _, at := range []string{PhaseExtract, PhaseCheck} {
		s := setup(t, nil)
		ctx, cancel := context.WithCancel(t.Context())
		s.Progress = func(phase string, _, _ int64) {
			if phase == at {
				cancel()
			}
		}
		rel, a := fetch(t, s, "1.0.0")
		if _, err := s.Stage(ctx, s.Host(rel.Manifest().Version), rel, a, func() {}); err == nil || ctx.Err() == nil {
			t.Errorf("%s: %v", at, err)
		}
		if st, err := os.Stat(s.Layout.Download(a.SHA256)); err != nil || st.Size() != a.Size {
			t.Errorf("%s: %v", at, err)
		}
	}
}
