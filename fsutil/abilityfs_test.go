package fsutil_test

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/bilbycast/edge-agent/fsutil"
	"github.com/bilbycast/edge-agent/internal/box"
)

// Real file systems that hold install roots can do everything, also through an overlay.
// When they are full, that is no verdict.
func TestTryRealFileSystems(t *testing.T) {
	t.Parallel()
	run := func(args ...string) {
		t.Helper()
		if out, err := exec.Command(args[0], args[1:]...).CombinedOutput(); err != nil {
			t.Fatalf("%q: %v: %s", args, err, out)
		}
	}
	dirs := map[string]string{"tmpfs": mounted(t, "tmpfs", 0, "size=4M")}
	for kind, size := range map[string]string{"ext4": "16M", "xfs": "320M"} {
		if _, err := exec.LookPath("mkfs." + kind); err != nil {
			if os.Getenv(box.RequireEnv) != "" {
				t.Error(err)
			}
			t.Logf("NOT TESTED: %v", err)
			continue
		}
		image, dir := filepath.Join(t.TempDir(), kind), t.TempDir()
		run("truncate", "-s", size, image)
		run("mkfs."+kind, "-q", image)
		run("mount", "-o", "loop", image, dir)
		t.Cleanup(func() { run("umount", "-l", dir) })
		dirs[kind] = filepath.Join(dir, "root") // beside lost+found
	}
	layers, merged := mounted(t, "tmpfs", 0, "size=4M"), t.TempDir()
	for _, dir := range []string{"lower/versions", "upper", "work"} {
		if err := os.MkdirAll(filepath.Join(layers, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	run("mount", "-t", "overlay", "-o", fmt.Sprintf("lowerdir=%[1]s/lower,upperdir=%[1]s/upper,workdir=%[1]s/work", layers), "overlay", merged)
	t.Cleanup(func() { run("umount", "-l", merged) })
	dirs["overlay"] = filepath.Join(merged, "versions")
	for kind, dir := range dirs {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := tryAll(t, fsutil.Disk{}, dir); err != nil {
			t.Errorf("%s: %v", kind, err)
		}
		if got, _ := fsutil.FileSystem(dir); got != kind {
			t.Errorf("%s: it is said to be %s", kind, got)
		}
		fillUp(t, filepath.Join(dir, "full"))
		for _, err := range []error{(fsutil.Disk{}).Try(t.Context(), dir, all...), (fsutil.Disk{}).TryExec(t.Context(), filepath.Join(dir, ".partial-x"), "edge")} {
			if err != nil && (!fsutil.IsNoSpace(err) || errors.As(err, new(*fsutil.Inability))) {
				t.Errorf("%s, full: %v", kind, err)
			}
		}
		if entries, err := os.ReadDir(dir); err != nil || len(entries) != 1 {
			t.Errorf("%s: left %v, %v", kind, entries, err)
		}
	}
}

// fillUp writes to path until the file system has no free block.
func fillUp(t *testing.T, path string) {
	t.Helper()
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for _, size := range []int{1 << 20, 4096, 1} {
		for block := make([]byte, size); err == nil; {
			_, err = f.Write(block)
		}
		if !fsutil.IsNoSpace(err) {
			t.Fatal(err)
		}
		err = nil
	}
}
