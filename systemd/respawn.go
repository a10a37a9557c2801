package systemd

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"
)

// FitRestart returns nil if systemd restarts the unit of this process at once when the process
// writes Layout.RestartFile: edge-respawn.path waits for that. Otherwise the process must
// end, and systemd starts it again after RestartSec=, which it rounds up by as much as 250 ms.
func (s Service) FitRestart(ctx context.Context) error {
	unit, err := Self()
	if err != nil {
		return err
	}
	if err := Booted(); err != nil {
		return err
	}
	name := respawnPath(unit)
	p, err := show(ctx, name, "ActiveState", "Paths")
	if err != nil {
		return err
	}
	return s.fitRestart(name, p)
}

func (s Service) fitRestart(name string, p map[string]string) error {
	if p["ActiveState"] != "active" {
		return fmt.Errorf("%s is %.40q, not active", name, p["ActiveState"])
	}
	file, ok := strings.CutSuffix(p["Paths"], " (PathChanged)")
	want := s.Layout.RestartFile()
	if !ok || filepath.Base(file) != filepath.Base(want) || resolve(filepath.Dir(file)) != resolve(filepath.Dir(want)) {
		return fmt.Errorf("%s waits for %.200q, not for a change of %s", name, p["Paths"], want)
	}
	return nil
}
