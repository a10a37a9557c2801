package systemd

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"
)

// Service is a unit that is to be upgraded. Unit and Layout are required.
type Service struct {
	Unit   string        // like "edge.service"
	Layout Layout        // of the install root, which may be a symbolic link
	Binary string        // the program, in a version's directory; "": any
	Window time.Duration // boot_health_window_secs; 0: TimeoutStartSec= is not checked
	Drain  time.Duration // drain_secs; 0: TimeoutStopSec= is not checked
	Config string        // path of config.toml, for the remedies
	// Attached means that an agent in a unit of its own upgrades Unit.
	Attached bool
}

// Problem is a fault of a unit.
type Problem struct {
	Check  string // one of Report.Checks
	Cause  string
	Remedy string
	// Rollback means that a trial could not be decided, or not be rolled back. The node
	// must refuse upgrades.
	Rollback bool
}

func (p Problem) Error() string { return p.Cause + ": " + p.Remedy }

// Report lists the checks that were made, in a fixed order, and the problems that they
// found. A check without a problem passed.
type Report struct {
	Checks   []string
	Problems []Problem
}

// Rollback returns an error with the first three problems for which the node must refuse
// upgrades, each with its remedy, or nil.
func (r Report) Rollback() error {
	var errs []error
	for _, p := range r.Problems {
		if p.Rollback && len(errs) < 3 {
			errs = append(errs, p)
		}
	}
	return errors.Join(errs...)
}

// kind is the role of a unit in an upgrade.
type kind int

const (
	linked   kind = 1 << iota // the service, which is the agent itself
	attached                  // the service, with an agent beside it
	beside                    // the agent of an attached service
)

// unit is the input of a check.
type unit struct {
	Service
	kind kind
	p    map[string]string // properties, as systemctl show prints them
	real string            // the root, without links
	// agent is the program that the unit beside an attached service starts.
	agent string
}

// checks are made in this order, after "unit file": without a unit they mean nothing.
var checks = []struct {
	name  string
	kinds kind
	run   func(unit) []Problem
}{
	{"daemon-reload", linked | attached | beside, unit.checkReload},
	{"enabled", linked | attached | beside, unit.checkEnabled},
	{"Restart=", linked | attached | beside, unit.checkRestart},
	{"KillMode=", linked | attached, unit.checkKillMode},
	{"start limits", linked | attached | beside, unit.checkLimits},
	{"watchdog", linked | attached, unit.checkWatchdog},
	{"ExecStart=", linked | attached, unit.checkExecStart},
	{"ExecCondition=", attached, unit.checkCondition},
	{"paths in current", linked | attached, unit.checkPaths},
	{"privileges of the program", linked | attached, unit.checkPrivileges},
	{"Type=", linked | attached | beside, unit.checkType},
	{"User=", linked | beside, unit.checkUser},
	{"TimeoutStartSec=", linked, unit.checkTimeout},
	{"TimeoutStopSec=", linked, unit.checkStopTimeout},
	{"WatchdogSec=", linked | beside, unit.checkWatchdogSec},
	{"ReadWritePaths=", linked | beside, unit.checkWritable},
	{"LimitFSIZE=", linked | beside, unit.checkFileSize},
	{"network", linked | beside, unit.checkNetwork},
}

// shown lists the properties that the checks read.
var shown = []string{
	"LoadState", "LoadError", "FragmentPath", "DropInPaths", "NeedDaemonReload", "UnitFileState",
	"Restart", "RestartPreventExitStatus", "RemainAfterExit", "RestartUSec", "RestartSteps", "RestartMaxDelayUSec", "StartLimitIntervalUSec", "StartLimitBurst",
	"KillMode", "SendSIGKILL", "TimeoutStopUSec", "Wants", "After", "DefaultDependencies",
	"ExecCondition", "ExecConditionEx", "ExecStartPre", "ExecStart", "EnvironmentFiles", "WorkingDirectory", "RootDirectory",
	"RootImage", "RootHashPath", "RootHashSignaturePath", "RootVerityPath", "TTYPath", "NetworkNamespacePath", "IPCNamespacePath",
	"MountImages", "ExtensionImages", "ExtensionDirectories", "BindPaths", "BindReadOnlyPaths", "Requires", "Requisite", "BindsTo",
	"Type", "NotifyAccess", "AmbientCapabilities", "NoNewPrivileges", "User", "DynamicUser", "Group", "SupplementaryGroups", "TimeoutStartUSec", "WatchdogUSec",
	"ProtectSystem", "ProtectHome", "PrivateTmp", "ReadWritePaths", "ReadOnlyPaths", "InaccessiblePaths", "NoExecPaths", "ExecPaths", "StateDirectory",
	"RestrictAddressFamilies", "PrivateNetwork", "LimitFSIZE", "LimitFSIZESoft",
}

// Inspect makes all checks of the unit, and in attached mode also of the units of the
// agent. It changes nothing.
func (s Service) Inspect(ctx context.Context) Report {
	r, _ := s.inspect(ctx)
	if s.Attached && Booted() == nil {
		r.add("", s.checkOlder(ctx))
	}
	return r
}

// inspect is Inspect. The error says that systemd did not answer every question in time:
// then the report is for people only. It may lack problems, and have some that are none.
func (s Service) inspect(ctx context.Context) (Report, error) {
	if err := Booted(); err != nil {
		return noSystemd(s, err), nil
	}
	k := linked
	if s.Attached {
		k = attached
	}
	p, err := show(ctx, s.Unit, shown...)
	if err != nil {
		return Report{[]string{"systemd"}, []Problem{{Check: "systemd", Cause: fmt.Sprintf("systemctl does not answer (%v)", err),
			Remedy: "see why: systemctl show " + s.Unit, Rollback: s.Attached}}}, unanswered(err)
	}
	missing := s.complete(ctx, p)
	if !s.Attached {
		return s.report(k, p, ""), missing
	}
	base := strings.TrimSuffix(s.Unit, ".service")
	agent := s
	agent.Unit = base + "-agent.service"
	ap, err := show(ctx, agent.Unit, shown...)
	if err != nil {
		ap, missing = nil, cmp.Or(missing, unanswered(err))
	}
	program := ""
	if lines := execLines(ap["ExecStart"]); len(lines) > 0 {
		program = lines[0].path
	}
	p[agentPrefix+"User"] = ap["User"]
	all := s.report(k, p, program)
	if ap != nil && (ap["LoadState"] != "not-found" || s.Config != "") {
		all.add(agent.Unit+" ", agent.report(beside, ap, ""))
	}
	rp, err := showAll(ctx, answerTime, []string{restartPath(s.Unit), restartUnit(s.Unit)}, "LoadState", "ActiveState", "UnitFileState", "Paths", "ExecStart")
	if err != nil {
		return all, cmp.Or(missing, unanswered(err))
	}
	all.add("", unit{Service: s, kind: k, p: p, real: resolve(s.Layout.Root())}.checkRequests(rp[0], rp[1], ap))
	return all, missing
}

// complete adds to p what further questions tell about the unit. The error says that
// systemd did not answer one in time.
func (s Service) complete(ctx context.Context, p map[string]string) error {
	return cmp.Or(unanswered(addHidden(ctx, s.Unit, p)), s.addGuard(ctx, p))
}

// noSystemd returns the report of a machine that does not run systemd.
func noSystemd(s Service, err error) Report {
	return Report{[]string{"systemd"}, []Problem{{Check: "systemd", Cause: err.Error(), Rollback: true,
		Remedy: "run the service under systemd; another supervisor must run `edge-agent watchdog --root " + s.Layout.Root() + "` before each start, and restart the service whenever it ends"}}}
}

// add appends the report of another unit, with prefix before the names of its checks.
func (r *Report) add(prefix string, more Report) {
	for _, c := range more.Checks {
		r.Checks = append(r.Checks, prefix+c)
	}
	for _, p := range more.Problems {
		p.Check = prefix + p.Check
		r.Problems = append(r.Problems, p)
	}
}

// report makes the checks of one unit, with its properties.
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
	if _, known := p[guardPrefix+"LoadState"]; known {
		r.add("", Report{[]string{watchdogUnit(s.Unit)}, u.checkGuard()})
	}
	return r
}

// Fit returns an error, with the remedy, if a trial of this service could not be decided
// or rolled back, or nil. An unknown property is no reason. If systemd did not answer in
// time, the error has a method Timeout that returns true: ask again.
func (s Service) Fit(ctx context.Context) error {
	r, err := s.inspect(ctx)
	return cmp.Or(err, r.Rollback())
}

// FitSelf is Fit for the unit of this process. It returns nil if this process is not the
// service of a unit.
func (s Service) FitSelf(ctx context.Context) error {
	p, err := s.self(ctx)
	if p == nil {
		return err
	}
	s = s.named()
	err = s.complete(ctx, p)
	return cmp.Or(err, s.report(linked, p, "").Rollback())
}

// named returns s with the name of this process's unit.
func (s Service) named() Service {
	s.Unit, _ = Self()
	return s
}

// self returns the properties of this process's unit, or nil if this process is not its
// service. The error says that systemd did not answer.
func (s Service) self(ctx context.Context, more ...string) (map[string]string, error) {
	name, err := Self()
	if err != nil || Booted() != nil {
		return nil, nil
	}
	p, err := show(ctx, name, slices.Concat(shown, []string{"MainPID"}, more)...)
	if err != nil {
		return nil, noAnswer{err}
	}
	// A process that another service started, as by a test runner, has no unit to check.
	if p["MainPID"] != fmt.Sprint(os.Getpid()) && !strings.Contains(p["ExecStart"]+p["ExecStartPre"], s.Layout.Root()+"/") {
		return nil, nil
	}
	return p, nil
}

// Fit is Service.Fit for a unit that is the agent itself.
func Fit(ctx context.Context, unit string, l Layout) error {
	return Service{Unit: unit, Layout: l}.Fit(ctx)
}

// Fit returns an error, with the remedy, if a trial of the unit could not be decided,
// restarted or rolled back, or nil.
func (a Attached) Fit(ctx context.Context) error {
	return Service{Unit: a.Name, Layout: a.Layout, Attached: true}.Fit(ctx)
}

// files returns the files of the unit, in falling precedence.
func (u unit) files() []string {
	dropIns := strings.Fields(u.p["DropInPaths"])
	var out []string
	for i := len(dropIns) - 1; i >= 0; i-- {
		out = append(out, dropIns[i])
	}
	return append(out, u.p["FragmentPath"])
}

// fileWith returns the file that sets key, with the highest precedence, or "".
func (u unit) fileWith(key string) string {
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

// reloadCommand returns the command that applies a changed unit file.
func (u unit) reloadCommand() string { return "systemctl daemon-reload && systemctl restart " + u.Unit }

// setRemedy returns how to correct the value of a setting.
func (u unit) setRemedy(section, key, value string) string {
	switch file := u.fileWith(key); {
	case file == "" && u.p["FragmentPath"] == "":
		return fmt.Sprintf("set %s=%s in [%s] of %s, then run: %s", key, value, section, u.Unit, u.reloadCommand())
	case file == "":
		return fmt.Sprintf("set %s=%s in [%s] of %s, then run: %s", key, value, section, u.p["FragmentPath"], u.reloadCommand())
	case file != u.p["FragmentPath"]:
		return fmt.Sprintf("remove %s= from %s (it must be %s), then run: %s", key, file, value, u.reloadCommand())
	default:
		return fmt.Sprintf("set %s=%s in [%s] of %s, then run: %s", key, value, section, file, u.reloadCommand())
	}
}

// rewriteRemedy returns how to restore a setting that `edge-agent unit` writes.
func (u unit) rewriteRemedy(key string) string {
	if file := u.fileWith(key); file != "" && file != u.p["FragmentPath"] && !strings.HasSuffix(file, "/50-edge-agent.conf") {
		return fmt.Sprintf("remove every %s= from %s, then run: %s", key, file, u.reloadCommand())
	}
	return "write the unit again: " + u.writeCommand()
}

// writeCommand returns the command that writes the units of this service.
func (u unit) writeCommand() string {
	return fmt.Sprintf("edge-agent unit --config %s --user %s --dir /etc/systemd/system, then: %s",
		cmp.Or(u.Config, u.Layout.ConfigFile()), u.ownerName(), u.reloadCommand())
}

// CheckAttach returns an error, with the remedy, if the unit cannot be one that an agent
// beside it upgrades, whatever edge-agent writes for it: it does not start its program
// through the install root, or is of a type that has no running version.
func (s Service) CheckAttach(ctx context.Context) error {
	p, err := show(ctx, s.Unit, shown...)
	if err != nil {
		return err
	}
	u := unit{Service: s, kind: attached, p: p, real: resolve(s.Layout.Root())}
	switch p["LoadState"] {
	case "loaded":
		return Report{Problems: slices.Concat(u.checkType(), u.checkExecStart())}.Rollback()
	case "bad-setting": // as a drop-in that an earlier edge-agent wrote makes it
		return Report{Problems: u.checkType()}.Rollback()
	}
	return nil
}
