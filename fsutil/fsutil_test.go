package fsutil

import (
	"bufio"
	"context"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func names(t *testing.T, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, e := range entries {
		out = append(out, e.Name())
	}
	return out
}

func TestWriteFileReplacesAndLeavesNothing(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path := filepath.Join(dir, "f")
	for _, text := range []string{"one", "two"} {
		if err := (Disk{}).WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if b, _ := os.ReadFile(path); string(b) != text {
			t.Errorf("got %q", b)
		}
	}
	if st, _ := os.Stat(path); st.Mode().Perm() != 0o600 {
		t.Errorf("mode %v", st.Mode())
	}
	if got := names(t, dir); len(got) != 1 {
		t.Errorf("left: %v", got)
	}
}

func TestWriteFileThatFailsKeepsTheOld(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path := filepath.Join(dir, "f")
	if err := os.MkdirAll(filepath.Join(path, "in the way"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := (Disk{}).WriteFile(path, []byte("x"), 0o600); err == nil {
		t.Error("a directory is replaced by a file")
	}
	if got := names(t, dir); len(got) != 1 {
		t.Errorf("left: %v", got)
	}
	if err := (Disk{}).WriteFile(filepath.Join(dir, "no/such/f"), nil, 0o600); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("got %v", err)
	}
}

// A reader that polls the link never finds it missing.
func TestSymlinkIsNeverMissing(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "current")
	if err := (Disk{}).Symlink("a", path); err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	stop := make(chan struct{})
	wg.Go(func() {
		for {
			if to, err := os.Readlink(path); err != nil || (to != "a" && to != "b") {
				t.Errorf("found %q, %v", to, err)
				return
			}
			select {
			case <-stop:
				return
			default:
			}
		}
	})
	for range 200 {
		for _, to := range []string{"b", "a"} {
			if err := (Disk{}).Symlink(to, path); err != nil {
				t.Fatal(err)
			}
		}
	}
	close(stop)
	wg.Wait()
	if got := names(t, filepath.Dir(path)); len(got) != 1 {
		t.Errorf("left: %v", got)
	}
}

func TestExchange(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	a, b := filepath.Join(dir, "a"), filepath.Join(dir, "b")
	for _, p := range []string{a, b} {
		if err := os.MkdirAll(filepath.Join(p, "was "+filepath.Base(p)), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := (Disk{}).Exchange(a, b); err != nil {
		t.Fatal(err)
	}
	if got := names(t, a); got[0] != "was b" {
		t.Errorf("a holds %v", got)
	}
	if err := (Disk{}).Exchange(a, filepath.Join(dir, "c")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("got %v", err)
	}
}

func TestRemoveAndMkdirRepeat(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for range 2 {
		if err := (Disk{}).Mkdir(filepath.Join(dir, "d"), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for range 2 {
		if err := (Disk{}).Remove(filepath.Join(dir, "d")); err != nil {
			t.Fatal(err)
		}
	}
}

func TestRenameAcrossDirectories(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	from, to := filepath.Join(dir, "x/f"), filepath.Join(dir, "y/f")
	for _, d := range []string{"x", "y"} {
		if err := os.Mkdir(filepath.Join(dir, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(from, []byte("f"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := (Disk{}).Rename(from, to); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(to); err != nil {
		t.Error(err)
	}
}

func TestReadFileRefusesNonFiles(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path := func(n string) string { return filepath.Join(dir, n) }
	if err := os.WriteFile(path("f"), []byte("12345"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("f", path("link")); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mkfifo(path("fifo"), 0o644); err != nil {
		t.Fatal(err)
	}
	if b, err := ReadFile(path("f"), 5); err != nil || string(b) != "12345" {
		t.Errorf("got %q, %v", b, err)
	}
	if _, err := ReadFile(path("f"), 4); !errors.Is(err, ErrTooLarge) {
		t.Errorf("got %v", err)
	}
	for _, n := range []string{"link", "fifo", ".", "none"} {
		if b, err := ReadFile(path(n), 100); err == nil {
			t.Errorf("%s is read: %q", n, b)
		}
	}
}

func TestFreeAndReserve(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s, err := Free(dir)
	if err != nil || s.Bytes == 0 || s.Inodes == 0 {
		t.Fatalf("got %+v, %v", s, err)
	}
	f, err := os.Create(filepath.Join(dir, "f"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := Reserve(f, 1<<20); err != nil {
		t.Fatal(err)
	}
	if st, _ := f.Stat(); st.Size() != 0 {
		t.Errorf("the file has %d bytes", st.Size())
	}
	if err := Reserve(f, 1<<60); err == nil || (!IsNoSpace(err) && !errors.Is(err, unix.EFBIG)) {
		t.Errorf("an exbibyte: %v", err)
	}
	if _, err := Free(filepath.Join(dir, "none")); err == nil {
		t.Error("a path that is not there has free space")
	}
}

func TestLockFile(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for path, lock := range map[string]func(context.Context, string, time.Duration) (*Lock, error){filepath.Join(dir, ".lock"): LockFile, dir: LockDir} {
		l, err := lock(t.Context(), path, 0)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := lock(t.Context(), path, 0); !errors.Is(err, ErrLocked) {
			t.Errorf("a second lock: %v", err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := lock(ctx, path, time.Hour); !errors.Is(err, context.Canceled) {
			t.Errorf("a lock that nobody waits for any more: %v", err)
		}
		got := make(chan error)
		go func() {
			l, err := lock(t.Context(), path, time.Hour)
			if err == nil {
				err = l.Unlock()
			}
			got <- err
		}()
		if err := l.Unlock(); err != nil {
			t.Fatal(err)
		}
		if err := <-got; err != nil {
			t.Errorf("after the unlock: %v", err)
		}
	}
}

// The kernel releases a lock when its holder ends, even when it is killed.
func TestLockOfADeadProcess(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), ".lock")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	// flock(1) holds the lock, prints a line, and never releases it.
	cmd := exec.Command("flock", path, "sh", "-c", "echo held; exec sleep 600")
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := bufio.NewReader(out).ReadString('\n'); err != nil {
		t.Fatal(err)
	}
	if _, err := LockFile(t.Context(), path, 0); !errors.Is(err, ErrLocked) {
		t.Errorf("while it lives: %v", err)
	}
	syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
	cmd.Wait()
	l, err := LockFile(t.Context(), path, 10*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	l.Unlock()
}

// A user who opened the lock file of an earlier version, which all users could read,
// cannot block the lock any more.
func TestALockThatOthersCouldOpenIsReplaced(t *testing.T) {
	t.Parallel()
	for _, mode := range []os.FileMode{0o644, 0o640, 0o604, 0o666} {
		path := filepath.Join(t.TempDir(), ".lock")
		if err := errors.Join(os.WriteFile(path, nil, mode), os.Chmod(path, mode)); err != nil {
			t.Fatal(err)
		}
		other, err := os.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		defer other.Close()
		if err := unix.Flock(int(other.Fd()), unix.LOCK_EX); err != nil {
			t.Fatal(err)
		}
		l, err := LockFile(t.Context(), path, 0)
		if err != nil {
			t.Fatalf("mode %04o: %v", mode, err)
		}
		if st, err := os.Stat(path); err != nil || st.Mode().Perm() != 0o600 {
			t.Errorf("mode %04o: now %v, %v", mode, st.Mode(), err)
		}
		if _, err := LockFile(t.Context(), path, 0); !errors.Is(err, ErrLocked) {
			t.Errorf("mode %04o: a second lock: %v", mode, err)
		}
		l.Unlock()
	}
}
