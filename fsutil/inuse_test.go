package fsutil_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/bilbycast/edge-agent/fsutil"
	"golang.org/x/sys/unix"
)

// program lays out a directory that others can enter, with a copy of sleep(1) and a data
// file.
func program(t *testing.T) (dir, app, data string) {
	t.Helper()
	top, err := os.MkdirTemp("", "inuse")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(top) })
	dir = filepath.Join(top, "1.0.0")
	app, data = filepath.Join(dir, "app"), filepath.Join(dir, "sub", "data")
	if err := errors.Join(os.Chmod(top, 0o755), os.MkdirAll(filepath.Dir(data), 0o755)); err != nil {
		t.Fatal(err)
	}
	// By another process: children of parallel tests could inherit files that this one has
	// open, and keep them open until they execute.
	for _, file := range []string{app, data} {
		if out, err := exec.Command("cp", "/bin/sleep", file).CombinedOutput(); err != nil {
			t.Fatalf("%s: %v", out, err)
		}
	}
	return dir, app, data
}

// started runs cmd until the test ends.
func started(t *testing.T, cmd *exec.Cmd) {
	t.Helper()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
}

// announced is started for a shell script. It returns when the script writes a line.
func announced(t *testing.T, script string) {
	t.Helper()
	cmd := exec.Command("sh", "-c", script)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	started(t, cmd)
	t.Cleanup(func() { syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) })
	if _, err := bufio.NewReader(out).ReadString('\n'); err != nil {
		t.Fatalf("%s: %v", script, err)
	}
}

func TestInUseSeesEveryUse(t *testing.T) {
	t.Parallel()
	for want, use := range map[string]struct {
		begin func(t *testing.T, dir, app, data string)
		root  bool
	}{
		"(app) executes": {begin: func(t *testing.T, _, app, _ string) { started(t, exec.Command(app, "600")) }},
		"(sleep) has its working directory in": {begin: func(t *testing.T, _, _, data string) {
			cmd := exec.Command("sleep", "600")
			cmd.Dir = filepath.Dir(data)
			started(t, cmd)
		}},
		"(sleep) has opened": {begin: func(t *testing.T, _, _, data string) {
			cmd := exec.Command("sleep", "600")
			f, err := os.Open(data)
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			cmd.Stdin = f
			started(t, cmd)
		}},
		"has mapped": {begin: func(t *testing.T, _, _, data string) {
			f, err := os.Open(data)
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			m, err := unix.Mmap(int(f.Fd()), 0, 4096, unix.PROT_READ, unix.MAP_SHARED)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { unix.Munmap(m) })
		}},
		"has its root in": {root: true, begin: func(t *testing.T, dir, _, _ string) {
			if _, err := exec.LookPath("perl"); err != nil {
				t.Skip("NOT TESTED with another root: perl is missing")
			}
			announced(t, fmt.Sprintf(`exec perl -e '$| = 1; chroot "%s" or die; print "in\n"; sleep 600'`, dir))
		}},
		// The container of a second service: its path of the directory is another one.
		"(app) has mapped /mnt": {root: true, begin: func(t *testing.T, dir, _, _ string) {
			announced(t, fmt.Sprintf("exec unshare -m sh -c 'mount --bind %s /mnt && echo in && cd / && exec /mnt/app 600'", dir))
		}},
	} {
		t.Run(want, func(t *testing.T) {
			t.Parallel()
			if use.root {
				needRoot(t)
			}
			dir, app, data := program(t)
			if by, err := fsutil.InUse(t.Context(), dir); by != "" || err != nil {
				t.Fatalf("before: %q, %v", by, err)
			}
			use.begin(t, dir, app, data)
			by, err := fsutil.InUse(t.Context(), dir)
			for deadline := time.Now().Add(10 * time.Second); !strings.Contains(by, want) && err == nil && time.Now().Before(deadline); {
				runtime.Gosched() // a shell announces the program before it executes it
				by, err = fsutil.InUse(t.Context(), dir)
			}
			if !strings.Contains(by, want) || err != nil {
				t.Errorf("%q, %v", by, err)
			}
			if by, err := fsutil.InUse(t.Context(), dir+"/sub/../../1.0"); by != "" || err != nil {
				t.Errorf("another directory: %q, %v", by, err)
			}
		})
	}
}

// asUser runs f as another user without any capability. Its thread ends with it.
func asUser(t *testing.T, uid int, f func()) {
	t.Helper()
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // and never unlocked
		done <- func() error {
			if _, _, err := syscall.RawSyscall(syscall.SYS_SETFSUID, uintptr(uid), 0, 0); err != 0 {
				return err
			}
			if err := unix.Capset(&unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}, &make([]unix.CapUserData, 2)[0]); err != nil {
				return err
			}
			f()
			return nil
		}()
	}()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}

// /proc does not show another user what a process executes and opens. The files show it,
// also where their mode forbids one of the two questions.
func TestInUseSeesOtherUsers(t *testing.T) {
	t.Parallel()
	needRoot(t)
	const agent = 1234
	opened := func(t *testing.T, _, data string) { announced(t, "exec 3<"+data+"; echo opened; exec sleep 600") }
	executed := func(t *testing.T, app, _ string) { started(t, exec.Command(app, "600")) }
	for name, use := range map[string]struct {
		begin func(t *testing.T, app, data string)
		mode  os.FileMode // of the program
		owner int
		want  string
	}{
		"executed":                {begin: executed, mode: 0o755, owner: agent, want: "/app"},
		"executed, not writable":  {begin: executed, mode: 0o555, owner: agent, want: "/app"},
		"executed, not readable":  {begin: executed, mode: 0o311, owner: agent, want: "/app"},
		"executed, another owner": {begin: executed, mode: 0o777, owner: 0, want: "/app"},
		"opened":                  {begin: opened, mode: 0o755, owner: agent, want: "/sub/data"},
		"unused":                  {begin: func(*testing.T, string, string) {}, mode: 0o755, owner: agent},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir, app, data := program(t)
			if err := errors.Join(os.Chmod(app, use.mode), os.Chown(app, use.owner, 0), os.Chown(data, agent, 0)); err != nil {
				t.Fatal(err)
			}
			use.begin(t, app, data)
			var by string
			var err error
			asUser(t, agent, func() { by, err = fsutil.InUse(t.Context(), dir) })
			if want := "a process that this user cannot see has opened " + dir + use.want; use.want != "" && by != want || use.want == "" && by != "" || err != nil {
				t.Errorf("%q, %v", by, err)
			}
		})
	}
}

// In doubt a directory is in use; an absent one is not.
func TestInUseInDoubt(t *testing.T) {
	t.Parallel()
	dir, _, _ := program(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if by, err := fsutil.InUse(ctx, dir); by != "" || !errors.Is(err, context.Canceled) {
		t.Errorf("%q, %v", by, err)
	}
	if by, err := fsutil.InUse(t.Context(), dir+"/absent"); by != "" || err != nil {
		t.Errorf("%q, %v", by, err)
	}
}
