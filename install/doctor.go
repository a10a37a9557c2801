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
	"github.com/bilbycast/edge-agent/fsutil"
	"github.com/bilbycast/edge-agent/state"
	"github.com/bilbycast/edge-agent/systemd"
	"github.com/bilbycast/edge-agent/verify"
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

	c     agent.Config // with its defaults
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
		root = filepath.Dir(d.config)
		if _, err := os.Lstat(filepath.Join(root, "versions")); err != nil {
			return
		}
	}
	l, err := state.At(root)
	if err != nil {
		d.check("install root", fault{err.Error(), "set service.install_root to an absolute path"})
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
	d.program()
	d.space()
	d.trust()
	d.service(ctx)
	d.manager(ctx)
}

// configuration loads config.toml.
func (d *doctor) configuration() bool {
	c, err := agent.Load(d.config)
	if err == nil {
		c, err = agent.Check(c)
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
	case strings.Contains(err.Error(), "chmod 600"):
		remedy = "make it unreadable for others: chmod 600 " + d.config
	}
	d.check("configuration", fault{err.Error(), remedy})
	return false
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
	return systemd.Service{Unit: d.unit, Root: d.l.Root(), Binary: d.c.Service.Binary, Config: d.config, Attached: d.c.Service.Unit != "",
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

// readable checks that the agent's user can read what the configuration names.
func (d *doctor) readable() {
	var faults []fault
	if why := d.access(d.config, d.user, 4); why != "" && !d.failed("unit "+d.unit+": User=") {
		name := systemd.UserName(d.user)
		faults = append(faults, fault{fmt.Sprintf("%s cannot read %s: %s", name, d.config, why), fmt.Sprintf("run: chown %s: %s && chmod 600 %[2]s", name, d.config)})
	}
	if faults != nil { // it was loaded by another user
		d.findings = slices.DeleteFunc(d.findings, func(f Finding) bool { return f.What == "configuration" })
		d.check("configuration", faults...)
	}
	path := d.c.Manager.CAFile
	if path == "" {
		return
	}
	remedy := "put the PEM of the manager's CA there, readable for " + systemd.UserName(d.user) + ", or correct manager.ca_file in " + d.config
	why := d.access(path, d.user, 4)
	if why == "" {
		if b, err := fsutil.ReadFile(resolved(path), 1<<20); err != nil {
			why = err.Error()
		} else if !strings.Contains(string(b), "-----BEGIN CERTIFICATE-----") {
			why = "it holds no certificate in PEM"
		}
	}
	for _, hidden := range []string{"/home/", "/root/", "/run/user/", "/tmp/", "/var/tmp/"} {
		if why == "" && strings.HasPrefix(resolved(path), hidden) && d.state.Load == "loaded" && d.sandboxed(hidden) {
			why, remedy = "the unit's sandbox hides "+strings.TrimSuffix(hidden, "/")+" from the service", "put it elsewhere, like /etc, and correct manager.ca_file in "+d.config
		}
	}
	if why != "" {
		d.check("ca_file", fault{fmt.Sprintf("manager.ca_file %s cannot be used: %s", path, why), remedy})
		return
	}
	d.check("ca_file")
}

// sandboxed reports whether the agent's unit hides dir.
func (d *doctor) sandboxed(dir string) bool {
	if strings.HasSuffix(dir, "tmp/") {
		return d.state.PrivateTmp
	}
	return d.state.ProtectHome
}

// program checks that what the unit starts is there.
func (d *doctor) program() {
	var faults []fault
	who := d.user
	if d.c.Service.Unit != "" {
		if s, err := systemd.Look(context.Background(), d.unit); err == nil {
			if uid, ok := systemd.UserID(s.User); ok {
				who = uid
			}
		}
	}
	links := []string{"current", "last-good"}
	if d.c.Service.Unit != "" {
		links = links[:1] // the watchdog is edge-agent
	}
	for _, link := range links {
		dir := filepath.Join(d.l.Root(), link)
		if _, err := os.Stat(dir); err != nil {
			continue // the links are a check of their own
		}
		path := filepath.Join(dir, d.c.Service.Binary)
		remedy := fmt.Sprintf("roll back to a version that is complete (edge-agent rollback VERSION --root %s), or restore the file", d.l.Root())
		st, err := os.Stat(path)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			faults = append(faults, fault{path + " is missing", remedy})
		case err != nil:
			faults = append(faults, fault{err.Error(), "see the owners and modes: namei -l " + path})
		case !st.Mode().IsRegular():
			faults = append(faults, fault{path + " is not a regular file", remedy})
		case st.Mode()&0o111 == 0:
			faults = append(faults, fault{path + " is not executable", "run: chmod 755 " + resolved(path)})
		default:
			if why := d.access(path, who, 1); why != "" {
				faults = append(faults, fault{fmt.Sprintf("%s cannot execute %s: %s", systemd.UserName(who), path, why), "see the owners and modes: namei -l " + path})
			}
		}
		if len(faults) > 0 && resolved(dir) == resolved(filepath.Join(d.l.Root(), "last-good")) {
			break // the same version
		}
	}
	d.check("program", faults...)
}

// Least free space that an upgrade needs, besides three times the largest
// installed version: the tarball, the new version, and room for the service.
const (
	minSpace  = 32 << 20 // bytes
	minInodes = 1000
)

// space compares what is free with what an upgrade needs.
func (d *doctor) space() {
	free, err := fsutil.Free(d.l.Versions())
	if err != nil {
		if d.failed("links") {
			return
		}
		d.check("disk space", fault{err.Error(), "see the mount of " + d.l.Versions()})
		return
	}
	bytes, files := largest(d.l.Versions())
	bytes, files = max(3*bytes, minSpace), max(3*files, minInodes)
	var faults []fault
	where := "df -h " + d.l.Versions()
	if free.Bytes < bytes {
		faults = append(faults, fault{fmt.Sprintf("%s has %d MiB free; an upgrade needs %d MiB (three times the largest version, at least %d MiB)", d.l.Versions(), free.Bytes>>20, bytes>>20, minSpace>>20),
			"free space on that file system: " + where})
	}
	if free.Inodes < files {
		faults = append(faults, fault{fmt.Sprintf("%s has %d inodes free; an upgrade needs %d", d.l.Versions(), free.Inodes, files), "remove files from that file system: df -i " + d.l.Versions()})
	}
	d.check("disk space", faults...)
}

// largest returns the bytes and the files of the largest version.
func largest(versions string) (bytes, files uint64) {
	entries, _ := os.ReadDir(versions) // an unreadable one is reported elsewhere
	for _, e := range entries {
		var b, n uint64
		filepath.WalkDir(filepath.Join(versions, e.Name()), func(_ string, f fs.DirEntry, err error) error {
			if err != nil {
				return nil // what cannot be read does not count
			}
			n++
			if st, err := f.Info(); err == nil && st.Mode().IsRegular() {
				b += uint64(st.Size())
			}
			return nil
		})
		bytes, files = max(bytes, b), max(files, n)
	}
	return bytes, files
}

// trust checks the trust root that was renewed.
func (d *doctor) trust() {
	_, unfit, err := verify.LoadKept(nil, os.DirFS(d.l.TrustDir()))
	if err := errors.Join(err, unfit); err != nil {
		d.check("trust", fault{fmt.Sprintf("the renewed trust root in %s is not used: %v", d.l.TrustDir(), err),
			"renew it: edge-agent trust update --root " + d.l.Root() + " --from DIR; or remove " + d.l.TrustDir() + ", so that the compiled-in one is used"})
		return
	}
	d.check("trust")
}

// access returns why a user may not open path (4: read, 1: execute), or "".
func (d *doctor) access(path string, uid uint32, want fs.FileMode) string {
	if uid == 0 {
		return ""
	}
	groups := groupsOf(uid)
	may := func(st fs.FileInfo, bit fs.FileMode) bool {
		o, g, ok := ownerIDs(st)
		switch {
		case !ok:
			return true
		case o == uid:
			bit <<= 6
		case slices.Contains(groups, g):
			bit <<= 3
		}
		return st.Mode().Perm()&bit != 0
	}
	real := resolved(path)
	for dir := filepath.Dir(real); ; dir = filepath.Dir(dir) {
		if st, err := os.Stat(dir); err == nil && !may(st, 1) {
			return fmt.Sprintf("it may not enter %s (mode %04o)", dir, st.Mode().Perm())
		}
		if dir == "/" {
			break
		}
	}
	st, err := os.Stat(real)
	if err != nil {
		return cause(err)
	}
	if !may(st, want) {
		return fmt.Sprintf("its mode is %04o, and it belongs to %s", st.Mode().Perm(), ownerName(st))
	}
	if uint32(os.Geteuid()) == uid && want == 4 {
		f, err := os.OpenFile(real, os.O_RDONLY|nonblock, 0)
		if err != nil {
			return cause(err)
		}
		f.Close()
	}
	return ""
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
func AgentUnit(c agent.Config) string {
	if base, ok := strings.CutSuffix(c.Service.Unit, ".service"); ok {
		return base + "-agent.service"
	}
	return c.Service.Name + ".service"
}
