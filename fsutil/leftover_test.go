package fsutil

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// sweeping is a disk on which another process removes temporary files, right before each of
// the first n renames.
type sweeping struct{ n, renames int }

func (s *sweeping) Change(op Op, make func() error) error {
	if op.Kind == OpRename {
		if s.renames++; s.renames <= s.n {
			if err := os.Remove(op.Path); err != nil || !strings.HasPrefix(filepath.Base(op.Path), TempPrefix) {
				return errors.Join(errors.New("not a temporary name"), err)
			}
		}
	}
	return make()
}

// A writer that does not have the lock of the tree survives one that removes leftovers: the
// request for a restart must not be lost because an agent starts at that moment.
func TestAWriterSurvivesWhoRemovesLeftovers(t *testing.T) {
	t.Parallel()
	for name, write := range map[string]func(d Disk, path string) error{
		"file": func(d Disk, path string) error { return d.WriteFile(path, []byte("new"), 0o600) },
		"link": func(d Disk, path string) error { return d.Symlink("new", path) },
	} {
		for _, n := range []int{0, 1, 2} {
			dir := t.TempDir()
			path := filepath.Join(dir, "f")
			if err := write(Disk{Seam: &sweeping{n: n}}, path); err != nil {
				t.Errorf("%s, removed %d times: %v", name, n, err)
			}
			if got := names(t, dir); len(got) != 1 || got[0] != "f" {
				t.Errorf("%s, removed %d times: the directory has %v", name, n, got)
			}
		}
		// One that removes it for ever does not keep the writer for ever.
		if err := write(Disk{Seam: &sweeping{n: 1000}}, filepath.Join(t.TempDir(), "f")); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s: %v", name, err)
		}
		// Nor does a directory that is gone.
		if err := write(Disk{}, filepath.Join(t.TempDir(), "none", "f")); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
