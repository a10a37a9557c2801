package store_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/bilbycast/edge-agent/internal/box"
	"github.com/bilbycast/edge-agent/manager-sim/store"
)

// The disk of the database is full for a while. The store needs no restart.
func TestAFullDisk(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if out, err := exec.Command("mount", "-t", "tmpfs", "-o", "size=2m", "none", dir).CombinedOutput(); err != nil {
		if os.Getenv(box.RequireEnv) != "" {
			t.Fatalf("no file system can be mounted here: %s", out)
		}
		t.Skipf("NOT TESTED: no file system can be mounted here: %s", out)
	}
	t.Cleanup(func() { exec.Command("umount", "-l", dir).Run() })
	s := open(t, filepath.Join(dir, "db"))
	must(t, s.Ready(t.Context()))
	fill, err := os.Create(filepath.Join(dir, "fill"))
	must(t, err)
	for err == nil {
		_, err = fill.Write(make([]byte, 512))
	}
	fill.Close()
	for err = nil; err == nil; {
		err = change(s)
	}
	if store.Trouble(err) != "full" {
		t.Errorf("got %v", err)
	}
	if err := s.Ready(t.Context()); store.Trouble(err) != "full" {
		t.Errorf("ready: %v", err)
	}
	if _, err := s.Groups(t.Context()); err != nil { // it can be read all the same
		t.Error(err)
	}
	if _, err := s.Away(); err == nil {
		t.Error("a read made it available")
	}
	must(t, os.Remove(fill.Name()))
	back(t, s)
}
