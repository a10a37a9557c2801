// Package oddfs mounts file systems that refuse something, as NFS, vfat and others do, for
// tests: FUSE over a directory.
//
// The server is a process of its own, which is the test's program again: a server in the
// process of the test could block the system calls that it is to answer. It ends with
// the test.
package oddfs

import (
	"bufio"
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// Op is something that a file system can refuse.
type Op string

// What a file system can refuse.
const (
	Create       Op = "create"         // a file or a directory
	Chmod        Op = "chmod"          // with IgnoresChmod: accepted without effect
	Symlink      Op = "symlink"        //
	Rename       Op = "rename"         //
	Exchange     Op = "exchange"       //
	Sync         Op = "fsync"          // of a file
	Lock         Op = "lock"           // flock(2) of a file
	LockReadOnly Op = "lock read-only" // of a descriptor that was opened for reading
	Exec         Op = "exec"           // of a program in a version that is not complete
	Reserve      Op = "fallocate"      //
	Write        Op = "write"          // to a file
	Read         Op = "read"           // from a file
)

// IgnoresChmod, for Chmod, accepts the call without effect.
const IgnoresChmod unix.Errno = 0

// Refusals are what a file system refuses, and with which error.
type Refusals map[Op]unix.Errno

// NFS is what NFS refuses, and VFAT what vfat does.
var (
	NFS  = Refusals{LockReadOnly: unix.EBADF, Exchange: unix.EINVAL}
	VFAT = Refusals{Symlink: unix.EPERM}
)

// FS is a mounted file system.
type FS struct {
	Dir    string // the mount point
	Behind string // the directory that it shows
	faults string
}

// requireEnv is box.RequireEnv: if it is set, as in CI, a test that this machine cannot
// run fails.
const requireEnv = "EDGE_AGENT_NO_SKIP"

// ServeEnv is an environment variable. A program that links this package, and is started
// with it, serves the directory that it names until its standard input ends: it mounts
// the directory "mnt" there, which shows "behind", and refuses what the file "faults"
// says (Refusals.JSON).
const ServeEnv = "EDGE_AGENT_TEST_ODDFS"

// JSON returns the content of the file "faults".
func (r Refusals) JSON() ([]byte, error) { return json.Marshal(r) }

// Mount mounts a file system until the test ends. It skips the test where that is
// impossible: it needs root and /dev/fuse.
func Mount(t testing.TB, refuse Refusals) *FS {
	t.Helper()
	if err := unix.Access("/dev/fuse", unix.W_OK); err != nil || os.Geteuid() != 0 {
		if os.Getenv(requireEnv) != "" {
			t.Fatalf("this test needs root and /dev/fuse (%v), and %s is set", err, requireEnv)
		}
		t.Skipf("NOT TESTED: it needs root and /dev/fuse: %v", err)
	}
	base := t.TempDir()
	f := &FS{Dir: filepath.Join(base, "mnt"), Behind: filepath.Join(base, "behind"), faults: filepath.Join(base, "faults")}
	if err := errors.Join(os.Chmod(base, 0o755), os.Mkdir(f.Dir, 0o755), os.Mkdir(f.Behind, 0o755)); err != nil {
		t.Fatal(err)
	}
	f.Refuse(t, refuse)
	cmd := exec.Command("/proc/self/exe")
	cmd.Env, cmd.Stderr = append(os.Environ(), ServeEnv+"="+base), os.Stderr
	stop, err := cmd.StdinPipe() // the server ends when it is closed, also by the end of this process
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		stop.Close()
		if err := cmd.Wait(); err != nil {
			t.Errorf("the FUSE server: %v", err)
		}
	})
	if _, err := bufio.NewReader(out).ReadString('\n'); err != nil {
		t.Fatalf("the FUSE server does not start: %v", err)
	}
	return f
}

// Refuse changes what the file system refuses from now on.
func (f *FS) Refuse(t testing.TB, refuse Refusals) {
	t.Helper()
	b, err := refuse.JSON()
	if err == nil {
		err = errors.Join(os.WriteFile(f.faults+".new", b, 0o600), os.Rename(f.faults+".new", f.faults))
	}
	if err != nil {
		t.Fatal(err)
	}
}

func init() {
	base := os.Getenv(ServeEnv)
	if base == "" {
		return
	}
	if err := serve(base, func() {
		os.Stdout.WriteString("mounted\n")
		io.Copy(io.Discard, os.Stdin)
	}); err != nil {
		os.Stderr.WriteString(err.Error() + "\n")
		os.Exit(1)
	}
	os.Exit(0)
}
