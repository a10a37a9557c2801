package install

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/bilbycast/edge-agent/config"
	"github.com/bilbycast/edge-agent/fsutil"
	"github.com/bilbycast/edge-agent/internal/state"
	"github.com/bilbycast/edge-agent/systemd"
)

// foreignDirectory makes the checks of the units, as root, if the directory of config.toml
// belongs to another user than that of the agent's unit, who cannot read config.toml. It
// reports whether that is so. Then no user can make the other checks: the directory keeps
// the one out, and the files the other.
func (d *doctor) foreignDirectory(ctx context.Context) bool {
	if os.Geteuid() != 0 {
		return false
	}
	s, _, err := config.Open(d.config) // configuration reports its faults later
	if err != nil || resolved(filepath.Dir(d.config)) != resolved(s.Layout.Root()) {
		return false
	}
	owner, err := s.Layout.Owner()
	uid, ok := systemd.UserOf(ctx, AgentUnit(s.Config), s.Layout)
	if err != nil || !ok || owner == 0 || owner == uid {
		return false
	}
	if st, err := os.Stat(d.config); err != nil || may(owner, st, 4) {
		return false
	}
	d.c, d.l = s.Config, s.Layout
	d.unitReport(d.units(ctx))
	return true
}

// ownerless returns the fault of an install root whose owner no user is, as after a new
// installation of the system.
func (d *doctor) ownerless() []fault {
	owner, err := d.l.Owner()
	if _, named := systemd.NameOf(owner); err != nil || named {
		return nil
	}
	remedy := "give it to the service's user: chown -R " + d.l.NewOwner("USER") + " " + resolved(d.l.Root())
	if command, ok := d.installCommand("", true); ok {
		remedy = "run: " + command
	}
	return []fault{{fmt.Sprintf("%s belongs to %s", d.l.Root(), systemd.DescribeUser(owner)), remedy}}
}

// strangersRemedy returns the remedy for files in the root that do not belong to the
// service's user. Root's own may be given away by chown. For those of another user, who
// may be changing them, install is the safe way.
func (d *doctor) strangersRemedy(remedy string) string {
	if _, by, ok, err := d.l.Misowned(d.user); err != nil || !ok || by == 0 {
		return remedy
	}
	name, named := systemd.NameOf(d.user)
	command, ok := d.installCommand(name, true)
	if !named || !ok {
		return remedy
	}
	return fmt.Sprintf("run: %s; or by hand: %s", command, strings.TrimPrefix(remedy, "run: "))
}

// userRemedy returns the remedy for a problem of the check User= of the agent's unit. It
// is install where the root must change its owner.
func (d *doctor) userRemedy(p systemd.Problem) string {
	owner, err := d.l.Owner()
	if err != nil {
		return p.Remedy
	}
	ownerName, named := systemd.NameOf(owner)
	uid, _, exists := systemd.LookupUser(d.state.User)
	asRoot := d.state.User == "" || exists && uid == 0
	if asRoot && named || exists && (owner == 0 || owner == uid) {
		return p.Remedy
	}
	user := d.state.User
	if asRoot {
		user = ""
	}
	command, ok := d.installCommand(user, true)
	if !ok {
		return p.Remedy
	}
	if asRoot { // what p suggests is a user that does not exist
		return "run: " + command
	}
	remedy := fmt.Sprintf("run: %s; or by hand: %s", command, strings.TrimPrefix(p.Remedy, "run: "))
	if exists && named && !d.ownsFiles(uid) {
		remedy += fmt.Sprintf("; or, if %s is the service's user, set User=%[1]s in the unit", ownerName)
	}
	return remedy
}

// wrongUser reports whether the user of the agent's unit was found wrong, which explains
// what that user cannot read.
func (d *doctor) wrongUser() bool {
	return d.failed("unit "+d.unit+": User=") || d.failed("unit "+d.agent+" User=")
}

// ownsFiles reports whether a user owns the files that only an agent makes in the root.
func (d *doctor) ownsFiles(uid uint32) bool {
	for _, path := range []string{d.l.CredentialsFile(), d.l.StateFile()} {
		if st, err := os.Stat(path); err == nil {
			if by, _, ok := ownerIDs(st); ok && by == uid {
				return true
			}
		}
	}
	return false
}

// unitRemedy returns the remedy for a missing unit. On a system that was installed again,
// the user is missing, too, and only install makes both.
func (d *doctor) unitRemedy(p systemd.Problem) string {
	owner, err := d.l.Owner()
	if err != nil || d.state.Load != "not-found" {
		return p.Remedy
	}
	name, named := systemd.NameOf(owner)
	if name == "root" {
		name = ""
	}
	if command, ok := d.installCommand(name, !named); ok {
		return fmt.Sprintf("run: %s; or %s", command, p.Remedy)
	}
	return p.Remedy
}

// installCommand returns the command that writes the unit of the node for user, or for
// the default if that is "", and with change gives the root to it. ok is false where
// install would refuse: in attached mode, and where somebody else wrote the unit.
func (d *doctor) installCommand(user string, change bool) (command string, ok bool) {
	s := d.c.Service
	t, err := d.l.Tree()
	if err != nil || s.Unit != "" || s.Name == "" || s.DeviceType == "" || len(t.Versions) == 0 {
		return "", false
	}
	n := Node{Name: s.Name, Root: d.l.Root(), real: resolved(d.l.Root())}
	if text, err := fsutil.ReadFile(n.unitPath(), maxUnit); !errors.Is(err, fs.ErrNotExist) && !n.wrote(text) {
		return "", false
	}
	v := t.Current
	if v.IsZero() {
		v = t.Versions[0]
	}
	command = fmt.Sprintf("edge-agent install %s --device-type %s", v, s.DeviceType)
	for _, flag := range []struct{ name, value, usual string }{
		{"name", s.Name, s.DeviceType}, {"root", n.Root, RootsDir + "/" + s.Name}, {"user", user, s.Name},
	} {
		if flag.value != "" && flag.value != flag.usual {
			command += fmt.Sprintf(" --%s %s", flag.name, flag.value)
		}
	}
	if change {
		command += " --change-owner"
	}
	return command, true
}

// WrongOwner returns the uid to whom the files of a root should belong, and what is wrong
// with the owner of the root, or "". That uid is the user of the unit of the agent, if root
// or that user asks, and otherwise the owner. Call it before a process of root becomes the
// owner, who may be unable to read config.toml.
func WrongOwner(ctx context.Context, l state.Layout) (uid uint32, text string) {
	owner, err := l.Owner()
	if err != nil {
		return 0, ""
	}
	const remedy = ": edge-agent doctor names the remedy"
	if c, err := configOf(l.Root()); err == nil {
		if uid, ok := systemd.UserOf(ctx, AgentUnit(c), l); ok && uid != owner {
			return uid, fmt.Sprintf("%s belongs to %s, but %s runs as %s", l.Root(), systemd.DescribeUser(owner), AgentUnit(c), systemd.DescribeUser(uid)) + remedy
		}
	}
	if _, named := systemd.NameOf(owner); !named {
		return owner, fmt.Sprintf("%s belongs to %s", l.Root(), systemd.DescribeUser(owner)) + remedy
	}
	return owner, ""
}
