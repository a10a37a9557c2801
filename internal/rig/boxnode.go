package rig

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/bilbycast/edge-agent/internal/box"
	"github.com/bilbycast/edge-agent/internal/state"
)

// BoxNode is a node under a real systemd: user "edge", unit edge.service.
type BoxNode struct {
	*box.Box
	units []string // the units that Start enables
}

// Paths inside the box.
const (
	BoxRoot  = "/opt/edge"
	boxTrust = "/opt/trust"
	boxUnit  = "edge.service"
	boxTool  = "/opt/bin/edge-agent" // the copy that root runs
)

// InstallInBox lays out a node in b, which must be booted and share the host's network.
// The `unit` command of NodeConfig.Tool writes its unit, which replaces
// NodeConfig.Restart and TimeoutStart. InstallInBox does not start the service.
func (r *Rig) InstallInBox(ctx context.Context, b *box.Box, c NodeConfig) (*BoxNode, error) {
	c.Name = "edge"
	c.defaults(r)
	n := &BoxNode{b, []string{boxUnit}}
	dir, err1 := b.Path(ctx, BoxRoot)
	trust, err2 := b.Path(ctx, boxTrust)
	unit, err3 := b.Path(ctx, "/etc/systemd/system/"+boxUnit)
	tool, err4 := b.Path(ctx, boxTool)
	if err := errors.Join(err1, err2, err3, err4); err != nil {
		return nil, err
	}
	if err := errors.Join(os.MkdirAll(filepath.Dir(tool), 0o755), copyProgram(c.Tool, tool)); err != nil {
		return nil, err
	}
	if err := LayOut(ctx, dir, BoxRoot, c); err != nil {
		return nil, err
	}
	if err := os.CopyFS(trust, os.DirFS(r.TrustDir())); err != nil {
		return nil, err
	}
	for _, args := range [][]string{
		{"useradd", "--system", "--no-create-home", "edge"},
		{"chown", "-R", "edge:", BoxRoot},
	} {
		if _, err := b.Exec(ctx, args...); err != nil {
			return nil, err
		}
	}
	if c.Unit != "" {
		return n, n.attach(ctx, c)
	}
	l, err := state.At(dir)
	if err != nil {
		return nil, err
	}
	args := []string{"unit", "--config", l.ConfigFile(), "--user", "edge", "--dir", filepath.Dir(unit),
		"--restart-secs", "0.1", "--watchdog-secs", "3", "--environment", "EDGE_AGENT_SIM_TRUST=" + boxTrust}
	for _, e := range c.Env {
		args = append(args, "--environment", e)
	}
	args = append(args, c.UnitFlags...)
	out, err := exec.CommandContext(ctx, c.Tool, args...).CombinedOutput()
	if err != nil {
		return nil, fmt.Errorf("unit: %w: %s", err, out)
	}
	return n, nil
}

// attach makes boxUnit a service of the user "app" that links nothing, and adds an agent
// of the user "edge" beside it.
func (n *BoxNode) attach(ctx context.Context, c NodeConfig) error {
	unit, err := n.Path(ctx, "/etc/systemd/system/"+boxUnit)
	if err != nil {
		return err
	}
	l, err := state.At(BoxRoot)
	if err != nil {
		return err
	}
	text := fmt.Sprintf("[Service]\nUser=app\nExecStart=%s/%s\n[Install]\nWantedBy=multi-user.target\n", l.Current(), c.BinaryName)
	if err := os.WriteFile(unit, []byte(text), 0o644); err != nil {
		return err
	}
	if _, err := n.Exec(ctx, "useradd", "--system", "--no-create-home", "app"); err != nil {
		return err
	}
	_, err = n.Exec(ctx, boxTool, "unit", "--config", l.ConfigFile(), "--user", "edge", "--dir", "/etc/systemd/system",
		"--restart-secs", "0.1", "--watchdog-secs", "3", "--environment", "EDGE_AGENT_SIM_TRUST="+boxTrust)
	n.units = []string{"edge-restart.path", "edge-agent.service", boxUnit}
	return err
}

// Start enables and starts the service, and returns when it is ready and all files are
// synced, as on a device that has run for a while.
func (n *BoxNode) Start(ctx context.Context) error {
	if _, err := n.Exec(ctx, "systemctl", "daemon-reload"); err != nil {
		return err
	}
	if _, err := n.Exec(ctx, append([]string{"systemctl", "enable", "--now"}, n.units...)...); err != nil {
		return err
	}
	_, err := n.Exec(ctx, "sync")
	return err
}

// Show returns properties of the unit, as systemctl show prints them.
func (n *BoxNode) Show(ctx context.Context, properties ...string) (map[string]string, error) {
	out, err := n.Exec(ctx, "systemctl", "show", boxUnit, "-p", strings.Join(properties, ","))
	if err != nil {
		return nil, err
	}
	m := make(map[string]string)
	for line := range strings.Lines(out) {
		if k, v, ok := strings.Cut(strings.TrimSpace(line), "="); ok {
			m[k] = v
		}
	}
	if len(m) != len(properties) {
		return m, fmt.Errorf("systemctl show: %q", out)
	}
	return m, nil
}

// UnitJournal returns the journal of the unit and of the units beside it, of all boots.
func (n *BoxNode) UnitJournal(ctx context.Context) (string, error) {
	return n.Journal(ctx, boxUnit, "edge-watchdog.service", "edge-agent.service", "edge-restart.service")
}
