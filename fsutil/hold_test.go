package fsutil_test

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/bilbycast/edge-agent/fsutil"
)

// A child does not inherit the lock of a process's life.
func TestAChildDoesNotKeepTheLock(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "lock")
	lock, err := fsutil.HoldFile(t.Context(), path, 0)
	if err != nil {
		t.Fatal(err)
	}
	started(t, exec.Command("sleep", "600"))
	if _, err := fsutil.HoldFile(t.Context(), path, 0); !errors.Is(err, fsutil.ErrLocked) {
		t.Errorf("while it is held: %v", err)
	}
	if by := fsutil.LockedBy(path); !strings.HasPrefix(by, fmt.Sprintf("process %d (%s", os.Getpid(), os.Args[0])) {
		t.Errorf("held by %s", by)
	}
	lock.Unlock()
	// Children of parallel tests keep it until they execute.
	if lock, err = fsutil.HoldFile(t.Context(), path, 10*time.Second); err != nil {
		t.Fatal(err)
	}
	lock.Unlock()
}

// A killed holder's lock is free at once. A user who is not the agent's cannot keep an
// agent from running, and a wider mode does not let a second agent run.
func TestWhoHoldsALock(t *testing.T) {
	t.Parallel()
	needRoot(t)
	for uid, replaced := range map[uint32]bool{0: false, 1234: false, 65534: true} {
		dir, err := os.MkdirTemp("", "hold")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { os.RemoveAll(dir) })
		path := filepath.Join(dir, "lock")
		if err := errors.Join(os.WriteFile(path, nil, 0o644), os.Chmod(path, 0o644), os.Chmod(dir, 0o755), os.Chown(dir, 1234, 1234)); err != nil {
			t.Fatal(err)
		}
		cmd := exec.Command("flock", path, "sh", "-c", "echo held; exec sleep 600")
		cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Credential: &syscall.Credential{Uid: uid, Gid: uid}}
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		started(t, cmd)
		t.Cleanup(func() { syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) })
		if _, err := bufio.NewReader(out).ReadString('\n'); err != nil {
			t.Fatal(err)
		}
		lock, err := fsutil.HoldFile(t.Context(), path, 0)
		if replaced != (err == nil) || err != nil && !errors.Is(err, fsutil.ErrLocked) {
			t.Errorf("held by user %d: %v", uid, err)
		}
		if err != nil {
			syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
			if lock, err = fsutil.HoldFile(t.Context(), path, 10*time.Second); err != nil {
				t.Fatalf("after SIGKILL: %v", err)
			}
		}
		lock.Unlock()
	}
}
