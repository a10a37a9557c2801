package systemd

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"
)

// Service is a unit, and what an upgrade of it needs. Unit and Layout are
// required.
type Service struct {
	Unit   string        // like "edge.service"
	Layout Layout        // of the install root, which may be a symbolic link
	Binary string        // in a version's directory; empty: any
	Window time.Duration // boot_health_window_secs; 0: TimeoutStartSec= is not checked
	Config string        // the path of config.toml, for the remedies
	// Attached says that an agent in a unit of its own looks after Unit.
	Attached bool
}

// Problem is a fault of a unit.
type Problem struct {
	Check  string // one of Report.Checks
	Cause  string
	Remedy string
	// Rollback says that the node could not judge a version, or not roll it back:
	// it must take no upgrade.
	Rollback bool
}

func (p Problem) Error() string { return p.Cause + ": " + p.Remedy }

// Report holds the checks that were made, in a fixed order, and the problems
// that they found. A check without a problem passed.
type Report struct {
	Checks   []string
	Problems []Problem
}

// Rollback returns an error that names the problems because of which the node
// must take no upgrade, each with its remedy, or nil.
func (r Report) Rollback() error {
	var errs []error
	for _, p := range r.Problems {
		if p.Rollback && len(errs) < 3 {
			errs = append(errs, p)
		}
	}
	return errors.Join(errs...)
}

// kind says what a unit is to an upgrade.
type kind int

const (
	linked   kind = 1 << iota // the service, which is the agent itself
	attached                  // the service, with an agent beside it
	beside                    // that agent
)

// unit is what a check sees.
type unit struct {
	Service
	kind kind
	p    map[string]string // as systemctl show prints it
	real string            // Root without links
	// agent is the program that the unit beside an attached service starts.
	agent string
}

// checks are made in this order. "unit file" is the first: without a unit the
// others say nothing.
var checks = []struct {
	name  string
	kinds kind
	run   func(unit) []Problem
}{
	{"daemon-reload", linked | attached | beside, unit.checkReload},
	{"enabled", linked | attached | beside, unit.checkEnabled},
	{"Restart=", linked | attached | beside, unit.checkRestart},
	{"start limits", linked | attached | beside, unit.checkLimits},
	{"watchdog", linked | attached, unit.checkWatchdog},
	{"ExecStart=", linked | attached, unit.checkExecStart},
	{"paths in current", linked | attached, unit.checkPaths},
	{"Type=", linked | attached | beside, unit.checkType},
	{"User=", linked | beside, unit.checkUser},
	{"TimeoutStartSec=", linked, unit.checkTimeout},
	{"WatchdogSec=", linked | beside, unit.checkWatchdogSec},
	{"ReadWritePaths=", linked | beside, unit.checkWritable},
	{"LimitFSIZE=", linked | beside, unit.checkFileSize},
	{"network", linked | beside, unit.checkNetwork},
}

// shown are the properties that the checks read.
var shown = []string{
	"LoadState", "LoadError", "FragmentPath", "DropInPaths", "NeedDaemonReload", "UnitFileState",
	"Restart", "RestartPreventExitStatus", "RemainAfterExit", "RestartUSec", "RestartSteps", "RestartMaxDelayUSec", "StartLimitIntervalUSec", "StartLimitBurst",
	"ExecCondition", "ExecConditionEx", "ExecStartPre", "ExecStart", "EnvironmentFiles", "WorkingDirectory", "RootDirectory",
	"Type", "NotifyAccess", "User", "DynamicUser", "TimeoutStartUSec", "WatchdogUSec",
	"ProtectSystem", "ProtectHome", "PrivateTmp", "ReadWritePaths", "ReadOnlyPaths", "InaccessiblePaths", "NoExecPaths", "ExecPaths", "StateDirectory",
	"RestrictAddressFamilies", "PrivateNetwork", "LimitFSIZE", "LimitFSIZESoft",
}

// Inspect makes all checks of the unit, and in attached mode those of the
// agent's units, too. It changes nothing.
func (s Service) Inspect(ctx context.Context) Report {
	if err := Booted(); err != nil {
		return noSystemd(s, err)
	}
	k := linked
	if s.Attached {
		k = attached
	}
	p, err := show(ctx, s.Unit, shown...)
	if err != nil {
		return Report{[]string{"systemd"}, []Problem{{Check: "systemd", Cause: fmt.Sprintf("systemctl does not answer (%v)", err),
			Remedy: "see why: systemctl show " + s.Unit, Rollback: s.Attached}}}
	}
	if !s.Attached {
		return s.report(k, p, "")
	}
	base := strings.TrimSuffix(s.Unit, ".service")
	agent := s
	agent.Unit = base + "-agent.service"
	ap, err := show(ctx, agent.Unit, shown...)
	if err != nil {
		ap = nil
	}
	program := ""
	if lines := execLines(ap["ExecStart"]); len(lines) > 0 {
		program = lines[0].path
	}
	all := s.report(k, p, program)
	if ap != nil && (ap["LoadState"] != "not-found" || s.Config != "") {
		all.add(agent.Unit+" ", agent.report(beside, ap, ""))
	}
	path := base + "-restart.path"
	if pp, err := show(ctx, path, "LoadState", "ActiveState", "UnitFileState"); err == nil {
		all.add("", s.restartPath(path, pp))
	}
	return all
}

func noSystemd(s Service, err error) Report {
	return Report{[]string{"systemd"}, []Problem{{Check: "systemd", Cause: err.Error(), Rollback: true,
		Remedy: "run the service under systemd; another supervisor must run `edge-agent watchdog --root " + s.Layout.Root() + "` before each start, and restart the service whenever it ends"}}}
}

// add appends the checks of another unit, with prefix before their names.
func (r *Report) add(prefix string, more Report) {
	for _, c := range more.Checks {
		r.Checks = append(r.Checks, prefix+c)
	}
	for _, p := range more.Problems {
		p.Check = prefix + p.Check
		r.Problems = append(r.Problems, p)
	}
}

// report makes the checks of one unit. p holds what systemctl show printed.
func (s Service) report(k kind, p map[string]string, agent string) Report {
	u := unit{Service: s, kind: k, p: p, real: resolve(s.Layout.Root()), agent: agent}
	r := Report{Checks: []string{"unit file"}}
	if problem, ok := u.checkLoaded(); !ok {
		r.Problems = append(r.Problems, problem)
		return r
	}
	for _, c := range checks {
		if c.kinds&k == 0 {
			continue
		}
		r.Checks = append(r.Checks, c.name)
		for _, problem := range c.run(u) {
			problem.Check = c.name
			r.Problems = append(r.Problems, problem)
		}
	}
	return r
}

// restartPath checks the unit by which an attached agent restarts its service.
func (s Service) restartPath(path string, p map[string]string) Report {
	r := Report{Checks: []string{path}}
	if p["ActiveState"] != "active" {
		r.Problems = []Problem{{Check: path, Rollback: true,
			Cause:  fmt.Sprintf("%s is %s, so %s could not be restarted into a new version", path, p["ActiveState"], s.Unit),
			Remedy: "run: systemctl enable --now " + path}}
	} else if p["UnitFileState"] == "disabled" {
		r.Problems = []Problem{{Check: path, Cause: path + " is not enabled: it is gone after a reboot", Remedy: "run: systemctl enable " + path}}
	}
	return r
}

// Fit returns why a version of this service could not be judged or rolled back,
// with the remedy, or nil. What systemctl does not tell is no reason.
func (s Service) Fit(ctx context.Context) error { return s.Inspect(ctx).Rollback() }

// FitSelf is Fit for the unit whose service this process is. Where this process
// is not the service of a unit, there is no unit to check, and it returns nil.
func (s Service) FitSelf(ctx context.Context) error {
	name, err := Self()
	if err != nil || Booted() != nil {
		return nil
	}
	s.Unit = name
	p, err := show(ctx, name, append(shown, "MainPID")...)
	if err != nil {
		return nil
	}
	// A process that another service started, as a test runner does, is not it.
	if p["MainPID"] != fmt.Sprint(os.Getpid()) && !strings.Contains(p["ExecStart"]+p["ExecStartPre"], s.Layout.Root()+"/") {
		return nil
	}
	return s.report(linked, p, "").Rollback()
}

// Fit returns why a version of unit, which is the agent itself, could not be
// judged or rolled back, or nil.
func Fit(ctx context.Context, unit string, l Layout) error {
	return Service{Unit: unit, Layout: l}.Fit(ctx)
}

// Fit returns why a version of the unit could not be judged, restarted or
// rolled back, or nil.
func (a Attached) Fit(ctx context.Context) error {
	return Service{Unit: a.Name, Layout: a.Layout, Attached: true}.Fit(ctx)
}

// CheckRestarts returns an error if systemd could leave this process's unit
// stopped before the start that rolls back. What cannot be known is no error.
// A service that knows its install root uses Service.FitSelf, which checks more.
func CheckRestarts(ctx context.Context) error {
	name, err := Self()
	if err != nil {
		return nil
	}
	p, err := show(ctx, name, shown...)
	if err != nil {
		return nil
	}
	u := unit{Service: Service{Unit: name}, kind: linked, p: p}
	return Report{Problems: append(u.checkLimits(), u.checkRestart()...)}.Rollback()
}

// files are the files of the unit, the one that counts most first.
func (u unit) files() []string {
	dropIns := strings.Fields(u.p["DropInPaths"])
	var out []string
	for i := len(dropIns) - 1; i >= 0; i-- {
		out = append(out, dropIns[i])
	}
	return append(out, u.p["FragmentPath"])
}

// setting returns the file in which systemd last found key=, or "".
func (u unit) setting(key string) string {
	for _, path := range u.files() {
		b, err := os.ReadFile(path)
		if err != nil {
			continue
		}
		for line := range strings.Lines(string(b)) {
			if k, _, ok := strings.Cut(strings.TrimSpace(line), "="); ok && strings.TrimSpace(k) == key {
				return path
			}
		}
	}
	return ""
}

// reload makes a changed unit file count.
func (u unit) reload() string { return "systemctl daemon-reload && systemctl restart " + u.Unit }

// set is the remedy of a setting that has a wrong value.
func (u unit) set(section, key, value string) string {
	switch file := u.setting(key); {
	case file == "" && u.p["FragmentPath"] == "":
		return fmt.Sprintf("set %s=%s in [%s] of %s, then run: %s", key, value, section, u.Unit, u.reload())
	case file == "":
		return fmt.Sprintf("set %s=%s in [%s] of %s, then run: %s", key, value, section, u.p["FragmentPath"], u.reload())
	case file != u.p["FragmentPath"]:
		return fmt.Sprintf("remove %s= from %s (it must be %s), then run: %s", key, file, value, u.reload())
	default:
		return fmt.Sprintf("set %s=%s in [%s] of %s, then run: %s", key, value, section, file, u.reload())
	}
}

// again is the remedy of a unit that lacks what `edge-agent unit` writes: key.
func (u unit) again(key string) string {
	if file := u.setting(key); file != "" && file != u.p["FragmentPath"] && !strings.HasSuffix(file, "/50-edge-agent.conf") {
		return fmt.Sprintf("remove every %s= from %s, then run: %s", key, file, u.reload())
	}
	return "write the unit again: " + u.command()
}

// command writes the units of this service.
func (u unit) command() string {
	return fmt.Sprintf("edge-agent unit --config %s --user %s --dir /etc/systemd/system, then: %s",
		cmp.Or(u.Config, u.Layout.ConfigFile()), u.ownerName(), u.reload())
}

// Starts returns an error if the unit does not start its program through the
// install root.
func (s Service) Starts(ctx context.Context) error {
	p, err := show(ctx, s.Unit, shown...)
	if err != nil {
		return err
	}
	k := linked
	if s.Attached {
		k = attached
	}
	return Report{Problems: unit{Service: s, kind: k, p: p, real: resolve(s.Layout.Root())}.checkExecStart()}.Rollback()
}
