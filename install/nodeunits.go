package install

import (
	"bytes"
	"context"
	"os/user"
	"path/filepath"

	"github.com/bilbycast/edge-agent/config"
	"github.com/bilbycast/edge-agent/fsutil"
	"github.com/bilbycast/edge-agent/internal/state"
	"github.com/bilbycast/edge-agent/systemd"
)

func (n *Node) unitPath() string { return filepath.Join(unitDir, n.Name+".service") }

func (n *Node) service() string { return n.Name + ".service" }

// wrote reports whether edge-agent wrote the text of a unit, for this root.
func (n *Node) wrote(unit []byte) bool {
	if !bytes.Contains(unit, []byte(writtenByUs)) {
		return false
	}
	for _, root := range []string{n.Root, n.real} {
		if bytes.Contains(unit, []byte(root+"/")) {
			return true
		}
	}
	return false
}

// besideUnits returns the paths of the units that belong to that of the service.
func (n *Node) besideUnits() (paths []string) {
	for _, name := range systemd.Beside(n.service()) {
		paths = append(paths, filepath.Join(unitDir, name))
	}
	return paths
}

// wroteBeside reports whether edge-agent wrote the text of one of them.
func (n *Node) wroteBeside(unit []byte) bool {
	return bytes.Contains(unit, []byte(writtenByUs)) && bytes.Contains(unit, []byte(" "+n.service()))
}

func (n *Node) unit(l state.Layout, binary string, c config.Upgrade) systemd.Unit {
	_, err := user.LookupGroup("systemd-journal") // a unit with an unknown group does not start
	u := n.own
	u.Name, u.Layout, u.Binary, u.User, u.Journal = n.Name, l, binary, n.User, err == nil
	u.WindowSecs, u.RestartSecs, u.Environment, u.Linked = c.BootHealthWindowSecs, n.RestartSecs, n.Environment, linkedDirs(l)
	u.Steps = systemd.HasRestartSteps(context.Background())
	if c.DrainSecs != nil {
		u.DrainSecs = *c.DrainSecs
	}
	return u
}

// writeUnit writes the unit, unless the file is the same already.
func (n *Node) writeUnit(l state.Layout, c config.Config) error {
	files, err := n.unit(l, c.Service.Binary, c.Upgrade).Files()
	if err != nil {
		return err
	}
	for _, f := range files {
		path := filepath.Join(unitDir, f.Name)
		old, err := fsutil.ReadFile(path, maxUnit)
		if err == nil && string(old) == f.Text {
			continue
		}
		if err := (fsutil.Disk{}).WriteFile(path, []byte(f.Text), 0o644); err != nil {
			return err
		}
		n.report("wrote %s", path)
	}
	return nil
}

// removeBeside stops and removes the units that belong to that of the service.
func (n *Node) removeBeside(ctx context.Context) error {
	for _, path := range n.besideUnits() {
		text, err := fsutil.ReadFile(path, maxUnit)
		if err != nil || !n.wroteBeside(text) {
			continue // Check refused a file of somebody else
		}
		if filepath.Ext(path) == ".path" && systemd.Booted() == nil { // it would wait until the next boot
			if err := command(ctx, "systemctl", "stop", "--", filepath.Base(path)); err != nil {
				return err
			}
		}
		if err := (fsutil.Disk{}).Remove(path); err != nil {
			return err
		}
	}
	return nil
}
