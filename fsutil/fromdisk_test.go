package fsutil_test

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/bilbycast/edge-agent/fsutil"
	"github.com/bilbycast/edge-agent/internal/powercut"
)

// fromDisk returns what ReadFromDisk reads of f.
func fromDisk(t *testing.T, f *os.File) []byte {
	t.Helper()
	r, err := fsutil.ReadFromDisk(f)
	if errors.Is(err, errors.ErrUnsupported) {
		t.Skipf("this file system does not say: %v", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	var all []byte
	for {
		b, err := r.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, b...)
	}
	if _, err := r.Next(); err != io.EOF {
		t.Errorf("after the end: %v", err)
	}
	if err := r.Close(); err != nil {
		t.Error(err)
	}
	return all
}

func random(n int) []byte {
	b := make([]byte, n)
	r := rand.NewChaCha8([32]byte{1})
	r.Read(b)
	return b
}

func TestReadFromDisk(t *testing.T) {
	t.Parallel()
	const block = 512 << 10
	for _, size := range []int{0, 1, 511, 4096, block - 1, block, block + 1, 3*block + 777} {
		f, err := os.Create(filepath.Join(t.TempDir(), "file"))
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		want := random(size)
		if _, err := f.Write(want); err != nil { // not synced: reading writes it back
			t.Fatal(err)
		}
		if got := fromDisk(t, f); !bytes.Equal(got, want) {
			t.Errorf("%d bytes: read %d others", size, len(got))
		}
		// Afterwards it is an ordinary file, at the offset that it had.
		if _, err := f.WriteString("more"); err != nil {
			t.Error(err)
		}
		if got, err := os.ReadFile(f.Name()); err != nil || string(got) != string(want)+"more" {
			t.Errorf("%d bytes: %d bytes after a write; %v", size, len(got), err)
		}
	}
}

// A file that lives in memory has no disk, and a pipe is no file.
func TestReadFromDiskOfNoDisk(t *testing.T) {
	t.Parallel()
	dir, err := os.MkdirTemp("/dev/shm", "edge-agent-fromdisk-")
	if err != nil {
		t.Skip(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	f, err := os.Create(filepath.Join(dir, "file"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := fsutil.ReadFromDisk(f); !errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("in memory: %v", err)
	}
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	defer r.Close()
	if _, err := fsutil.ReadFromDisk(r); err == nil {
		t.Error("a pipe is read")
	}
}

const onDisk = "EDGE_AGENT_TEST_ONDISK"

// Where memory and the disk differ, as after a write that failed, the disk counts.
func TestReadFromDiskIgnoresMemory(t *testing.T) {
	if os.Getenv(onDisk) == "" {
		if os.Geteuid() != 0 && os.Getenv("EDGE_AGENT_NO_SKIP") == "" {
			t.Skip("mounts a disk: needs root")
		}
		cmd := exec.Command(os.Args[0], "-test.run", "TestReadFromDiskIgnoresMemory$", "-test.v")
		cmd.Env = append(os.Environ(), onDisk+"=1")
		cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS}
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("%v\n%s", err, out)
		}
		return
	}
	dir := t.TempDir()
	disk, mnt := filepath.Join(dir, "disk"), filepath.Join(dir, "mnt")
	if err := os.Mkdir(mnt, 0o755); err != nil {
		t.Fatal(err)
	}
	d, err := powercut.New(disk, mnt, 64<<20)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	f, err := os.Create(filepath.Join(mnt, "file"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	want := random(1 << 20)
	if _, err := f.Write(want); err != nil {
		t.Fatal(err)
	}
	if err := f.Sync(); err != nil {
		t.Fatal(err)
	}
	image, err := os.OpenFile(disk, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer image.Close()
	all, err := io.ReadAll(image)
	if err != nil {
		t.Fatal(err)
	}
	const at = 600 << 10
	where := bytes.Index(all, want[at:at+4096])
	if where < 0 {
		t.Fatal("the disk does not have the file")
	}
	if _, err := image.WriteAt([]byte{^want[at]}, int64(where)); err != nil {
		t.Fatal(err)
	}
	if got, err := os.ReadFile(f.Name()); err != nil || !bytes.Equal(got, want) {
		t.Fatalf("the file is not in memory any more: %v", err)
	}
	want[at] = ^want[at]
	if got := fromDisk(t, f); !bytes.Equal(got, want) {
		t.Error("what was read is not what the disk has")
	}
}
