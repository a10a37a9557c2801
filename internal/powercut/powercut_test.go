package powercut_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/bilbycast/edge-agent/internal/powercut"
)

const child = "EDGE_AGENT_TEST_POWERCUT"

// What was synced survives a cut, and what was not does not.
func TestDisk(t *testing.T) {
	if os.Getenv(child) == "" {
		if os.Geteuid() != 0 && os.Getenv("EDGE_AGENT_NO_SKIP") == "" {
			t.Skip("mounts a disk: needs root")
		}
		// The mount is only visible in a namespace of its own.
		cmd := exec.Command(os.Args[0], "-test.run", "TestDisk$", "-test.v")
		cmd.Env = append(os.Environ(), child+"=1")
		cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS}
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("%v\n%s", err, out)
		}
		return
	}
	dir := t.TempDir()
	mnt := filepath.Join(dir, "mnt")
	if err := os.Mkdir(mnt, 0o755); err != nil {
		t.Fatal(err)
	}
	d, err := powercut.New(filepath.Join(dir, "disk"), mnt, 64<<20)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	for _, how := range []powercut.How{powercut.Journal, powercut.Nothing} {
		for name, sync := range map[string]bool{"synced": true, "lost": false} {
			f, err := os.Create(filepath.Join(mnt, name))
			if err != nil {
				t.Fatal(err)
			}
			if _, err := f.WriteString("data"); err != nil {
				t.Fatal(err)
			}
			if sync {
				if err := f.Sync(); err != nil {
					t.Fatal(err)
				}
				top, err := os.Open(mnt)
				if err != nil {
					t.Fatal(err)
				}
				if err := top.Sync(); err != nil {
					t.Fatal(err)
				}
				top.Close()
			}
			f.Close()
		}
		released := false
		if err := d.Cut(how, func() { released = true }); err != nil {
			t.Fatal(err)
		}
		if !released {
			t.Error("release was not called")
		}
		if b, err := os.ReadFile(filepath.Join(mnt, "synced")); string(b) != "data" {
			t.Errorf("how %d: synced: %q, %v", how, b, err)
		}
		if b, err := os.ReadFile(filepath.Join(mnt, "lost")); string(b) == "data" {
			t.Errorf("how %d: what was not synced survived (%v)", how, err)
		}
		os.Remove(filepath.Join(mnt, "lost"))
	}
}
