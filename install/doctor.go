package install

import (
	"cmp"
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/bilbycast/edge-agent/agent"
	"github.com/bilbycast/edge-agent/config"
	"github.com/bilbycast/edge-agent/fsutil"
	"github.com/bilbycast/edge-agent/internal/state"
	"github.com/bilbycast/edge-agent/systemd"
)

// Finding is the result of one check of Doctor. `doctor --json` prints a list of findings,
// so its fields keep their names.
type Finding struct {
	What    string `json:"what"`
	OK      bool   `json:"ok"`
	Problem string `json:"problem,omitzero"` // cause and remedy
	Cause   string `json:"cause,omitzero"`
	Remedy  string `json:"remedy,omitzero"`
}

// Well reports whether every finding is OK.
func Well(findings []Finding) bool {
	return !slices.ContainsFunc(findings, func(f Finding) bool { return !f.OK })
}

// fault is a problem that a check found.
type fault struct{ cause, remedy string }

// Doctor checks that the node of a config.toml can run, upgrade and roll back. It changes
// nothing, besides temporary files that it removes. A check that passes is one finding; a check that fails has one finding for
// each problem.
//
// A process of root becomes the service's user for good, and adopts the environment of
// its unit, so that it sees what the service sees.
func Doctor(ctx context.Context, config string) []Finding {
	if abs, err := filepath.Abs(config); err == nil { // the remedies name it
		config = abs
	}
	d := &doctor{config: config}
	d.examine(ctx)
	return d.findings
}

type doctor struct {
	config   string
	findings []Finding

	c     config.Config // with the defaults
	l     state.Layout
	unit  string        // unit of the service
	agent string        // unit of the agent: in attached mode another one
	state systemd.State // state of the agent's unit
	user  uint32        // user of the agent
	// copied is whether the node runs with the copy of config.toml. What is wrong with
	// the file itself is then reported.
	copied bool
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

// failed reports whether a check found a problem.
func (d *doctor) failed(what string) bool {
	return slices.ContainsFunc(d.findings, func(f Finding) bool { return f.What == what && !f.OK })
}

// examine makes all checks.
func (d *doctor) examine(ctx context.Context) {
	if d.foreignDirectory(ctx) {
		return
	}
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
	if d.l = l; d.c.Service.Unit != "" {
		d.l = l.KeepGroup()
	}
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
	d.fileSystem(ctx)
	d.unitReport(report)
	d.readable()
	d.program(ctx)
	d.files(ctx)
	d.space()
	d.trust()
	d.clock()
	d.service(ctx)
	d.dependency(ctx)
	d.manager(ctx)
	d.offered()
}

// offered reports why the running agent refuses upgrades, if no other check found a
// problem.
func (d *doctor) offered() {
	why := agent.ParseUnable(d.state.Text)
	if why == "" || !Well(d.findings) || d.state.Active != "active" {
		return
	}
	d.check("upgrades", fault{"the running agent refuses upgrades: " + why, "do what the reason says, and then: systemctl restart " + d.unit})
}

// units inspects the units of the node, and adopts the user and the environment of the
// agent's unit.
func (d *doctor) units(ctx context.Context) systemd.Report {
	d.unit = cmp.Or(d.c.Service.Unit, d.c.Service.Name+".service")
	d.agent = AgentUnit(d.c)
	s, err := systemd.QueryState(ctx, d.agent)
	if err == nil && s.Load == "loaded" {
		if uid, ok := systemd.UserID(s.User); ok && (uid != 0 || s.User != "") {
			d.user = uid
		}
	}
	d.state = s
	adoptEnvironment(ctx, d.agent)
	service := systemd.Service{Unit: d.unit, Layout: d.l, Binary: d.c.Service.Binary, Config: d.config, Attached: d.c.Service.Unit != "",
		Window: time.Duration(d.c.Upgrade.BootHealthWindowSecs) * time.Second}
	if drain := d.c.Upgrade.DrainSecs; drain != nil {
		service.Drain = time.Duration(*drain) * time.Second
	}
	return service.Inspect(ctx)
}

// root checks the install root.
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
		if name == "owners" {
			faults = d.ownerless()
		}
		for _, f := range flaws {
			if f.Check != name {
				continue
			}
			if name == "owners" {
				f.Remedy = d.strangersRemedy(f.Remedy)
			}
			faults = append(faults, fault{f.Cause, f.Remedy})
		}
		d.check(name, faults...)
	}
}

// unitReport records the problems of the units. A wrong User= explains wrong owners, which
// are then no finding of their own.
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
			if p.Check != check {
				continue
			}
			remedy := p.Remedy
			switch {
			case strings.HasSuffix(check, "User="):
				wrongUser, remedy = true, d.userRemedy(p)
			case check == "unit file":
				remedy = d.unitRemedy(p)
			}
			faults = append(faults, fault{p.Cause, remedy})
		}
		d.check(what, faults...)
	}
	if wrongUser {
		d.findings = slices.DeleteFunc(d.findings, func(f Finding) bool { return f.What == "owners" })
	}
}

// cause returns the text of an error, without the operation and the path.
func cause(err error) string {
	var path *fs.PathError
	if errors.As(err, &path) {
		if why := fsutil.NameDenial(path); why != error(path) {
			return strings.TrimPrefix(why.Error(), path.Op+" "+path.Path+": ")
		}
		return path.Err.Error()
	}
	return err.Error()
}

// AgentUnit returns the name of the unit in which the agent of a configuration runs.
func AgentUnit(c config.Config) string {
	if base, ok := strings.CutSuffix(c.Service.Unit, ".service"); ok {
		return base + "-agent.service"
	}
	return c.Service.Name + ".service"
}
