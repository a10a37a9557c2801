package rig

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/bilbycast/edge-agent/internal/box"
	"github.com/bilbycast/edge-agent/internal/state"
)

// AttachInBox lays out the install root /opt/NAME in b, and writes the units of an agent
// beside the service NAME.service, whose unit the caller wrote. c.Tool is the agent, and
// health has the lines of [health]. Users edge and app must exist. It starts nothing.
func (r *Rig) AttachInBox(ctx context.Context, b *box.Box, c NodeConfig, health string) error {
	c.defaults(r)
	root := "/opt/" + c.Name
	c.Unit = c.Name + ".service"
	dir, err1 := b.Path(ctx, root)
	trust, err2 := b.Path(ctx, boxTrust)
	tool, err3 := b.Path(ctx, boxTool)
	if err := errors.Join(err1, err2, err3); err != nil {
		return err
	}
	if _, err := os.Stat(tool); err != nil {
		if err := errors.Join(os.MkdirAll(strings.TrimSuffix(tool, "/edge-agent"), 0o755), copyProgram(c.Tool, tool), os.CopyFS(trust, os.DirFS(r.TrustDir()))); err != nil {
			return err
		}
	}
	if err := LayOut(ctx, dir, root, c); err != nil {
		return err
	}
	inside, err := state.At(root)
	if err != nil {
		return err
	}
	outside, err := state.At(dir)
	if err != nil {
		return err
	}
	f, err := os.OpenFile(outside.ConfigFile(), os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(f, "[health]\n%s\n", health)
	if err := errors.Join(err, f.Close()); err != nil {
		return err
	}
	if _, err := b.Exec(ctx, "chown", "-R", "edge:", root); err != nil {
		return err
	}
	args := []string{boxTool, "unit", "--config", inside.ConfigFile(), "--user", "edge", "--dir", "/etc/systemd/system",
		"--restart-secs", "0.1", "--watchdog-secs", "10", "--environment", "EDGE_AGENT_SIM_TRUST=" + boxTrust}
	for _, e := range c.Env {
		args = append(args, "--environment", e)
	}
	_, err = b.Exec(ctx, args...)
	return err
}
