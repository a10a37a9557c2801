package install

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/bilbycast/edge-agent/agent"
	"github.com/bilbycast/edge-agent/config"
	"github.com/bilbycast/edge-agent/fsutil"
	"github.com/bilbycast/edge-agent/state"
	"github.com/bilbycast/edge-agent/systemd"
)

// Finding is the result of one check of Doctor. `doctor --json` prints a list of
// them; the fields keep their names.
type Finding struct {
	What    string `json:"what"`
	OK      bool   `json:"ok"`
	Problem string `json:"problem,omitzero"` // cause and remedy
	Cause   string `json:"cause,omitzero"`
	Remedy  string `json:"remedy,omitzero"`
}

// Well reports whether no check found a problem.
func Well(findings []Finding) bool {
	return !slices.ContainsFunc(findings, func(f Finding) bool { return !f.OK })
}

// fault is what a check found.
type fault struct{ cause, remedy string }

// Doctor makes every check that a node needs to run, to be upgraded and to be
// rolled back, and changes nothing. Each check is one finding that is OK, or one
// finding for each of its faults.
//
// A process of root becomes the service's user for good, and takes over the
// environment of its unit, so that it sees what the service sees.
func Doctor(ctx context.Context, config string) []Finding {
	d := &doctor{config: config}
	d.examine(ctx)
	return d.findings
}

type doctor struct {
	config   string
	findings []Finding

	c     config.Config // with its defaults
	l     state.Layout
	unit  string        // the service's
	agent string        // the agent's unit: unit, or another in attached mode
	state systemd.State // of agent
	user  uint32        // that the agent runs as
}

// check records the result of a check.
func (d *doctor) check(what string, faults ...fault) {
	if len(faults) == 0 {
		d.findings = append(d.findings, Finding{What: what, OK: true})
	}
	for _, f := range faults {
		d.findings = append(d.findings, Finding{What: what, Problem: f.cause + ": " + f.remedy, Cause: f.cause, Remedy: f.remedy})
	}
}

func (d *doctor) failed(what string) bool {
	return slices.ContainsFunc(d.findings, func(f Finding) bool { return f.What == what && !f.OK })
}

func (d *doctor) examine(ctx context.Context) {
	if err := fsutil.BecomeOwner(filepath.Dir(d.config)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		d.check("configuration", fault{err.Error(), "run doctor as root"})
		return
	}
	loaded := d.configuration()
	root := d.c.Service.InstallRoot
	if !loaded {
		dir, err := filepath.Abs(filepath.Dir(d.config))
		if err != nil {
			return
		}
		root = dir
	}
	l, err := state.At(root)
	if err != nil {
		d.check("install root", fault{err.Error(), "set service.install_root to an absolute path"})
		return
	}
	if _, err := os.Lstat(l.Versions()); !loaded && err != nil {
		return
	}
	d.l = l
	if err := fsutil.BecomeOwner(root); err != nil && !errors.Is(err, fs.ErrNotExist) {
		d.check("install root", fault{err.Error(), "run doctor as root"})
		return
	}
	owner, err := l.Owner()
	if err == nil {
		d.user = owner
	}
	var report systemd.Report
	if loaded {
		report = d.units(ctx)
	}
	d.root()
	if !loaded {
		return
	}
	d.unitReport(report)
	d.readable()
	d.program(ctx)
	d.space()
	d.trust()
	d.service(ctx)
	d.manager(ctx)
	d.offered()
}

// offered adds what the running agent reports, where no other check found why it
// takes no upgrade.
func (d *doctor) offered() {
	why := agent.ParseUnable(d.state.Text)
	if why == "" || !Well(d.findings) || d.state.Active != "active" {
		return
	}
	d.check("upgrades", fault{"the running agent takes no upgrade: " + why, "restart it: systemctl restart " + d.unit})
}

// configuration loads config.toml.
func (d *doctor) configuration() bool {
	c, err := config.Load(d.config)
	if err == nil {
		d.binary(&c)
		var checked config.Settings
		checked, err = c.Resolve()
		c = checked.Config
	}
	d.c = c
	if err == nil {
		d.check("configuration")
		if !c.Upgrade.Enabled {
			d.check("upgrades", fault{"upgrades are off, so the manager cannot schedule one", "set enabled = true in [upgrade] of " + d.config + ", and restart the service"})
		}
		return true
	}
	remedy := "correct it, and check it with: edge-agent config check " + d.config
	switch {
	case errors.Is(err, fs.ErrNotExist):
		remedy = "give the path of the node's config.toml, or install the service again: edge-agent install --help"
	case errors.Is(err, fs.ErrPermission):
		who := systemd.UserName(uint32(os.Geteuid()))
		remedy = fmt.Sprintf("only root can change that: chown %s: %s && chmod 600 %s (or run doctor as root, if %s is not the service's user)", who, d.config, d.config, who)
		if why, open := blocked(filepath.Dir(d.config), uint32(os.Geteuid())); why != "" {
			d.check("configuration", fault{fmt.Sprintf("%s cannot read %s: it may not enter %s", who, d.config, why), open})
			return false
		}
	case strings.Contains(err.Error(), "chmod 600"):
		remedy = "make it unreadable for others: chmod 600 " + d.config
	}
	d.check("configuration", fault{err.Error(), remedy})
	return false
}

// binary names the program of a configuration that leaves it to the program's own
// file name: this one may be a copy with another name.
func (d *doctor) binary(c *config.Config) {
	const usual = "edge-agent"
	if c.Service.Binary != "" || c.Service.Unit != "" {
		return
	}
	checked, _ := c.Resolve() // which fills in the defaults, whatever else is wrong
	if _, err := os.Stat(filepath.Join(checked.Layout.Current(), checked.Service.Binary)); err == nil {
		return
	}
	c.Service.Binary = usual
}

// units asks systemd for the units of the node, and takes over what the agent's
// process has of them.
func (d *doctor) units(ctx context.Context) systemd.Report {
	d.unit = cmp.Or(d.c.Service.Unit, d.c.Service.Name+".service")
	d.agent = AgentUnit(d.c)
	s, err := systemd.Look(ctx, d.agent)
	if err == nil && s.Load == "loaded" {
		if uid, ok := systemd.UserID(s.User); ok && (uid != 0 || s.User != "") {
			d.user = uid
		}
	}
	d.state = s
	if env, err := systemd.Environment(ctx, d.agent); err == nil {
		for k, v := range env {
			os.Setenv(k, v)
		}
	}
	return systemd.Service{Unit: d.unit, Layout: d.l, Binary: d.c.Service.Binary, Config: d.config, Attached: d.c.Service.Unit != "",
		Window: time.Duration(d.c.Upgrade.BootHealthWindowSecs) * time.Second}.Inspect(ctx)
}

// root makes the checks of the install root.
func (d *doctor) root() {
	flaws := d.l.Inspect(d.user)
	if len(flaws) > 0 && flaws[0].Check == "install root" {
		d.check("install root", fault{flaws[0].Cause, flaws[0].Remedy})
		flaws = flaws[1:]
		if _, err := os.ReadDir(d.l.Root()); err != nil {
			return
		}
	} else {
		d.check("install root")
	}
	for _, name := range state.FlawChecks[1:] {
		var faults []fault
		for _, f := range flaws {
			if f.Check == name {
				faults = append(faults, fault{f.Cause, f.Remedy})
			}
		}
		d.check(name, faults...)
	}
}

// unitReport records what is wrong with the units. Owners that differ because
// User= is wrong are one fault, not two.
func (d *doctor) unitReport(r systemd.Report) {
	wrongUser := false
	for _, check := range r.Checks {
		what := "unit " + d.unit + ": " + check
		if check == "systemd" {
			what = check
		} else if strings.Contains(check, ".") { // another unit
			what = "unit " + check
		}
		var faults []fault
		for _, p := range r.Problems {
			if p.Check == check {
				faults = append(faults, fault{p.Cause, p.Remedy})
				wrongUser = wrongUser || strings.HasSuffix(check, "User=")
			}
		}
		d.check(what, faults...)
	}
	if wrongUser {
		d.findings = slices.DeleteFunc(d.findings, func(f Finding) bool { return f.What == "owners" })
	}
}

// cause is the error without the operation and the path.
func cause(err error) string {
	var path *fs.PathError
	if errors.As(err, &path) {
		return path.Err.Error()
	}
	return err.Error()
}

// AgentUnit is the unit in which the agent of a configuration runs.
func AgentUnit(c config.Config) string {
	if base, ok := strings.CutSuffix(c.Service.Unit, ".service"); ok {
		return base + "-agent.service"
	}
	return c.Service.Name + ".service"
}
