package install

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/bilbycast/edge-agent/config"
	"github.com/bilbycast/edge-agent/fsutil"
	"github.com/bilbycast/edge-agent/internal/state"
	"github.com/bilbycast/edge-agent/systemd"
)

// writtenByUs is in every unit file that edge-agent writes.
const writtenByUs = "written by edge-agent"

// LoadUnit completes u by a config.toml: the service's name, root, program and
// health window, and the service that the agent is attached to. Without u.Agent
// the program of this process is the agent.
func LoadUnit(path string, u systemd.Unit) (systemd.Unit, error) {
	c, err := config.Read(path)
	if err != nil {
		return u, err
	}
	l := c.Layout
	if l.Root() != c.Service.InstallRoot {
		return u, fmt.Errorf("unit: root %q is not a clean path below /: leave out .. and double slashes", c.Service.InstallRoot)
	}
	u.Name, u.Layout, u.Binary = c.Service.Name, l, c.Service.Binary
	u.WindowSecs, u.Attached = c.Upgrade.BootHealthWindowSecs, c.Service.Unit
	u.DrainSecs = int(c.DrainTime / time.Second)
	u.Linked = linkedDirs(l)
	u.Early = u.Attached != "" && systemd.Booted() == nil && systemd.Other(u.Attached).IsEarly(context.Background())
	if u.Agent == "" {
		if u.Agent, err = agentProgram(os.Args[0]); err != nil {
			return u, err
		}
	}
	return u, nil
}

// Service returns the unit that a configuration is about.
func Service(c config.Settings) systemd.Service {
	return systemd.Service{
		Unit: cmp.Or(c.Service.Unit, c.Service.Name+".service"), Layout: c.Layout, Binary: c.Service.Binary,
		Config: c.Layout.ConfigFile(), Attached: c.Service.Unit != "", Window: c.Window, Drain: c.DrainTime,
	}
}

// FitApply returns an error, with the remedy, if the service of a root could not start the
// version that is staged there for an operator, or nil. See systemd.Service.FitVersion.
func FitApply(ctx context.Context, l state.Layout) error {
	res, err := l.Read()
	if err != nil || res.State.Status != state.StagedManual {
		return nil // applying reports it
	}
	c, _, err := config.Open(l.ConfigFile())
	if err != nil {
		return nil // which unit starts the version is not known
	}
	return Service(c).FitVersion(ctx, l.Version(res.State.Target))
}

// KeepSettings completes u by settings of the agent's unit in dir, if edge-agent wrote it:
// the environment, the arguments, writable paths and devices, of which u has none, and the times
// that are 0. So a unit that is written again keeps what an operator once chose; no remedy names
// it, since the environment may hold a password. The notes are what it leaves out.
func KeepSettings(dir string, u systemd.Unit) (_ systemd.Unit, notes []string, err error) {
	files, err := u.Files()
	if err != nil {
		return u, nil, err
	}
	path := filepath.Join(dir, files[0].Name)
	text, err := fsutil.ReadFile(path, maxUnit)
	if err != nil || !strings.Contains(string(text), writtenByUs) {
		return u, nil, nil // WriteUnits reports it
	}
	environment, odd := environmentOf(text)
	if len(u.Environment) == 0 {
		u.Environment = environment
		for _, v := range odd {
			notes = append(notes, fmt.Sprintf("left Environment=%s out of %s: set it in a drop-in", v, path))
		}
	}
	u, left := u.KeepOwn(string(text))
	for _, note := range left {
		notes = append(notes, path+": "+note)
	}
	for line := range strings.Lines(string(text)) {
		if v, ok := strings.CutPrefix(strings.TrimSpace(line), "RestartSec="); ok && u.RestartSecs == 0 {
			u.RestartSecs, _ = strconv.ParseFloat(v, 64) // 0: the default
			if u.RestartSecs == 1 && u.Attached == "" {
				u.RestartSecs = 0 // the default of earlier versions, which had no wait of their own
			}
		}
		if v, ok := strings.CutPrefix(strings.TrimSpace(line), "WatchdogSec="); ok && u.WatchdogSecs == 0 {
			u.WatchdogSecs, _ = strconv.Atoi(v)
		}
	}
	return u, notes, nil
}

// environmentOf returns the variables of a unit, and those that edge-agent does not write,
// since they would need quoting: somebody edited the unit.
func environmentOf(unit []byte) (kept, odd []string) {
	for line := range strings.Lines(string(unit)) {
		v, ok := strings.CutPrefix(strings.TrimSpace(line), "Environment=")
		switch {
		case !ok || v == "":
		case strings.ContainsAny(v, " \t\"'\\$%"):
			odd = append(odd, v)
		default:
			kept = append(kept, v)
		}
	}
	return kept, odd
}

// linkedDirs returns the directories outside an install root that links in it
// point to, for the unit's sandbox. It leaves out those of the system, to which
// the owner of the root could point a link.
func linkedDirs(l state.Layout) []string {
	var dirs []string
	for _, dir := range l.Linked() {
		if rel, err := filepath.Rel("/", dir); err == nil && !systemDir(rel) {
			dirs = append(dirs, dir)
		}
	}
	return dirs
}

// WriteUnits writes the unit files of u into dir, and returns the paths that it
// wrote, also with an error. The values of u come from a config.toml that the
// service's user owns. So it writes no drop-in for a service that does not start
// through the install root, and replaces no file that edge-agent did not write.
func WriteUnits(ctx context.Context, dir string, u systemd.Unit) ([]string, error) {
	files, err := u.Files()
	if err != nil {
		return nil, err
	}
	if err := attachable(ctx, dir, u); err != nil {
		return nil, err
	}
	for _, f := range files {
		path := filepath.Join(dir, f.Name)
		old, err := fsutil.ReadFile(path, maxUnit)
		if err == nil && !strings.Contains(string(old), writtenByUs) {
			return nil, fmt.Errorf("%s exists, and was not written by edge-agent: move it away", path)
		}
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
	}
	var disk fsutil.Disk
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

// attachable refuses a service that cannot be attached to, if systemd knows the service.
func attachable(ctx context.Context, dir string, u systemd.Unit) error {
	if u.Attached == "" || systemd.Booted() != nil || filepath.Clean(dir) != unitDir {
		return nil
	}
	s := systemd.Service{Unit: u.Attached, Layout: u.Layout, Attached: true}
	if err := s.CheckAttach(ctx); err != nil {
		return fmt.Errorf("service.unit: %w", err)
	}
	return nil
}

// StartCommand returns the command that makes the written units of u run.
func StartCommand(u systemd.Unit) string {
	command := "systemctl daemon-reload && systemctl enable --now " + strings.Join(u.Enable(), " ")
	if u.Attached != "" {
		command += " && systemctl restart " + u.Attached
	}
	return command
}
