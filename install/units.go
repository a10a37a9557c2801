package install

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"strings"

	"github.com/bilbycast/edge-agent/fsutil"
	"github.com/bilbycast/edge-agent/systemd"
)

// WriteUnits writes the files of u into dir, and returns their paths. The values
// of u come from a config.toml that the service's user owns, so it writes no
// drop-in for a service that does not start through the install root, and
// replaces no file that edge-agent did not write.
func WriteUnits(ctx context.Context, dir string, files []systemd.File, u systemd.Unit) ([]string, error) {
	if u.Attached != "" && systemd.Booted() == nil && filepath.Clean(dir) == unitDir {
		s := systemd.Service{Unit: u.Attached, Root: u.Root, Attached: true}
		if loaded, err := systemd.Look(ctx, u.Attached); err == nil && loaded.Load == "loaded" {
			if err := s.Starts(ctx); err != nil {
				return nil, fmt.Errorf("service.unit: %w", err)
			}
		}
	}
	var disk fsutil.Disk
	for _, f := range files {
		path := filepath.Join(dir, f.Name)
		old, err := fsutil.ReadFile(path, maxUnit)
		if err == nil && !strings.Contains(string(old), "written by edge-agent") {
			return nil, fmt.Errorf("%s is there, and was not written by edge-agent: move it away", path)
		}
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
	}
	var paths []string
	for _, f := range files {
		path := filepath.Join(dir, f.Name)
		if err := disk.Mkdir(filepath.Dir(path), 0o755); err != nil {
			return paths, err
		}
		if err := disk.WriteFile(path, []byte(f.Text), 0o644); err != nil {
			return paths, err
		}
		paths = append(paths, path)
	}
	return paths, nil
}
