package stage

import (
	"bufio"
	"errors"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/bilbycast/edge-agent/fsutil"
	"github.com/bilbycast/edge-agent/internal/state"
	"github.com/bilbycast/edge-agent/release"
	"golang.org/x/sys/unix"
)

// heldBy lets flock(1), as the user uid, hold the lock of path, and returns how
// to end it.
func heldBy(t *testing.T, uid int, path string) {
	t.Helper()
	cmd := exec.Command("flock", path, "sh", "-c", "echo held; exec sleep 600")
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Credential: &syscall.Credential{Uid: uint32(uid), Gid: uint32(uid)}}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
		cmd.Wait()
	})
	if _, err := bufio.NewReader(out).ReadString('\n'); err != nil {
		t.Fatal(err)
	}
}

// Another user, who could once open downloads/, holds its lock for ever. That does not
// prevent staging. The lock of an earlier version of the agent does.
func TestAnotherUserHoldsTheOldLock(t *testing.T) {
	t.Parallel()
	if os.Getuid() != 0 {
		t.Skip("needs root")
	}
	for uid, want := range map[int]release.Code{65534: "", 0: release.InProgress, 1234: release.InProgress} {
		t.Run(strconv.Itoa(uid), func(t *testing.T) {
			t.Parallel()
			s := setup(t, nil)
			root, err := os.MkdirTemp("", "held") // that another user can enter
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { os.RemoveAll(root) })
			l, err := state.At(root)
			if err != nil {
				t.Fatal(err)
			}
			if err := errors.Join(os.Chmod(root, 0o755), l.Make(), os.Chmod(l.Downloads(), 0o755), os.Chown(l.Downloads(), 1234, 1234)); err != nil {
				t.Fatal(err)
			}
			s.Layout = l
			heldBy(t, uid, l.Downloads())
			rel, a := fetch(t, s, newVersion)
			_, err = s.Stage(t.Context(), s.Host(rel.Manifest().Version), rel, a, func() {})
			if want == "" && err != nil || want != "" && code(err) != want {
				t.Errorf("got %v", err)
			}
			if st, err := os.Stat(l.Downloads()); err != nil || st.Mode().Perm() != 0o700 {
				t.Errorf("downloads/ has mode %v: %v", st.Mode(), err)
			}
			if got, err := os.ReadDir(l.Downloads()); err != nil || len(got) != 0 {
				t.Errorf("left in downloads/: %v, %v", got, err)
			}
		})
	}
}

// What stands where staging expects a file, nothing waits for it, and what is
// in downloads/ is replaced.
func TestStageWithOtherKindsOfFiles(t *testing.T) {
	t.Parallel()
	for _, kind := range []string{"fifo", "directory", "link", "device"} {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			s := setup(t, nil)
			l := s.Layout
			rel, a := fetch(t, s, newVersion)
			v := rel.Manifest().Version
			outside := filepath.Join(t.TempDir(), "outside")
			if err := os.WriteFile(outside, []byte("outside"), 0o644); err != nil {
				t.Fatal(err)
			}
			if err := errors.Join(l.Make(), os.Mkdir(l.Version(v), 0o755)); err != nil {
				t.Fatal(err)
			}
			for _, path := range []string{l.Download(a.SHA256), l.StagingLock(), filepath.Join(l.Version(v), Marker), l.Partial(v)} {
				var err error
				switch kind {
				case "fifo":
					err = unix.Mkfifo(path, 0o644)
				case "directory":
					err = os.MkdirAll(filepath.Join(path, "not empty"), 0o755)
				case "link":
					err = os.Symlink(outside, path)
				case "device":
					if os.Getuid() != 0 {
						t.Skip("needs root")
					}
					err = unix.Mknod(path, unix.S_IFCHR|0o644, int(unix.Mkdev(1, 5)))
				}
				if err != nil {
					t.Fatal(err)
				}
			}
			done := make(chan error, 1)
			go func() {
				_, err := s.Stage(t.Context(), s.Host(rel.Manifest().Version), rel, a, func() {})
				done <- err
			}()
			select {
			case err := <-done:
				if err != nil {
					t.Error(err)
				}
			case <-time.After(30 * time.Second):
				t.Fatal("it waits")
			}
			if m, err := readMarker(l, v); err != nil || m.SHA256 != a.SHA256 {
				t.Errorf("marker: %v", err)
			}
			if b, err := os.ReadFile(outside); string(b) != "outside" {
				t.Errorf("what the links pointed to: %q, %v", b, err)
			}
		})
	}
}

// The files of a release on a stick: a FIFO is refused, and not waited for.
func TestSourcesOfOtherKinds(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	fifo := filepath.Join(dir, "fifo")
	if err := errors.Join(unix.Mkfifo(fifo, 0o644), os.Mkdir(filepath.Join(dir, "sub"), 0o755)); err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		if _, err := OpenSource(fifo); err == nil || !strings.Contains(err.Error(), fifo) {
			t.Errorf("a fifo as the source: %v", err)
		}
		source, err := OpenSource(dir)
		if err != nil {
			t.Error(err)
			return
		}
		defer source.Close()
		for _, name := range []string{"fifo", "sub"} {
			if p, err := source.Open(t.Context(), name, 0, ""); err == nil || !strings.Contains(err.Error(), name) {
				t.Errorf("%s: %v", name, err)
				p.Body.Close()
			}
		}
		if _, err := source.Open(t.Context(), "none", 0, ""); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("got %v", err)
		}
	}()
	select {
	case <-done:
	case <-time.After(30 * time.Second):
		t.Fatal("it waits")
	}
}

// A disk that is full when staging begins has its code, whatever is written first.
func TestFullDiskAtFirst(t *testing.T) {
	t.Parallel()
	for _, kind := range []fsutil.OpKind{fsutil.OpMkdir, fsutil.OpCreate, fsutil.OpWrite, fsutil.OpSync, fsutil.OpSyncDir} {
		s := setup(t, nil)
		rel, a := fetch(t, s, newVersion)
		s.Layout = s.Layout.On(fsutil.Disk{Seam: seam(func(op fsutil.Op, make func() error) error {
			if op.Kind == kind {
				return unix.ENOSPC
			}
			return make()
		})})
		if _, err := s.Stage(t.Context(), s.Host(rel.Manifest().Version), rel, a, func() {}); code(err) != release.DiskFull {
			t.Errorf("%s: %v", kind, err)
		}
	}
	s := setup(t, nil)
	install(t, s.Layout, "1.0.0")
	rel, a := fetch(t, s, newVersion)
	staged, err := s.Stage(t.Context(), s.Host(rel.Manifest().Version), rel, a, func() {})
	if err != nil {
		t.Fatal(err)
	}
	full := s.Layout.On(fsutil.Disk{Seam: seam(func(op fsutil.Op, make func() error) error {
		if op.Kind == fsutil.OpCreate {
			return unix.ENOSPC
		}
		return make()
	})})
	if _, err := Swap(t.Context(), full, staged, state.Trial{ID: "t", MaxAttempts: 2}); code(err) != release.DiskFull {
		t.Errorf("swap: %v", err)
	}
}

// A fault of the disk is not the network's, and no second try meets it.
func TestAFaultOfTheDiskIsFinal(t *testing.T) {
	t.Parallel()
	s := setup(t, nil)
	rel, a := fetch(t, s, newVersion)
	writes := 0
	s.Layout = s.Layout.On(fsutil.Disk{Seam: seam(func(op fsutil.Op, make func() error) error {
		if op.Kind == fsutil.OpWrite {
			writes++
			return io.ErrClosedPipe
		}
		return make()
	})})
	if _, err := s.Stage(t.Context(), s.Host(rel.Manifest().Version), rel, a, func() {}); code(err) != release.Internal || writes != 1 {
		t.Errorf("after %d writes: %v", writes, err)
	}
}

// On a disk without a free inode versions can still be removed; the lock of the
// directory alone then keeps others out.
func TestTheLockOnAFullDisk(t *testing.T) {
	t.Parallel()
	l := newLayout(t)
	mount(t, l.Root(), "tmpfs", "tmpfs", 0, "size=4M,nr_inodes=40")
	install(t, l, "1.0.0", "0.8.0", "0.9.0")
	for i := 0; ; i++ {
		if err := os.Mkdir(filepath.Join(l.Version(release.MustVersion("0.8.0")), strconv.Itoa(i)), 0o755); errors.Is(err, unix.ENOSPC) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
	}
	held, err := fsutil.LockDir(t.Context(), l.Downloads(), 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := lockStaging(t.Context(), l, 0); !errors.Is(err, fsutil.ErrLocked) {
		t.Errorf("while another holds it: %v", err)
	}
	held.Unlock()
	if err := Prune(t.Context(), l, 2, release.Version{}); err != nil {
		t.Fatal(err)
	}
	if got := installed(t, l); got != "[1.0.0 0.9.0]" {
		t.Errorf("left: %s", got)
	}
}

// A file that another user began is begun again.
func TestADownloadOfAnotherUser(t *testing.T) {
	t.Parallel()
	s := setup(t, nil)
	rel, a := fetch(t, s, newVersion)
	if err := errors.Join(s.Layout.Make(), os.WriteFile(s.Layout.Download(a.SHA256), []byte("root's"), 0o600)); err != nil {
		t.Fatal(err)
	}
	s.Layout = s.Layout.On(fsutil.Disk{Seam: seam(func(op fsutil.Op, make func() error) error {
		if b, err := os.ReadFile(op.Path); err == nil && op.Kind == fsutil.OpCreate && string(b) == "root's" {
			return &fs.PathError{Op: "open", Path: op.Path, Err: unix.EACCES}
		}
		return make()
	})})
	if _, err := s.Stage(t.Context(), s.Host(rel.Manifest().Version), rel, a, func() {}); err != nil {
		t.Error(err)
	}
}

// A cleaner empties or removes downloads/ while a release is on its way.
func TestDownloadsAreCleanedMeanwhile(t *testing.T) {
	t.Parallel()
	for name, phase := range map[string]string{"in the download": PhaseDownload, "in the extraction": PhaseExtract, "in the check": PhaseCheck} {
		for _, all := range []bool{true, false} {
			s := setup(t, nil)
			rel, a := fetch(t, s, "1.0.0")
			s.Progress = func(p string, done, _ int64) {
				if p != phase {
					return
				}
				if err := os.Remove(s.Layout.Download(a.SHA256)); err != nil && !errors.Is(err, fs.ErrNotExist) {
					t.Error(err)
				}
				if all {
					os.RemoveAll(s.Layout.Downloads())
				}
			}
			if _, err := s.Stage(t.Context(), s.Host(rel.Manifest().Version), rel, a, func() {}); err != nil {
				t.Errorf("%s, with the directory %v: %v", name, all, err)
			}
		}
	}
}
