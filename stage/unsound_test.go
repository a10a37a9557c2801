package stage

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/bilbycast/edge-agent/release"
)

// Why a program does not run has the code of its cause: the release, what it was built for, or
// this machine.
func TestWhyAProgramDoesNotRun(t *testing.T) {
	t.Parallel()
	for script, want := range map[string]release.Code{
		"kill -ILL $$": release.ArchMismatch, // an instruction that the processor does not have
		"exit 132":     release.ArchMismatch, // the same, where a shell began the program
		"echo 'This program can only be run on AMD64 processors with v3 microarchitecture support.' >&2; exit 1": release.ArchMismatch,
		"echo './app: CPU ISA level is lower than required' >&2; exit 127":                                       release.ArchMismatch,
		"echo 'Fatal glibc error: CPU does not support x86-64-v2' >&2; exit 127":                                 release.ArchMismatch,
		"echo 'runtime: this CPU has no VFPv3 floating point hardware' >&2; exit 1":                              release.ArchMismatch,
		"kill -KILL $$":                   release.Internal, // by the kernel, without memory
		"kill -XFSZ $$":                   release.Internal, // a limit of the unit
		"kill -XCPU $$":                   release.Internal,
		"kill -TERM $$":                   release.Internal, // by systemd at a stop, or by earlyoom
		"exit 129":                        release.Internal, // SIGHUP, which a process may ignore from its start, as under nohup
		"exit 130":                        release.Internal, // SIGINT
		"kill -BUS $$":                    release.Internal, // a mapped file that cannot be read
		"exit 143":                        release.Internal, // SIGTERM, where a shell began the program
		"kill -SEGV $$":                   release.ExtractFailed,
		"exit 1":                          release.ExtractFailed,
		"echo 'illegal argument'; exit 2": release.ExtractFailed,
	} {
		bin := filepath.Join(t.TempDir(), "app")
		if err := os.WriteFile(bin, []byte("#!/bin/sh\n"+script+"\n"), 0o755); err != nil {
			t.Fatal(err)
		}
		_, err := execute(t.Context(), DefaultLimits, bin, filepath.Dir(bin), "version")
		if err := unsound(err, "self-check", "app", bin, "version"); code(err) != want {
			t.Errorf("%s: %s: %v", script, code(err), err)
		} else if ofDevice(err) != (want == release.Internal) { // then the tarball is kept
			t.Errorf("%s: of the device: %t", script, ofDevice(err))
		}
	}
	for _, err := range []error{
		&fs.PathError{Op: "open", Path: "/dev/null", Err: syscall.ENOENT},
		&fs.PathError{Op: "fork/exec", Path: "/v/app", Err: syscall.EAGAIN},
		&fs.PathError{Op: "fork/exec", Path: "/v/app", Err: syscall.ENOMEM},
		&fs.PathError{Op: "fork/exec", Path: "/v/app", Err: syscall.EIO},
		os.NewSyscallError("pipe2", syscall.EMFILE),
	} {
		if err := unsound(err, "self-check", "app", "/v/app", "version"); code(err) != release.Internal || !strings.Contains(err.Error(), "could not be started, for a fault of this machine") {
			t.Errorf("%s: %v", code(err), err)
		}
	}
}

// systemd stops all processes of a unit at once: the check that ends with this process says
// nothing about the release, also if this process gets to know later.
func TestACheckThatEndsWithTheProcess(t *testing.T) {
	t.Parallel()
	bin := filepath.Join(t.TempDir(), "app")
	if err := os.WriteFile(bin, []byte("#!/bin/sh\nkill -TERM $$\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancelCause(t.Context())
	stops := errors.New("the process stops")
	time.AfterFunc(200*time.Millisecond, func() { stop(stops) })
	if _, err := execute(ctx, DefaultLimits, bin, filepath.Dir(bin), "version"); !errors.Is(err, stops) {
		t.Error(err)
	}
}

const noDevNullEnv = "EDGE_AGENT_TEST_NO_DEV_NULL"

// A machine without /dev/null runs the self-check of a release.
func TestTheSelfCheckNeedsNoDevNull(t *testing.T) {
	t.Parallel()
	if bin := os.Getenv(noDevNullEnv); bin != "" {
		if _, err := os.Stat(os.DevNull); err == nil {
			t.Fatal("there is a /dev/null")
		}
		if out, err := execute(t.Context(), DefaultLimits, bin, filepath.Dir(bin), "version"); err != nil || out != "it runs" {
			t.Errorf("%q, %v", out, err)
		}
		return
	}
	if os.Geteuid() != 0 {
		t.Skip("NOT TESTED: it needs root")
	}
	bin := filepath.Join(t.TempDir(), "app")
	if err := os.WriteFile(bin, []byte("#!/bin/sh\nread x\necho it runs $x\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("sh", "-c", `mount -t tmpfs none /dev && exec /proc/self/fd/3 -test.run='^TestTheSelfCheckNeedsNoDevNull$'`)
	self, err := os.Open("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	defer self.Close()
	cmd.ExtraFiles = []*os.File{self}
	cmd.Env = append(os.Environ(), noDevNullEnv+"="+bin)
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS}
	if out, err := cmd.CombinedOutput(); err != nil || !strings.Contains(string(out), "PASS") {
		t.Errorf("%v: %s", err, out)
	}
}
