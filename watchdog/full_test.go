package watchdog_test

import (
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/bilbycast/edge-agent/fsutil"
	"github.com/bilbycast/edge-agent/internal/box"
	"github.com/bilbycast/edge-agent/internal/state"
	"github.com/bilbycast/edge-agent/watchdog"
	"golang.org/x/sys/unix"
)

// A rollback needs no free byte and no free inode. The test fills a real file system, a
// tmpfs.
func TestRollsBackOnAFullDisk(t *testing.T) {
	t.Parallel()
	box.Need(t) // for root, and mounts
	for name, options := range map[string]string{
		"no inode": "size=1m,nr_inodes=40",
		"no byte":  "size=64k,nr_inodes=4000",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			if err := unix.Mount("full", dir, "tmpfs", 0, options); err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() {
				if err := unix.Unmount(dir, 0); err != nil {
					t.Error(err)
				}
			})
			l, err := state.At(dir)
			if err != nil {
				t.Fatal(err)
			}
			lay(t, l)
			_, err = l.Do(t.Context(), func(s state.State, tr state.Tree, _ time.Time) (state.State, state.Tree, error) {
				s = state.Begin(s, state.Trial{ID: "c", CommandID: "c", Target: v2, MaxAttempts: 3}, time.Now())
				tr.Previous, tr.Current = v1, v2
				return s, tr, nil
			})
			if err != nil {
				t.Fatal(err)
			}
			fill(t, filepath.Join(dir, "versions", "1.1.0"), name == "no byte")

			if got := short(watchdog.Run(t.Context(), l)); got != "rolled_back 1.0.0 0/3 reverted=true errs=1" {
				t.Error(got)
			}
			if to, _ := os.Readlink(l.Current()); to != "versions/1.0.0" {
				t.Errorf("current -> %s", to)
			}
			// A second run on the full disk changes nothing.
			if got := watchdog.Run(t.Context(), l); got.Current != v1 {
				t.Errorf("the next start: %s", short(got))
			}
		})
	}
}

// fill uses up every byte, or every inode.
func fill(t *testing.T, dir string, bytes bool) {
	t.Helper()
	for i := 0; ; i++ {
		var data []byte
		if bytes {
			data = make([]byte, 4096)
		}
		err := os.WriteFile(filepath.Join(dir, "f"+strconv.Itoa(i)), data, 0o644)
		if fsutil.IsNoSpace(err) {
			return
		}
		if err != nil || i > 10_000 {
			t.Fatal(errors.Join(err, errors.New("the disk does not fill")))
		}
	}
}
