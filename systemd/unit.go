package systemd

import (
	"cmp"
	"embed"
	"fmt"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
)

//go:embed units/*.tmpl
var unitTexts embed.FS

// Unit is the service that an install root belongs to. Name, Layout, Binary, User
// and WindowSecs are required.
type Unit struct {
	Name   string // of the service, without ".service"
	Layout Layout // of the install root
	Binary string // the program, in a version's directory
	User   string // the user that the unit runs as; it must own the root
	// WindowSecs is boot_health_window_secs of the configuration.
	WindowSecs   int
	RestartSecs  float64 // between two starts; default 0.1, and 1 for the agent of an attached service
	Steps        bool    // systemd has RestartSteps=: see HasRestartSteps
	WatchdogSecs int     // without an answer from the agent; default 30
	Environment  []string
	Journal      bool // the agent may read the journal: see LastLines
	// Linked lists the directories outside the root that links in it point to.
	Linked []string
	// Args, Writable and Devices are the service's own. Without them it runs `run --config`
	// alone, and its sandbox lets it write below the root, and has no hardware.
	Args     []string // after `run --config FILE`: any text of one line
	Writable []string // further directories and files that it writes to
	Devices  []string // that it reads and writes: /dev/snd/timer, or char-alsa for all of a driver
	// DrainSecs is drain_secs of the configuration: a stop has time for it twice.
	DrainSecs int
	// Attached is the service that the agent upgrades, like "app.service", and Agent the
	// absolute path of edge-agent. Attached is empty if the service is the agent itself.
	Attached, Agent string
	// Early means that the attached service starts before basic.target
	// (DefaultDependencies=no). Then no other unit can come before it: see IsEarly.
	Early bool
}

// File is a unit file, or a drop-in of one: Name is its path below
// /etc/systemd/system.
type File struct{ Name, Text string }

// plain matches a value that a unit file takes literally: it has no space, quote,
// backslash, % or $, and does not begin like an option.
var plain = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`^[0-9A-Za-z_./:=@+,][0-9A-Za-z_./:=@+,-]*$`) })

// names matches the name of a unit or of a user, which is used in file names and as an
// argument of commands.
var names = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`^[0-9A-Za-z_][0-9A-Za-z_.@-]{0,99}$`) })

// check refuses values that must not get into a unit file or its path.
func (u Unit) check() error {
	if u.WindowSecs < 1 {
		return fmt.Errorf("unit: no health window")
	}
	root := u.Layout.Root()
	if !strings.HasPrefix(root, "/") {
		return fmt.Errorf("unit: root %q is not an absolute path", root)
	}
	values := [][2]string{{"name", u.Name}, {"root", root}, {"binary", u.Binary}, {"user", u.User}}
	named := [][2]string{{"name", u.Name}, {"user", u.User}}
	if u.Attached != "" {
		values = append(values, [2]string{"unit", u.Attached}, [2]string{"agent", u.Agent})
		if !strings.HasPrefix(u.Agent, "/") {
			return fmt.Errorf("unit: agent %q is not an absolute path", u.Agent)
		}
		if in(u.Agent, root) {
			return fmt.Errorf("unit: agent %s is inside the install root, where %s could change what root runs; install edge-agent elsewhere, like /usr/local/bin", u.Agent, u.User)
		}
		base, ok := strings.CutSuffix(u.Attached, ".service")
		if !ok {
			return fmt.Errorf("unit: unit %q does not end in .service", u.Attached)
		}
		named = append(named, [2]string{"unit", base})
	}
	for _, v := range values {
		if !plain().MatchString(v[1]) {
			return fmt.Errorf("unit: %s %q is not made of letters, digits and _./:=@+,- alone, or begins with -", v[0], v[1])
		}
	}
	for _, v := range named {
		if !names().MatchString(v[1]) {
			return fmt.Errorf("unit: %s %q is not a name: 1 to 100 letters, digits and _.@-, beginning with a letter, a digit or _", v[0], v[1])
		}
	}
	if root != filepath.Clean(root) || root == "/" {
		return fmt.Errorf("unit: root %q is not a clean path below /: leave out .. and double slashes", root)
	}
	if !filepath.IsLocal(u.Binary) || u.Binary != filepath.Clean(u.Binary) || u.Binary == "." {
		return fmt.Errorf("unit: binary %q is not a path inside a version's directory", u.Binary)
	}
	for _, dir := range u.Linked {
		if !plain().MatchString(dir) || !filepath.IsAbs(dir) || dir != filepath.Clean(dir) {
			return fmt.Errorf("unit: directory %q, which a link in the install root points to, is not a clean path of letters, digits and _./:=@+,- alone", dir)
		}
	}
	for _, v := range u.Environment {
		if !plain().MatchString(v) || !strings.Contains(v, "=") {
			return fmt.Errorf("unit: environment %q is not NAME=VALUE of letters, digits and _./:=@+,- alone", v)
		}
	}
	return u.checkOwn()
}

// in reports whether path is inside dir, by name or through links.
func in(path, dir string) bool {
	return strings.HasPrefix(path, dir+"/") || strings.HasPrefix(filepath.Clean(path), dir+"/") || strings.HasPrefix(resolve(path), resolve(dir)+"/")
}

// Files returns the unit of the service, the units that systemd starts before and after each
// start of it, and two units that restart it when it requests that. In attached mode it returns the agent's unit, a drop-in for the
// unit of the service, and two units that restart the service when the agent requests
// it. The first file is the agent's own unit. Files refuses values that would need
// quoting, and names that could be another file or an option.
func (u Unit) Files() ([]File, error) {
	if u.RestartSecs == 0 {
		u.RestartSecs = 0.1 // the watchdog waits longer where it ends again and again
		if u.Attached != "" {
			u.RestartSecs = 1 // no watchdog runs before the agent itself
		}
	}
	if u.WatchdogSecs == 0 {
		u.WatchdogSecs = 30
	}
	if err := u.check(); err != nil {
		return nil, err
	}
	restart := restartUnit(u.service())
	files := [][2]string{
		{"service.tmpl", u.service()},
		{"restart.tmpl", restart},
		{"respawn.path.tmpl", respawnPath(u.service())},
		{"respawn.service.tmpl", respawnUnit(u.service())},
	}
	if u.Attached != "" {
		files = [][2]string{
			{"agent.tmpl", u.base() + "-agent.service"},
			{"dropin.tmpl", u.Attached + ".d/50-edge-agent.conf"},
			{"restart.path.tmpl", restartPath(u.service())},
			{"restart.service.tmpl", restart},
		}
	}
	files = append(files, [2]string{"watchdog.tmpl", watchdogUnit(u.service())}, [2]string{"retry.tmpl", retryUnit(u.service())})
	var out []File
	for _, f := range files {
		text, err := u.fill(f[0])
		if err != nil {
			return nil, fmt.Errorf("unit: %w", err)
		}
		out = append(out, File{f[1], text})
	}
	return out, nil
}

// fill replaces the placeholders of a unit text. Package text/template would call methods
// by name, for which the linker keeps every exported method: a quarter of the program.
func (u Unit) fill(name string) (string, error) {
	text, err := unitTexts.ReadFile("units/" + name)
	if err != nil {
		return "", err
	}
	sandbox, err := unitTexts.ReadFile("units/sandbox.tmpl")
	if err != nil {
		return "", err
	}
	var extra, writable strings.Builder
	if u.Journal {
		extra.WriteString("# So that the event of a rollback can have the last lines of the version that failed.\nSupplementaryGroups=systemd-journal\n")
	}
	for _, v := range u.Environment {
		extra.WriteString("Environment=" + v + "\n")
	}
	for _, dir := range u.Linked {
		writable.WriteString("# A link in the root points there. \"-\": the service starts without it as well.\nReadWritePaths=-" + dir + "\n")
	}
	own := "PrivateDevices=yes\n"
	if name == "service.tmpl" || name == "agent.tmpl" { // the others do nothing of the service's own
		own = u.own()
	}
	umask := "0077"
	if u.Attached != "" {
		umask = "0022"
	}
	guard := "# " + watchdogUnit(u.service()) + " counts each start, or rolls back, before systemd resolves any\n" +
		"# path of the unit. It must not be required: the service starts without it as well.\n" +
		"Wants=" + watchdogUnit(u.service()) + "\nAfter=" + watchdogUnit(u.service()) + "\n"
	if u.Early {
		guard = ""
	}
	program := u.Layout.LastGood() + "/" + u.Binary
	before := " watchdog --before " + u.service() + " --root " + u.Layout.Root() + "\n"
	commands := "ExecStart=-" + program + before +
		"# For a missing watchdog, as the last line but one of " + u.service() + " is.\n" +
		"ExecStart=-" + u.Layout.Previous() + "/" + u.Binary + " rescue --root " + u.Layout.Root() + "\n"
	again := "# \"+\": as root. It can start this one unit, and nothing else.\nExecStart=+systemctl --no-block start " + restartUnit(u.service()) + "\n"
	if u.Attached != "" {
		// Both outside the sandbox, as ExecCondition= of the service is: in a container ProtectKernelTunables= shows
		// the boot id of the host, and they would not agree that they are of the same boot.
		program, commands = "+"+u.Agent, "# \"+\": it begins as root, and becomes the owner of the install root at once.\nExecStart=+-"+u.Agent+before
		again = "# It requests a start, as the agent does.\nExecStart=" + u.Agent + " restart --request --unit " + u.service() + " --root " + u.Layout.Root() + "\n"
	}
	steps := ""
	if u.Steps && u.RestartSecs < 10 {
		steps = "# Longer between two starts, up to 10 s, if it ends again and again. The watchdog does the\n# same where it runs; systemd also where the service fails before its first command.\nRestartSteps=10\nRestartMaxDelaySec=10\n"
	}
	filled := strings.NewReplacer(
		"{{Service}}", u.service(), "{{Base}}", u.base(), "{{Beside}}", besideName(u.service()), "{{Guard}}", guard, "{{Commands}}", commands, "{{Watchdog}}", program, "{{Again}}", again,
		"{{Name}}", u.Name, "{{Root}}", u.Layout.Root(), "{{Config}}", u.Layout.ConfigFile(), "{{Current}}", u.Layout.Current(),
		"{{LastGood}}", u.Layout.LastGood(), "{{Previous}}", u.Layout.Previous(),
		"{{Restart}}", u.Layout.RestartFile(), "{{RestartPath}}", restartPath(u.service()),
		"{{Binary}}", u.Binary, "{{User}}", u.User,
		"{{WindowSecs}}", strconv.Itoa(u.WindowSecs), "{{WatchdogSecs}}", strconv.Itoa(u.WatchdogSecs),
		"{{RestartSecs}}", strconv.FormatFloat(u.RestartSecs, 'g', -1, 64), "{{Steps}}", steps,
		"{{Attached}}", u.Attached, "{{Agent}}", u.Agent,
		"{{ProtectHome}}", u.protectHome(), "{{Extra}}", extra.String(), "{{Writable}}", writable.String(), "{{UMask}}", umask,
		"{{Args}}", quoteArgs(u.Args), "{{Own}}", own, "{{StopSecs}}", strconv.Itoa(u.stopSecs()),
	).Replace(strings.Replace(string(text), "{{Sandbox}}", string(sandbox), 1))
	if i := strings.Index(filled, "{{"); i >= 0 {
		return "", fmt.Errorf("%s has a placeholder without a value: %.30q", name, filled[i:])
	}
	return filled, nil
}

// protectHome returns the value of ProtectHome=. A directory that the service writes to may
// be in one that the setting hides: that is then to be read, and ReadWritePaths= opens the
// directory. systemd cannot open a path in a hidden one.
func (u Unit) protectHome() string {
	for _, dir := range slices.Concat([]string{u.Layout.Root()}, u.Linked, u.Writable) {
		for _, hidden := range []string{"/home", "/root", "/run/user"} {
			if within(dir, hidden) || within(resolve(dir), resolve(hidden)) { // /home may be a link to /var/home
				return "read-only"
			}
		}
	}
	return "yes"
}

// service is the unit that is upgraded.
func (u Unit) service() string { return cmp.Or(u.Attached, u.Name+".service") }

// base is the name of that unit without ".service".
func (u Unit) base() string { return strings.TrimSuffix(u.service(), ".service") }

// Enable returns the units of Files that must be enabled and started.
func (u Unit) Enable() []string {
	if u.Attached == "" {
		return []string{u.Name + ".service"}
	}
	return []string{restartPath(u.service()), u.base() + "-agent.service"}
}
